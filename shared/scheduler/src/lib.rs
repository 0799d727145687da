//! When things run.

pub mod clock;
pub mod config;
mod error;
pub mod kinds;
pub mod ledger;
pub mod policy;
pub mod schedule;
pub mod store;

pub use error::{JobError, StoreError};
pub use ledger::Instant;
