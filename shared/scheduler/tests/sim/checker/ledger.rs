//! Rows of the ledger as they come, meet each other, and must stand at the end.

use std::collections::BTreeMap;

use scheduler::{
    Instant,
    kinds::Held,
    ledger::{NewRun, Outcome, RunRow, RunState, Wake},
    schedule::Overlap,
};
use uuid::Uuid;

use super::{Checker, Moment, model::JobModel, model::RunModel};

impl Checker {
    /// Puts a row unless its key is taken; whether it was put.
    pub(super) fn insert(&mut self, job: &str, new: &NewRun, overlap: Overlap, exclusive: bool, now: Instant) -> bool {
        let key = (job.to_owned(), new.run_key.clone());
        if self.keys.contains_key(&key) {
            return false;
        }
        self.keys.insert(key, new.id);
        self.track(job, new.id, new.nominal_at);
        self.open(new.id, new.outcome.is_none());
        self.runs.insert(new.id, RunModel::new(job, new, overlap, exclusive, now));
        true
    }

    /// An operator's key that is a day old, by the database's time, may be used for another run.
    pub(super) fn free_old_key(&mut self, job: &str, run_key: &str, now: Instant) {
        let key = (job.to_owned(), run_key.to_owned());
        let queued_at = self.keys.get(&key).and_then(|id| self.runs.get(id)).and_then(|run| run.queued_at);
        if queued_at.is_some_and(|at| now - at >= chrono::TimeDelta::days(1)) {
            self.keys.remove(&key);
        }
    }

    fn track(&mut self, job: &str, id: Uuid, nominal: Option<Instant>) {
        if let Some(nominal) = nominal {
            self.newest.entry(job.to_owned()).or_default().insert((nominal, id));
        }
    }

    pub(super) fn going(&self, job: &str) -> Option<Uuid> {
        let going = |run: &RunModel| run.job == job && run.state == RunState::Running && run.exclusive;
        self.open_runs().find(|(_, run)| going(run)).map(|(id, _)| id)
    }

    /// A start meets what is going on.
    pub(super) fn start(
        &mut self,
        moment: Moment<'_>,
        name: &str,
        job: &JobModel,
        new: &NewRun,
        started: &mut Vec<(Uuid, i64)>,
        disturbed: &mut Vec<Held>,
    ) {
        let overlap = job.spec.overlap;
        let exclusive = overlap != Overlap::AllowAll;
        if !self.insert(name, new, overlap, exclusive, moment.database) {
            return;
        }
        let going = self.going(name).filter(|_| exclusive);
        let waiting = self.waiting(name).iter().filter(|(_, id)| *id != new.id).count();
        let full = match overlap {
            Overlap::BufferOne => waiting >= 1,
            Overlap::BufferAll => waiting >= 100,
            _ => false,
        };
        match (going, overlap) {
            (None, _) => {}
            (Some(_), Overlap::Skip | Overlap::AllowAll) => return self.skip(name, new.id, None),
            (Some(_), _) if full => return self.skip(name, new.id, Some("buffer full")),
            (Some(_), Overlap::BufferOne | Overlap::BufferAll) => return,
            (Some(other), Overlap::CancelOther) => {
                let other_run = self.run_mut(other);
                other_run.cancel = true;
                disturbed.push(Held { id: other, epoch: other_run.epoch });
                return;
            }
            (Some(other), Overlap::TerminateOther) => {
                let other_run = self.run_mut(other);
                disturbed.push(Held { id: other, epoch: other_run.epoch });
                other_run.epoch += 1;
                other_run.end(Outcome::Terminated, None);
                self.open(other, false);
            }
        }
        let run = self.run_mut(new.id);
        run.begin(job.epoch, moment.replica, moment.database, moment.at);
        started.push((new.id, run.epoch));
    }

