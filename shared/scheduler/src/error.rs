//! Errors: what a job says of a failure, and what the store says.

use std::time::Duration;

/// What a job says of a failure; the runner decides when to try again.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The job's or the row's fault.
    #[error("{0}")]
    Failed(String),
    /// Nobody's fault: connection lost, deadlock, lock timeout, resources. Never counts against a row.
    #[error("{0}")]
    Transient(String),
    /// The outside world asks to come back later; does not burn an attempt.
    #[error("{reason}")]
    Throttled {
        /// When to come back.
        after: Option<Duration>,
        /// What it said.
        reason: String,
    },
}

impl JobError {
    /// A failure with a text.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Whether the failure is nobody's fault.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }
}

/// What the store says.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away or refuses for a moment (connection, 40001, 40P01, 55P03, 53xxx, busy).
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// A deadlock or a lost race: the same transaction again may succeed. Inside a store only.
    #[error("the transaction must be tried again: {0}")]
    Again(String),
    /// The tables are not there (not migrated).
    #[error("the scheduler's tables are missing: {0}")]
    NotMigrated(String),
    /// A row that cannot be read, or a statement the database refuses.
    #[error("the store failed: {0}")]
    Broken(String),
}

impl StoreError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Again(_))
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        if error.is_transient() { Self::Transient(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}
