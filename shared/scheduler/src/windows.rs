//! One ledger row stands for the due and hint passes of ten seconds.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use uuid::Uuid;

use crate::{Instant, body::Env, ledger::Wake, store::Store};

/// One ledger row stands for the due and hint passes of so long.
const WINDOW: Duration = Duration::from_secs(10);

/// The ledger rows of this replica's due and hint passes.
#[derive(Default)]
pub(crate) struct Windows(Mutex<Option<(Uuid, Duration, Instant, Wake)>>);

impl Windows {
    /// The window that a batch at `now` belongs to.
    pub(crate) fn at<S: Store>(&self, env: &Env<S>, wake: Wake, now: Instant) -> (Uuid, Instant, Wake) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let monotonic = env.clock.monotonic();
        match *window {
            Some((run, since, started_at, first)) if monotonic < since + WINDOW => (run, started_at, first),
            _ => {
                let run = (env.ids)();
                *window = Some((run, monotonic, now, wake));
                (run, now, wake)
            }
        }
    }
}
