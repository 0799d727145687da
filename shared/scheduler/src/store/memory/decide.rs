//! Decisions, queues and recovery in memory.

use std::time::Duration;

use super::{KEY_REMEMBERED, Locked, Stored};
use crate::{
    Instant,
    kinds::Held,
    ledger::{Ending, NewRun, Outcome, RunRow, RunState},
    policy::Decision,
    schedule::Overlap,
    store::{Decided, Enqueued, QueueOf, Recovered, Recovery, rules},
};

impl Locked<'_> {
    pub(super) fn decide(&mut self, decision: Decision, owner: &str, lease: Duration) -> Decided {
        let Decision { job, seen_epoch, next_at, stamp_start, ledger, starts, overlap, .. } = decision;
        let now = self.now;
        let current = self.state.schedules.get_mut(&job).filter(|row| row.epoch == seen_epoch && row.pause.is_none());
        let Some(row) = current else {
            return Decided { job, won: false, started: Vec::new(), disturbed: Vec::new() };
        };
        row.epoch += 1;
        row.next_at = next_at;
        if stamp_start {
            row.last_start_at = Some(now);
        }
        let epoch = row.epoch;
        for new in ledger {
            if let Some(row) = self.new_row(&job, new) {
                self.put_run(Stored { row, exclusive: true });
            }
        }
        let (mut started, mut disturbed) = (Vec::new(), Vec::new());
        for new in starts {
            self.start(&job, new, overlap, epoch, (owner, lease), (&mut started, &mut disturbed));
        }
        Decided { job, won: true, started, disturbed }
    }

    /// Whether the key is taken.
    pub(super) fn known(&self, job: &str, run_key: &str) -> bool {
        self.state.of_job.get(job).is_some_and(|runs| runs.by_key(run_key).is_some())
    }

    /// A new row unless its key is taken.
    fn new_row(&self, job: &str, new: NewRun) -> Option<RunRow> {
        (!self.known(job, &new.run_key)).then(|| rules::row(job, new, self.now))
    }

    /// The exclusive run that is going, if any.
    fn going(&self, job: &str) -> Option<RunRow> {
        let going = |stored: &&Stored| stored.row.state == RunState::Running && stored.exclusive;
        self.state.open_of(job).find(going).map(|stored| stored.row.clone())
    }

    fn waiting(&self, job: &str) -> impl Iterator<Item = &RunRow> {
        self.state.open_of(job).map(|stored| &stored.row).filter(|row| row.state == RunState::Queued)
    }

    fn queued(&self, job: &str) -> Vec<RunRow> {
        let mut rows: Vec<RunRow> = self.waiting(job).cloned().collect();
        rows.sort_by_key(|row| (row.fire_at, row.id));
        rows
    }

    fn start(
        &mut self,
        job: &str,
        new: NewRun,
        overlap: Overlap,
        epoch: i64,
        (owner, lease): (&str, Duration),
        (started, disturbed): (&mut Vec<RunRow>, &mut Vec<Held>),
    ) {
        let exclusive = overlap != Overlap::AllowAll;
        let Some(mut row) = self.new_row(job, new) else { return };
        let going = if exclusive { self.going(job) } else { None };
        let waiting = self.waiting(job).count();
        match (going, overlap) {
            (None, _) => rules::begin(&mut row, epoch, owner, self.now, lease),
            (Some(_), Overlap::Skip | Overlap::AllowAll) => return self.skip(row, None),
            (Some(_), Overlap::BufferOne) if waiting >= 1 => return self.skip(row, Some("buffer full")),
            (Some(_), Overlap::BufferAll) if waiting >= rules::BUFFER_ALL_MAX => {
                return self.skip(row, Some("buffer full"));
            }
            (Some(_), Overlap::BufferOne | Overlap::BufferAll) => {}
            (Some(mut other), Overlap::CancelOther) => {
                disturbed.push(Held { id: other.id, epoch: other.epoch });
                other.cancel_at = Some(self.now);
                self.put_run(Stored { row: other, exclusive });
            }
            (Some(mut other), Overlap::TerminateOther) => {
                disturbed.push(Held { id: other.id, epoch: other.epoch });
                other.epoch += 1;
                rules::end(&mut other, &Ending::because(Outcome::Terminated, "a newer run took its place"), self.now);
                self.put_run(Stored { row: other, exclusive });
                rules::begin(&mut row, epoch, owner, self.now, lease);
            }
        }
        if row.state == RunState::Running {
            started.push(row.clone());
        }
        self.put_run(Stored { row, exclusive });
    }

    /// Skips a run; one directly after another skipped one extends it.
    fn skip(&mut self, mut row: RunRow, reason: Option<&str>) {
        rules::skip(&mut row, reason, self.now);
        let newest = self
            .state
            .runs_of(&row.job)
            .filter(|stored| stored.row.nominal_at.is_some())
            .max_by_key(|stored| (stored.row.nominal_at, stored.row.id))
            .cloned();
        match newest {
            Some(mut last)
                if row.nominal_at > last.row.nominal_until.or(last.row.nominal_at)
                    && last.row.outcome == Some(Outcome::SkippedOverlap)
                    && last.row.reason == row.reason =>
            {
                last.row.nominal_until = row.nominal_at;
                last.row.instants += row.instants;
                last.row.finished_at = Some(self.now);
                self.put_run(last);
            }
            _ => self.put_run(Stored { row, exclusive: true }),
        }
    }

    pub(super) fn enqueue(&mut self, job: &str, new: NewRun, limit: u64) -> Enqueued {
        let known = self.state.of_job.get(job).and_then(|runs| runs.by_key(&new.run_key));
        let known = known.and_then(|id| self.state.runs.get(&id));
        if let Some(stored) = known {
            let row = stored.row.clone();
            let since = row.queued_at.or(row.started_at).or(row.finished_at).unwrap_or(self.now);
            if self.now - since < rules::delta(KEY_REMEMBERED) {
                return Enqueued::Existing(row);
            }
            let mut old = Stored::clone(stored);
            old.row.run_key = format!("{}:{}", old.row.run_key, old.row.id);
            self.put_run(old);
        }
        let asked = |row: &RunRow| row.wake_source == new.wake;
        if self.waiting(job).filter(|row| asked(row)).count() as u64 >= limit {
            return Enqueued::Full;
        }
        let row = rules::row(job, new, self.now);
        self.put_run(Stored { row: row.clone(), exclusive: true });
        Enqueued::New(row)
    }

    pub(super) fn take_queued(&mut self, queue: &QueueOf, owner: &str, lease: Duration) -> Vec<RunRow> {
        let mut taken = Vec::new();
        let now = self.now;
        let ready = self.queued(&queue.job).into_iter().filter(|row| row.queued_at.is_none_or(|at| at <= now));
        for mut row in ready.take(rules::TAKEN_MAX) {
            if queue.exclusive && self.going(&queue.job).is_some() {
                break;
            }
            let epoch = row.epoch + 1;
            rules::begin(&mut row, epoch, owner, self.now, lease);
            self.put_run(Stored { row: row.clone(), exclusive: queue.exclusive });
            taken.push(row);
        }
        taken
    }

    pub(super) fn recover(
        &mut self,
        recovery: &Recovery,
        stale: &[(Held, i64)],
        owner: &str,
        lease: Duration,
        recovered: &mut Recovered,
    ) {
        let now = self.now;
        let dead: Vec<Stored> = self
            .state
            .open_of(&recovery.job)
            .filter(|stored| stored.row.state == RunState::Running)
            .filter(|stored| dead(&stored.row, stale, now))
            .cloned()
            .collect();
        for mut stored in dead {
            let Some(superseded) = recovery.superseded(stored.row.id, now) else { continue };
            if rules::lose(&mut stored.row, recovery.resume, superseded, now) {
                let epoch = stored.row.epoch + 1;
                rules::begin(&mut stored.row, epoch, owner, now, lease);
                recovered.resumed.push(stored.row.clone());
            } else {
                recovered.ended.push(stored.row.clone());
            }
            self.put_run(stored);
        }
    }
}

/// Whether the lease has ended, or an observer has seen no sign of life for a whole lease.
fn dead(row: &RunRow, stale: &[(Held, i64)], now: Instant) -> bool {
    let seen = (Held { id: row.id, epoch: row.epoch }, row.beat);
    row.lease_until.is_none_or(|until| until < now) || stale.contains(&seen)
}
