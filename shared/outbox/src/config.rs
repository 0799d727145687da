//! How the relay works.

use std::time::Duration;

/// The relay's limits.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// Rows that one read brings at most.
    pub batch: u64,
    /// Bytes of bodies that one read brings at most, but for the row that reaches it.
    pub batch_bytes: u64,
    /// Rows of one key in a read at most, so that one key does not fill it.
    pub batch_of_key: u64,
    /// How often it looks when nothing wakes it: whoever records wakes it, also across processes.
    pub poll: Duration,
    /// How long the right to be the active relay lasts without renewal.
    pub lease: Duration,
    /// How long published rows are kept for `replay`.
    pub retention: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            batch: 2_000,
            batch_bytes: 8 * 1024 * 1024,
            batch_of_key: 500,
            poll: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            retention: Duration::from_hours(7 * 24),
        }
    }
}
