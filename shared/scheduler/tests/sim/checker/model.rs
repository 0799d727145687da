//! What the ledger must hold, worked out from what happened and from section 0 of the rules alone.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use scheduler::{
    Instant,
    ledger::{NewRun, Outcome, RunState, Wake},
    policy::Decision,
    schedule::{Coalesce, Overlap, Spec},
};
use uuid::Uuid;

use super::calendar::Calendar;
use crate::time::Micros;

/// A job's schedule row, as it must be.
pub(crate) struct JobModel {
    pub(crate) spec: Spec,
    pub(crate) calendar: Calendar,
    pub(crate) anchor: Instant,
    pub(crate) next: Option<Instant>,
    pub(crate) epoch: i64,
    pub(crate) paused: bool,
    /// Every instant that was decided.
    pub(crate) decided: BTreeSet<Instant>,
}

/// A ledger row, as it must be.
#[derive(Debug, Clone)]
pub(crate) struct RunModel {
    pub(crate) job: String,
    pub(crate) wake: Wake,
    pub(crate) nominal: Option<Instant>,
    pub(crate) until: Option<Instant>,
    pub(crate) instants: i64,
    pub(crate) state: RunState,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) reason: Option<String>,
    pub(crate) fire_at: Instant,
    pub(crate) queued_at: Option<Instant>,
    pub(crate) lease_until: Option<Instant>,
    pub(crate) owner: String,
    pub(crate) epoch: i64,
    pub(crate) exclusive: bool,
    pub(crate) attempt: i32,
    pub(crate) lost: u32,
    pub(crate) cancel: bool,
    pub(crate) effects: u64,
    pub(crate) began: Micros,
    pub(crate) renewed: Micros,
    /// The policy in force when it came.
    pub(crate) overlap: Overlap,
}

impl RunModel {
    pub(crate) fn new(job: &str, new: &NewRun, overlap: Overlap, exclusive: bool, now: Instant) -> Self {
        let done = new.outcome.is_some();
        Self {
            job: job.to_owned(),
            wake: new.wake,
            nominal: new.nominal_at,
            until: new.nominal_until,
            instants: new.instants,
            state: if done { RunState::Done } else { RunState::Queued },
            outcome: new.outcome,
            reason: new.reason.clone(),
            fire_at: new.fire_at,
            queued_at: (!done).then_some(now),
            lease_until: None,
            owner: String::new(),
            epoch: 0,
            exclusive,
            attempt: 1,
            lost: 0,
            cancel: false,
            effects: 0,
            began: 0,
            renewed: 0,
            overlap,
        }
    }

    pub(crate) fn begin(&mut self, epoch: i64, owner: &str, now: Instant, at: Micros) {
        self.state = RunState::Running;
        self.epoch = epoch.max(self.epoch + 1);
        owner.clone_into(&mut self.owner);
        self.lease_until = Some(now + TimeDelta::seconds(30));
        (self.began, self.renewed) = (at, at);
    }

    pub(crate) fn end(&mut self, outcome: Outcome, reason: Option<String>) {
        self.state = RunState::Done;
        self.outcome = Some(outcome);
        self.reason = reason;
        self.lease_until = None;
    }

    pub(crate) fn wait(&mut self, until: Instant) {
        self.state = RunState::Queued;
        self.lease_until = None;
        self.queued_at = Some(until);
    }
}

/// Instants that share an end: from, to, how many, outcome, reason, whether a run of the decision stood for them.
pub(crate) type Range = (Instant, Instant, i64, Outcome, Option<&'static str>, bool);

/// What a decision must say.
#[derive(Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) ranges: Vec<Range>,
    pub(crate) starts: Vec<Option<Instant>>,
    pub(crate) next: Option<Instant>,
}

fn range(instants: &[Instant], outcome: Outcome, reason: Option<&'static str>, into: bool) -> Option<Range> {
    let (first, last) = (instants.first()?, instants.last()?);
    Some((*first, *last, i64::try_from(instants.len()).unwrap(), outcome, reason, into))
}

impl JobModel {
    /// Everything from the next instant whose time to fire has come.
    pub(crate) fn due(&self, job: &str, now: Instant) -> Vec<Instant> {
        let first = self.next.filter(|next| self.calendar.fire(job, self.anchor, *next) <= now);
        let all = std::iter::successors(first, |at| self.calendar.next(self.anchor, *at));
        all.take_while(|at| self.calendar.fire(job, self.anchor, *at) <= now).collect()
    }

    fn after(&self, due: &[Instant]) -> Option<Instant> {
        due.last().map_or(self.next, |last| self.calendar.next(self.anchor, *last))
    }

