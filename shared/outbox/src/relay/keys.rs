//! Keys that wait because their first row was not acknowledged.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// First back-off of a key, doubling to [`MAX`].
const FIRST: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(5);
/// Keys left out of a read at most.
const KEYS_MAX: usize = 1_000;

/// Keys in back-off.
#[derive(Default)]
pub(super) struct Blocked {
    keys: HashMap<String, (Instant, Duration)>,
}

impl Blocked {
    /// The keys to be left out now.
    pub(super) fn keys(&self) -> Vec<&str> {
        let now = Instant::now();
        let waits = self.keys.iter().filter(|(_, (until, _))| *until > now);
        waits.map(|(key, _)| key.as_str()).take(KEYS_MAX).collect()
    }

    /// The key waits, longer each time.
    pub(super) fn block(&mut self, key: &str) {
        let backoff = self.keys.get(key).map_or(FIRST, |(_, last)| (*last * 2).min(MAX));
        self.keys.insert(key.to_owned(), (Instant::now() + backoff, backoff));
    }

    /// The key's rows arrive again.
    pub(super) fn free(&mut self, key: &str) {
        if !self.keys.is_empty() {
            self.keys.remove(key);
        }
    }

    /// When the first of them may be tried again.
    pub(super) fn next_in(&self) -> Option<Duration> {
        let now = Instant::now();
        self.keys.values().map(|(until, _)| until.saturating_duration_since(now)).min()
    }
}
