//! When things run.

mod body;
mod claim;
pub mod clock;
pub mod config;
pub mod control;
mod error;
mod job;
pub mod kinds;
mod lease;
pub mod ledger;
mod local;
pub mod metrics;
pub mod policy;
mod runner;
pub mod schedule;
mod steps;
pub mod store;
pub mod tables;
mod tick;

pub use body::Kind;
pub use control::{Handle, Refused};
pub use error::{JobError, StoreError};
pub use job::Job;
pub use ledger::Instant;
pub use runner::{Running, Scheduler, Stopped};
