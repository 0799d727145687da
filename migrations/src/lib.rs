//! The tables of every service. One module a service; the shared tables come from the shared crates.

pub mod blog;
mod shared;
