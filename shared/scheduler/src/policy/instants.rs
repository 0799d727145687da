//! The instants a decision is about: counted by arithmetic for intervals, enumerated within bounds for cron.

use chrono::{SecondsFormat, TimeDelta};

use super::Ids;
use crate::{
    Instant,
    ledger::{NewRun, Outcome, ScheduleRow, Wake},
    schedule::{Coalesce, ENUMERATED_MAX, Schedule, micros},
};

/// All instants whose time has come, oldest first.
pub(super) struct Instants<'a> {
    row: &'a ScheduleRow,
    those: Those,
    next: Option<Instant>,
}

enum Those {
    /// `first + k × every` for k below `count`.
    Spaced {
        first: Instant,
        every: i64,
        count: usize,
    },
    Listed(Vec<Instant>),
}

impl<'a> Instants<'a> {
    /// The instants from the row's next one whose firing time has come; `None` when there are none.
    pub(super) fn due(row: &'a ScheduleRow, now: Instant) -> Option<Self> {
        let first = row.next_at?;
        let fires = |at: Instant| row.spec.fire_at(&row.job, row.anchor_at, at) <= now;
        if !fires(first) {
            return None;
        }
        let (those, next) = if let Schedule::Interval { every } = &row.spec.schedule {
            let every = micros(*every).max(1);
            let steps = (now - first).num_microseconds().unwrap_or(0) / every;
            let last = first + TimeDelta::microseconds(every * steps);
            // Only the last can be held back by its jitter, for a jitter is shorter than the gap.
            let count = usize::try_from(steps + i64::from(fires(last))).unwrap_or(usize::MAX);
            let next = first + TimeDelta::microseconds(every.saturating_mul(i64::try_from(count).unwrap_or(i64::MAX)));
            (Those::Spaced { first, every, count }, Some(next))
        } else {
            let all = std::iter::successors(Some(first), |at| row.spec.next_after(row.anchor_at, *at));
            let listed: Vec<Instant> = all.take_while(|at| fires(*at)).take(ENUMERATED_MAX).collect();
            let next = listed.last().and_then(|last| row.spec.next_after(row.anchor_at, *last));
            (Those::Listed(listed), next)
        };
        Some(Self { row, those, next })
    }

    pub(super) fn len(&self) -> usize {
        match &self.those {
            Those::Spaced { count, .. } => *count,
            Those::Listed(listed) => listed.len(),
        }
    }

    fn get(&self, at: usize) -> Instant {
        match &self.those {
            Those::Spaced { first, every, .. } => {
                *first + TimeDelta::microseconds(every.saturating_mul(i64::try_from(at).unwrap_or(i64::MAX)))
            }
            Those::Listed(listed) => listed[at],
        }
    }

    /// The first instant that is not among these.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn coalesce(&self) -> Coalesce {
        self.row.spec.coalesce
    }

    fn fire_at(&self, at: usize) -> Instant {
        self.row.spec.fire_at(&self.row.job, self.row.anchor_at, self.get(at))
    }

    /// How many, from the oldest, satisfy `old`, which holds for a beginning of them.
    fn beginning(&self, old: impl Fn(usize) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if old(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// How many, from the oldest, are later than the grace.
    pub(super) fn older_than_grace(&self, now: Instant) -> usize {
        self.beginning(|at| {
            let grace = self.row.spec.grace(self.row.anchor_at, self.get(at));
            now - self.fire_at(at) > TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX)
        })
    }

    /// How many, from the oldest, lie before `since`.
    pub(super) fn before(&self, since: Instant) -> usize {
        self.beginning(|at| self.get(at) < since)
    }

    /// One ledger row for the instants `from..to`; `None` when there are none.
    pub(super) fn range(&self, from: usize, to: usize, outcome: Outcome, wake: Wake, ids: Ids<'_>) -> Option<NewRun> {
        if from >= to {
            return None;
        }
        let last = (to - from > 1).then(|| self.get(to - 1));
        Some(NewRun {
            nominal_until: last,
            instants: i64::try_from(to - from).unwrap_or(i64::MAX),
            outcome: Some(outcome),
            ..self.start(from, wake, ids)
        })
    }

    /// A run of one instant.
    pub(super) fn start(&self, at: usize, wake: Wake, ids: Ids<'_>) -> NewRun {
        let nominal = self.get(at);
        NewRun {
            id: ids(),
            run_key: format!("tick:{}", nominal.to_rfc3339_opts(SecondsFormat::Micros, true)),
            wake,
            nominal_at: Some(nominal),
            nominal_until: None,
            instants: 1,
            fire_at: self.fire_at(at),
            outcome: None,
            reason: None,
            into_run: None,
            input: None,
        }
    }
}
