//! What can go wrong with an event on its way out.

use database::Fault;

/// Why an event was not recorded, or the outbox not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Larger than brokers accept; refused here, where somebody can still do something about it.
    #[error("event {event_type} of {bytes} bytes is larger than the {max} bytes an event may have")]
    TooLarge {
        /// Its type.
        event_type: String,
        /// Its envelope.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A type that is not in the catalogue would go to a topic that nobody made.
    #[error("event type {0:?} is not in the catalogue")]
    UnknownType(String),
    /// The range is older than what consumers can tell apart.
    #[error("events before {0} may be applied twice: consumers do not remember them any more; use force")]
    TooOld(chrono::DateTime<chrono::Utc>),
    /// The database.
    #[error(transparent)]
    Database(#[from] Fault),
}
