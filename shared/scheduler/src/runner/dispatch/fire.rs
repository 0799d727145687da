//! Deciding what fires now, and starting the runs that follow from it.

use super::{BATCH, Dispatcher, RETRY};
use crate::{
    Instant,
    body::Why,
    kinds::LEASE,
    ledger::RunRow,
    policy::{self, Decision},
    store::{Decided, Store},
};

/// What a decision makes of its job's schedule row, if it is carried out.
struct Wanted {
    job: usize,
    seen_epoch: i64,
    next_at: Option<Instant>,
    start_at: Option<Instant>,
}

impl Wanted {
    fn of(job: usize, decision: &Decision) -> Self {
        let start_at = decision.stamp_start.then_some(decision.now);
        Self { job, seen_epoch: decision.seen_epoch, next_at: decision.next_at, start_at }
    }
}

impl<S: Store> Dispatcher<S> {
    /// Decides everything whose time has come, a batch a transaction.
    pub(super) async fn fire(&mut self) {
        if self.fires.first().is_some_and(|(fire, _)| *fire <= self.env.clock.now()) && !self.knows_the_time().await {
            return;
        }
        let now = self.env.clock.now();
        while self.env.clock.monotonic() >= self.hold {
            let ready: Vec<usize> =
                self.fires.iter().take_while(|(fire, _)| *fire <= now).take(BATCH).map(|(_, job)| *job).collect();
            if ready.is_empty() {
                return;
            }
            let (mut decisions, mut idle) = (Vec::with_capacity(ready.len()), Vec::new());
            for job in ready {
                let row = self.states[job].row.as_ref();
                match row.and_then(|row| policy::decide(row, now, &mut || (self.env.ids)())) {
                    Some(decision) => decisions.push((job, decision)),
                    None => idle.push(job),
                }
            }
            for job in idle {
                // The row gives no reason to fire (a pause, say): the sweep will see it change.
                if let Some(fire) = self.states[job].fire.take() {
                    self.fires.remove(&(fire, job));
                }
            }
            if !decisions.is_empty() {
                self.decide(decisions).await;
            }
        }
    }

    /// Carries decisions out and starts the runs that are ours.
    pub(super) async fn decide(&mut self, decisions: Vec<(usize, Decision)>) {
        let wanted: Vec<Wanted> = decisions.iter().map(|(job, decision)| Wanted::of(*job, decision)).collect();
        let decisions = decisions.into_iter().map(|(_, decision)| decision).collect();
        match self.env.store.decide(decisions, &self.env.replica, LEASE).await {
            Ok(decided) => {
                let (mut started, mut lost) = (Vec::with_capacity(decided.len()), Vec::new());
                for (decided, wanted) in decided.into_iter().zip(wanted) {
                    if !self.decided(decided, &wanted, &mut started) {
                        lost.push(wanted.job);
                    }
                }
                self.executions.launch(started);
                if !lost.is_empty() {
                    self.reload(&lost).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "instants could not be decided; trying again");
                self.hold = self.env.clock.monotonic() + RETRY;
                // An unknown commit may have decided them: look at the rows first.
                let jobs: Vec<usize> = wanted.iter().map(|wanted| wanted.job).collect();
                self.reload(&jobs).await;
            }
        }
    }

    /// One decision's result, and the runs that it `started`. False: somebody else decided, so the job's row must be read
    /// again.
    fn decided(&mut self, decided: Decided, wanted: &Wanted, started: &mut Vec<(usize, RunRow)>) -> bool {
        for held in decided.disturbed {
            self.executions.end(held, Why::Cancel);
        }
        started.extend(decided.started.into_iter().map(|run| (wanted.job, run)));
        if !decided.won {
            return false;
        }
        if let Some(mut row) = self.states[wanted.job].row.take() {
            row.epoch = wanted.seen_epoch + 1;
            row.next_at = wanted.next_at;
            row.last_start_at = wanted.start_at.or(row.last_start_at);
            self.keep(wanted.job, row);
        }
        true
    }
}
