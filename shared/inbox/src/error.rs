//! What can go wrong with an event on its way in.

use broker::BrokerError;
use database::Fault;

/// What a listener says of a failure.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The event's fault: tried a few times, then it is a dead letter.
    #[error("{0}")]
    Failed(String),
    /// Nobody's fault: the partition waits.
    #[error("{0}")]
    Transient(String),
}

impl ListenError {
    /// A failure with a text.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Fault> for ListenError {
    fn from(fault: Fault) -> Self {
        if fault.is_transient() { Self::Transient(fault.to_string()) } else { Self::Failed(fault.to_string()) }
    }
}

/// Why a listener cannot go on now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The database.
    #[error(transparent)]
    Database(#[from] Fault),
}
