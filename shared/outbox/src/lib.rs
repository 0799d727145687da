//! How events leave: recorded in the transaction of the change, relayed to the broker in order.
//!
//! [`record`] takes a transaction, so that forgetting it does not compile. The [`Relay`] reads what is not published
//! yet, oldest first, and marks what the broker has acknowledged; it never remembers a position, because positions
//! commit out of order. Within a key, position order is commit order, **because a verb holds its aggregate's row lock
//! before it records**: that is the rule of the room.

mod config;
mod error;
mod record;
mod relay;
mod store;
pub mod tables;

pub use self::{
    config::RelayConfig,
    error::Error,
    record::{Encoded, encoded, record},
    relay::{Relay, RelayHandle},
    store::{OutboxRow, Replay, Store},
};