    fn missed(&self, job: &str, due: &[Instant], now: Instant) -> usize {
        let late =
            |at: &&Instant| now - self.calendar.fire(job, self.anchor, **at) > self.calendar.grace(self.anchor, **at);
        due.iter().take_while(late).count()
    }

    /// Which run, of those that are not missed; what becomes of the others.
    pub(crate) fn coalesced(&self, fresh: &[Instant]) -> (Vec<Range>, Vec<Option<Instant>>) {
        let (before, picked, after, outcome, reason) = match self.spec.coalesce {
            _ if fresh.is_empty() => return (Vec::new(), Vec::new()),
            Coalesce::Latest => {
                let (rest, last) = fresh.split_at(fresh.len() - 1);
                (rest, last, &[][..], Outcome::Coalesced, None)
            }
            Coalesce::Earliest => {
                let (first, rest) = fresh.split_at(1);
                (&[][..], first, rest, Outcome::Coalesced, None)
            }
            Coalesce::All => {
                let (rest, last) = fresh.split_at(fresh.len().saturating_sub(100));
                (rest, last, &[][..], Outcome::Missed, Some("limit"))
            }
        };
        let into = outcome == Outcome::Coalesced;
        let rest = [before, after].into_iter().filter_map(|rest| range(rest, outcome, reason, into)).collect();
        (rest, picked.iter().copied().map(Some).collect())
    }

    /// The decision of a tick.
    pub(crate) fn tick(&self, job: &str, now: Instant) -> Expected {
        let due = self.due(job, now);
        let (missed, fresh) = due.split_at(self.missed(job, &due, now));
        let (rest, starts) = self.coalesced(fresh);
        let ranges = range(missed, Outcome::Missed, None, false).into_iter().chain(rest).collect();
        Expected { ranges, starts, next: self.after(&due) }
    }

    /// The decision of a process that starts: one run stands for all that is fresh.
    pub(crate) fn start(&self, job: &str, now: Instant) -> Expected {
        let due = self.due(job, now);
        let (missed, fresh) = due.split_at(self.missed(job, &due, now));
        let missed = range(missed, Outcome::Missed, None, false);
        let ranges = missed.into_iter().chain(range(fresh, Outcome::Coalesced, None, true)).collect();
        Expected { ranges, starts: vec![None], next: self.after(&due) }
    }

    /// What a resume must say: from now, or catching up.
    pub(crate) fn resume(&self, due: &[Instant], catch_up: bool) -> Expected {
        let next = self.after(due);
        if catch_up {
            let (ranges, starts) = self.coalesced(due);
            return Expected { ranges, starts, next };
        }
        Expected { ranges: range(due, Outcome::Paused, None, false).into_iter().collect(), starts: Vec::new(), next }
    }

    /// Anchor and next instant after a change of the spec: nothing is missed because of it.
    pub(crate) fn respec(&mut self, spec: &Spec, now: Instant) {
        let same = spec.schedule == self.spec.schedule && spec.tzdata == self.spec.tzdata;
        self.spec = spec.clone();
        self.calendar = Calendar::of(spec);
        self.epoch += 1;
        if same {
            return;
        }
        match self.calendar.every() {
            Some(every) => {
                let next = self.next.map_or(now + every, |old| old.min(now + every));
                (self.anchor, self.next) = (next, Some(next));
            }
            None => self.next = self.calendar.next(self.anchor, now),
        }
    }
}

/// What rows say, in the checker's words.
pub(crate) fn said(ledger: &[NewRun], starts: &[NewRun], next: Option<Instant>) -> Expected {
    let ids: Vec<Uuid> = starts.iter().map(|start| start.id).collect();
    let words = |row: &NewRun| {
        let from = row.nominal_at.unwrap_or_default();
        let reason = row.reason.as_deref().map(|reason| if reason == "limit" { "limit" } else { "another" });
        let outcome = row.outcome.unwrap_or(Outcome::Fenced);
        let into = row.into_run.is_some_and(|into| ids.contains(&into));
        (from, row.nominal_until.unwrap_or(from), row.instants, outcome, reason, into)
    };
    let starts = starts.iter().map(|start| start.nominal_at).collect();
    Expected { ranges: ledger.iter().map(words).collect(), starts, next }
}

/// What kind of decision it is.
pub(crate) enum Sort {
    Tick,
    Start,
    SetBack,
    Disabled,
}

pub(crate) fn sort(decision: &Decision) -> Sort {
    if decision.stamp_start {
        Sort::Start
    } else if decision.ledger.iter().any(|row| row.outcome == Some(Outcome::Disabled)) {
        Sort::Disabled
    } else if decision.ledger.is_empty() && decision.starts.is_empty() {
        Sort::SetBack
    } else {
        Sort::Tick
    }
}
