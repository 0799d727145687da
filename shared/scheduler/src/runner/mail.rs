//! What reaches the dispatcher: hints from outside, which coalesce, and results of its own tasks.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use tokio::sync::{Notify, broadcast::error::RecvError};

use crate::{
    Instant, JobError,
    body::{Env, Passed},
    job::Index,
    ledger::Wake,
    store::{Nudge, Store, sql::notify::EVERY_JOB},
};

/// When a job's next row falls due.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Next {
    pub(crate) at: Option<Instant>,
    /// The due time of the first of its rows; not known while some are set aside, which are older than their next try.
    pub(crate) first: Option<Instant>,
}

/// A result of one of the dispatcher's own tasks; bounded by how many there are.
pub(crate) enum Mail {
    /// When the job's next row falls due.
    Due { job: usize, due: Result<Next, JobError>, hinted: bool },
    /// A pass is over.
    Passed { job: usize, wake: Wake, passed: Passed },
    /// A run is over.
    Ended { job: usize },
}

/// Something committed here: read what is due next.
pub(crate) const CHANGED: u8 = 1;
/// Another replica says that something is due.
pub(crate) const NUDGED: u8 = 2;
/// The schedule row or the queue changed: read them.
pub(crate) const LOOK: u8 = 4;

/// Hints by job. However many arrive, each is a bit.
pub(crate) struct Hints {
    bits: Vec<AtomicU8>,
    /// Jobs of which a bit is set: of very many jobs, those without a hint are not looked at.
    given: Mutex<Vec<usize>>,
    arrived: Notify,
}

impl Hints {
    pub(crate) fn new(jobs: usize) -> Self {
        Self { bits: (0..jobs).map(|_| AtomicU8::new(0)).collect(), given: Mutex::default(), arrived: Notify::new() }
    }

    pub(crate) fn give(&self, job: usize, bit: u8) {
        let Some(bits) = self.bits.get(job) else { return };
        let before = bits.fetch_or(bit, Ordering::AcqRel);
        if before == 0 {
            self.given.lock().unwrap_or_else(PoisonError::into_inner).push(job);
        }
        if before & bit == 0 {
            self.arrived.notify_one();
        }
    }

    pub(crate) fn give_all(&self, bit: u8) {
        (0..self.bits.len()).for_each(|job| self.give(job, bit));
    }

    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The hints since the last call, by job.
    pub(crate) fn take(&self) -> Vec<(usize, u8)> {
        let mut given = std::mem::take(&mut *self.given.lock().unwrap_or_else(PoisonError::into_inner));
        given.sort_unstable();
        given.into_iter().map(|job| (job, self.bits[job].swap(0, Ordering::AcqRel))).collect()
    }
}

/// Turns nudges of other replicas into hints.
pub(crate) async fn listen<S: Store>(env: Arc<Env<S>>, index: Index, hints: Arc<Hints>, listening: bool) {
    let mut nudges = env.store.nudges();
    loop {
        let nudge = tokio::select! {
            biased;
            () = env.stop.cancelled() => return,
            nudge = nudges.recv() => nudge,
        };
        match nudge {
            _ if !listening => {}
            Ok(nudge) if nudge.by == env.replica => {}
            Ok(Nudge { job, .. }) if job == EVERY_JOB => hints.give_all(NUDGED | LOOK),
            Ok(Nudge { job, due, .. }) => {
                if let Some(job) = index.get(job.as_str()) {
                    hints.give(*job, if due.is_some() { NUDGED } else { NUDGED | LOOK });
                }
            }
            Err(RecvError::Lagged(_)) => hints.give_all(NUDGED | LOOK),
            Err(RecvError::Closed) => return,
        }
    }
}