    /// A skipped row directly after another extends it.
    fn skip(&mut self, job: &str, id: Uuid, reason: Option<&str>) {
        self.open(id, false);
        let run = self.run_mut(id);
        run.end(Outcome::SkippedOverlap, reason.map(str::to_owned));
        let Some(nominal) = run.nominal else { return };
        let of_job = self.newest.entry(job.to_owned()).or_default();
        let last = of_job.iter().rev().find(|(_, other)| *other != id).copied();
        let Some((_, last)) = last else { return };
        let other = self.run_mut(last);
        let after = Some(nominal) > other.until.or(other.nominal);
        if after && other.outcome == Some(Outcome::SkippedOverlap) && other.reason.as_deref() == reason {
            other.until = Some(nominal);
            other.instants += 1;
            self.runs.remove(&id);
            self.keys.retain(|_, of| *of != id);
            let of_job = self.newest.entry(job.to_owned()).or_default();
            of_job.remove(&(nominal, id));
        }
    }

    /// The ledger at the end: row by row as worked out, each instant in one row, nothing left undone.
    pub(crate) fn verify(&mut self, moment: Moment<'_>, found: &BTreeMap<String, Vec<RunRow>>) {
        let mut rows = 0;
        for row in found.values().flatten().filter(|row| !matches!(row.wake_source, Wake::Due | Wake::Hint)) {
            rows += 1;
            let Some(run) = self.runs.get(&row.id) else {
                self.fail(moment, format!("{} {}: a row that nothing explains", row.job, row.run_key));
                continue;
            };
            let must = (run.state, run.outcome, run.nominal, run.until, run.instants, run.epoch, run.attempt);
            let is = (row.state, row.outcome, row.nominal_at, row.nominal_until, row.instants, row.epoch, row.attempt);
            if must != is {
                self.fail(moment, format!("{} {}: is\n    {is:?}\n  and must be\n    {must:?}", row.job, row.run_key));
            }
            let undone = row.state != RunState::Done
                && row
                    .queued_at
                    .or(row.started_at)
                    .is_some_and(|at| moment.database - at > chrono::TimeDelta::minutes(10));
            if undone {
                self.fail(moment, format!("{} {}: still {}", row.job, row.run_key, row.state));
            }
        }
        if rows != self.runs.len() {
            self.fail(moment, format!("{rows} rows in the ledger and there must be {}", self.runs.len()));
        }
        for (name, rows) in found {
            self.verify_instants(moment, name, rows);
        }
    }

    fn verify_instants(&mut self, moment: Moment<'_>, name: &str, rows: &[RunRow]) {
        let Some(job) = self.jobs.get(name) else { return };
        let mut ranges: Vec<(Instant, Instant, i64)> = rows
            .iter()
            .filter(|row| matches!(row.wake_source, Wake::Tick | Wake::CatchUp))
            .filter_map(|row| row.nominal_at.map(|from| (from, row.nominal_until.unwrap_or(from), row.instants)))
            .collect();
        ranges.sort_unstable();
        let mut wrong = Vec::new();
        // After a step back instants are decided once more: those with a row of their own keep it, those inside of a range
        // get one beside it.
        let ordered = !self.stepped_back;
        for pair in ranges.windows(2).filter(|_| ordered).filter(|pair| pair[1].0 <= pair[0].1) {
            wrong.push(format!("{name}: an instant has two rows: {pair:?}"));
        }
        let covered: i64 = ranges.iter().map(|range| range.2).sum();
        let decided = job.decided.len() as i64;
        if ordered && covered != decided {
            wrong.push(format!("{name}: {covered} instants in the ledger of {decided} that were decided"));
        }
        for (from, until, instants) in ranges.iter().filter(|_| ordered) {
            let within = job.decided.range(from..=until).count() as i64;
            if within != *instants {
                wrong.push(format!("{name}: {from} to {until} says {instants} instants, there are {within}"));
            }
        }
        if job.next.is_some_and(|next| next + chrono::TimeDelta::minutes(5) < moment.database) && !job.paused {
            wrong.push(format!("{name}: nobody decides {:?}", job.next));
        }
        for text in wrong {
            self.fail(moment, text);
        }
    }
}
