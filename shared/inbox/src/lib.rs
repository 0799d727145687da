//! How events arrive: the effect of each once, in one transaction with the note that it was taken.
//!
//! A service writes [`Listen`]; the [`Listener`] owns offsets, repetition, halving, retries and dead letters.

mod apply;
mod error;
mod listen;
mod listener;
mod store;
pub mod tables;

pub use self::{
    error::{Error, ListenError},
    listen::{Listen, Order},
    listener::{Listener, ListenerConfig, REMEMBERED},
};
