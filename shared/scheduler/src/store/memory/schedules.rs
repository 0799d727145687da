//! Schedule rows in memory: announced, noted, resumed; and the pruning of the ledger.

use uuid::Uuid;

use super::{Locked, Stored};
use crate::{
    Instant,
    ledger::{Outcome, ReplicaRow, RunRow, RunState, ScheduleRow},
    policy::{self, Resume},
    store::{Announcement, Retention, rules},
};

/// A replica that was not seen for so long is forgotten.
const FORGET: chrono::TimeDelta = chrono::TimeDelta::days(1);

impl Locked<'_> {
    /// Forgets replicas that were not seen for a day.
    pub(super) fn forget_replicas(&mut self) {
        let now = self.now;
        self.state.replicas.retain(|_, row| now - row.seen_at < FORGET);
    }

    pub(super) fn announce(&mut self, replica: &str, said: &Announcement) -> Option<ScheduleRow> {
        let now = self.now;
        let hash = said.spec.hash();
        let key = (said.job.clone(), replica.to_owned());
        let started_at = self.state.replicas.get(&key).map_or(now, |row| row.started_at);
        let (job, enabled, spec_hash) = (said.job.clone(), said.enabled, hash.clone());
        let seen = ReplicaRow { job, replica: replica.to_owned(), enabled, spec_hash, started_at, seen_at: now };
        self.state.replicas.insert(key, seen);
        match self.state.schedules.get(&said.job).cloned() {
            None => {
                let (anchor_at, next_at) = policy::first(&said.spec, now);
                self.put_schedule(ScheduleRow {
                    job: said.job.clone(),
                    spec: said.spec.clone(),
                    spec_hash: hash,
                    spec_by: replica.to_owned(),
                    spec_at: now,
                    overrides: None,
                    anchor_at,
                    next_at,
                    epoch: 1,
                    last_start_at: None,
                    pause: None,
                    last_run_id: None,
                    last_success_at: None,
                    ledger_from: now,
                });
            }
            Some(mut row) if said.starting && said.enabled && row.spec_hash != hash => {
                (row.anchor_at, row.next_at) = policy::respec(&row, &said.spec, now);
                row.spec = said.spec.clone();
                row.spec_hash = hash;
                replica.clone_into(&mut row.spec_by);
                row.spec_at = now;
                row.epoch += 1;
                self.put_schedule(row);
            }
            Some(_) => {}
        }
        self.state.schedules.get(&said.job).cloned()
    }

    pub(super) fn note(&mut self, job: &str, run: Uuid, outcome: Outcome) {
        let now = self.now;
        let Some(row) = self.state.schedules.get_mut(job) else { return };
        row.last_run_id = Some(run);
        if outcome == Outcome::Succeeded {
            row.last_success_at = Some(now);
        }
    }

    pub(super) fn prune(&mut self, job: &str, keep: Retention) -> u64 {
        let horizon = self.now - rules::delta(keep.age);
        let mut rows: Vec<&RunRow> = self.state.runs_of(job).map(|stored| &stored.row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.id));
        let keep_rows = usize::try_from(keep.rows).unwrap_or(usize::MAX);
        let good = |row: &RunRow| {
            !matches!(row.outcome, Some(Outcome::Failed | Outcome::TimedOut | Outcome::Panicked | Outcome::Lost))
        };
        let old = |(at, row): &(usize, &&RunRow)| {
            let beyond = *at >= keep_rows && good(row);
            row.state == RunState::Done && (beyond || row.finished_at.is_some_and(|at| at < horizon))
        };
        let batch = usize::try_from(keep.batch).unwrap_or(usize::MAX);
        let mut gone: Vec<(Uuid, Option<Instant>)> =
            rows.iter().enumerate().filter(old).map(|(_, row)| (row.id, row.finished_at)).collect();
        gone.reverse();
        gone.truncate(batch);
        let newest = gone.iter().filter_map(|(_, at)| *at).max();
        for (id, _) in &gone {
            self.state.remove(*id);
        }
        if let (Some(newest), Some(row)) = (newest, self.state.schedules.get_mut(job)) {
            row.ledger_from = row.ledger_from.max(newest);
        }
        gone.len() as u64
    }

    pub(super) fn resume(&mut self, job: &str, resume: &Resume) -> bool {
        let Some(row) = self.state.schedules.get_mut(job).filter(|row| row.epoch == resume.seen_epoch) else {
            return false;
        };
        row.epoch += 1;
        row.pause = None;
        row.next_at = resume.next_at;
        let now = self.now;
        for new in resume.ledger.iter().chain(&resume.queued) {
            if !self.known(job, &new.run_key) {
                self.put_run(Stored { row: rules::row(job, new.clone(), now), exclusive: true });
            }
        }
        true
    }
}
