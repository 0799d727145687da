//! Pure: what becomes of each nominal instant. No clock, no I/O.

mod answer;
mod instants;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::answer::{Why, why};
use self::instants::Instants;
use crate::{
    Instant,
    ledger::{NewRun, Outcome, RunRow, ScheduleRow, Wake},
    schedule::{Coalesce, Overlap, Schedule, Spec},
};

/// Missed instants that `_COALESCE=all` runs at most: the newest.
const COALESCE_ALL_MAX: usize = 100;
/// Two starts of the process closer than this make one run on start.
const START_SPACING: Duration = Duration::from_secs(60);
/// Bounds of the default timeout.
const TIMEOUT_MIN: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// What a replica wants to happen to a job's instants; the store carries it out by compare-and-set.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The job.
    pub job: String,
    /// The epoch of the row it was computed from.
    pub seen_epoch: i64,
    /// The first instant after now.
    pub next_at: Option<Instant>,
    /// Sets `last_start_at` to now.
    pub stamp_start: bool,
    /// Finished range rows: `missed`, `coalesced`, `paused`, `disabled`.
    pub ledger: Vec<NewRun>,
    /// Runs to start, oldest first; each meets `overlap`.
    pub starts: Vec<NewRun>,
    /// What happens to a start when a run is going.
    pub overlap: Overlap,
    /// The time it was computed for.
    pub now: Instant,
}

/// What resuming does; its runs are queued for any enabled replica.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    /// The epoch of the row it was computed from.
    pub seen_epoch: i64,
    /// The first instant after now.
    pub next_at: Option<Instant>,
    /// Finished range rows.
    pub ledger: Vec<NewRun>,
    /// Runs that catch up.
    pub queued: Vec<NewRun>,
}

/// Where a resume takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeFrom {
    /// Instants of the pause become one `paused` range.
    Now,
    /// They are decided without grace, by coalesce.
    CatchUp,
}

/// A future firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The instant of the schedule.
    pub nominal_at: Instant,
    /// With jitter.
    pub fire_at: Instant,
}

/// Where ids of new rows come from.
pub type Ids<'a> = &'a mut dyn FnMut() -> Uuid;

/// Decides all instants in `[next_at, now]`; `None` when there is nothing to decide (paused, not due yet).
pub fn decide(row: &ScheduleRow, now: Instant, ids: Ids<'_>) -> Option<Decision> {
    if row.pause.is_some() {
        return None;
    }
    let due = Instants::due(row, now)?;
    let missed = due.older_than_grace(now);
    let mut ledger = Vec::new();
    ledger.extend(due.range(0, missed, Outcome::Missed, Wake::Tick, ids));
    let starts = coalesce(&due, missed, Wake::Tick, &mut ledger, ids);
    Some(Decision { next_at: due.next(), ledger, starts, ..plain(row, now) })
}

fn plain(row: &ScheduleRow, now: Instant) -> Decision {
    Decision {
        job: row.job.clone(),
        seen_epoch: row.epoch,
        next_at: row.next_at,
        stamp_start: false,
        ledger: Vec::new(),
        starts: Vec::new(),
        overlap: row.spec.overlap,
        now,
    }
}

/// Which of the instants from `fresh` on run; the others become range rows.
fn coalesce(due: &Instants<'_>, fresh: usize, wake: Wake, ledger: &mut Vec<NewRun>, ids: Ids<'_>) -> Vec<NewRun> {
    let end = due.len();
    if fresh >= end {
        return Vec::new();
    }
    let picked = match due.coalesce() {
        Coalesce::Latest => end - 1..end,
        Coalesce::Earliest => fresh..fresh + 1,
        Coalesce::All => fresh.max(end.saturating_sub(COALESCE_ALL_MAX))..end,
    };
    let starts: Vec<NewRun> = picked.clone().map(|at| due.start(at, wake, ids)).collect();
    let rest = [(fresh, picked.start), (picked.end, end)];
    for (from, to) in rest {
        let Some(mut range) = due.range(from, to, Outcome::Coalesced, wake, ids) else { continue };
        if due.coalesce() == Coalesce::All {
            range.outcome = Some(Outcome::Missed);
            range.reason = Some("limit".to_owned());
        } else {
            range.into_run = starts.first().map(|start| start.id);
        }
        ledger.push(range);
    }
    starts
}

/// The run at the start of a process, which stands for all fresh overdue instants; `None` when another replica's was
/// less than min(interval, 60 s) ago, or the job is paused.
pub fn start(row: &ScheduleRow, now: Instant, ids: Ids<'_>) -> Option<Decision> {
    let spacing = match &row.spec.schedule {
        Schedule::Interval { every } => (*every).min(START_SPACING),
        _ => START_SPACING,
    };
    let recent =
        row.last_start_at.is_some_and(|at| now - at < chrono::TimeDelta::from_std(spacing).unwrap_or_default());
    if row.pause.is_some() || recent {
        return None;
    }
    let id = ids();
    let run = NewRun {
        id,
        run_key: format!("start:{id}"),
        wake: Wake::Start,
        nominal_at: None,
        nominal_until: None,
        instants: 1,
        fire_at: now,
        outcome: None,
        reason: None,
        into_run: None,
        input: None,
    };
    let mut decision = Decision { stamp_start: true, starts: vec![run], ..plain(row, now) };
    if let Some(due) = Instants::due(row, now) {
        let missed = due.older_than_grace(now);
        decision.ledger.extend(due.range(0, missed, Outcome::Missed, Wake::Tick, ids));
        if let Some(mut stood_for) = due.range(missed, due.len(), Outcome::Coalesced, Wake::Tick, ids) {
            stood_for.into_run = Some(id);
            decision.ledger.push(stood_for);
        }
        decision.next_at = due.next();
    }
    Some(decision)
}

/// What resuming does.
pub fn resume(row: &ScheduleRow, now: Instant, from: ResumeFrom, ids: Ids<'_>) -> Resume {
    let mut resume = Resume { seen_epoch: row.epoch, next_at: row.next_at, ledger: Vec::new(), queued: Vec::new() };
    if let Some(due) = Instants::due(row, now) {
        match from {
            ResumeFrom::Now => resume.ledger.extend(due.range(0, due.len(), Outcome::Paused, Wake::Tick, ids)),
            ResumeFrom::CatchUp => resume.queued = coalesce(&due, 0, Wake::CatchUp, &mut resume.ledger, ids),
        }
        resume.next_at = due.next();
    }
    resume
}

/// Instants up to now that passed while only disabled replicas lived, from `since` on; older ones were an outage.
pub fn disabled(row: &ScheduleRow, since: Instant, now: Instant, ids: Ids<'_>) -> Option<Decision> {
    if row.pause.is_some() {
        return None;
    }
    let due = Instants::due(row, now)?;
    let outage = due.before(since);
    let mut ledger = Vec::new();
    ledger.extend(due.range(0, outage, Outcome::Missed, Wake::Tick, ids));
    ledger.extend(due.range(outage, due.len(), Outcome::Disabled, Wake::Tick, ids));
    Some(Decision { next_at: due.next(), ledger, ..plain(row, now) })
}

/// Anchor and next instant of a row that has never been (first start ever).
pub fn first(spec: &Spec, now: Instant) -> (Instant, Option<Instant>) {
    (now, spec.next_after(now, now))
}

/// Anchor and next instant after a changed spec. No instant is missed because of a change.
pub fn respec(row: &ScheduleRow, spec: &Spec, now: Instant) -> (Instant, Option<Instant>) {
    if spec.schedule == row.spec.schedule && spec.tzdata == row.spec.tzdata {
        return (row.anchor_at, row.next_at);
    }
    match &spec.schedule {
        Schedule::Interval { every } => {
            let latest = now + chrono::TimeDelta::from_std(*every).unwrap_or_default();
            let next = row.next_at.map_or(latest, |old| old.min(latest));
            (next, Some(next))
        }
        Schedule::Cron { .. } => (row.anchor_at, spec.next_after(row.anchor_at, now)),
        Schedule::None => (row.anchor_at, None),
    }
}

/// When the runner should wake for the row: its next instant with jitter. `None` while paused.
pub fn wake_at(row: &ScheduleRow) -> Option<Instant> {
    if row.pause.is_some() {
        return None;
    }
    row.next_at.map(|next| row.spec.fire_at(&row.job, row.anchor_at, next))
}

/// After a step back of the clock: a next instant beyond the first one after now is set back to that one. Instants
/// that have a row already keep it.
pub fn set_back(row: &ScheduleRow, now: Instant) -> Option<Decision> {
    let first = row.spec.next_after(row.anchor_at, now)?;
    let ahead = row.pause.is_none() && row.next_at.is_some_and(|next| next > first);
    ahead.then(|| Decision { next_at: Some(first), ..plain(row, now) })
}

/// The instant after the one a run stands for; once it is due, a lost attempt of the run is final.
pub fn superseded_at(row: &ScheduleRow, run: &RunRow) -> Option<Instant> {
    run.nominal_at.and_then(|nominal| row.spec.next_after(row.anchor_at, nominal))
}

/// The next `count` firings after `now`.
pub fn plan(row: &ScheduleRow, now: Instant, count: usize) -> Vec<Planned> {
    let fires = |nominal_at| Planned { nominal_at, fire_at: row.spec.fire_at(&row.job, row.anchor_at, nominal_at) };
    let first = row.next_at.filter(|next| *next > now).or_else(|| row.spec.next_after(row.anchor_at, now));
    std::iter::successors(first, |at| row.spec.next_after(row.anchor_at, *at)).take(count).map(fires).collect()
}

/// The instants in `[from, to]`, at most `max`.
pub fn instants_between(row: &ScheduleRow, from: Instant, to: Instant, max: usize) -> Vec<Instant> {
    let first = row.spec.next_after(row.anchor_at, from - chrono::TimeDelta::microseconds(1));
    let all = std::iter::successors(first, |at| row.spec.next_after(row.anchor_at, *at));
    all.take_while(|at| *at <= to).take(max).collect()
}

/// How long a run may take unless configured: max(30 s, min(0.9 × gap, 1 h)).
pub fn default_timeout(spec: &Spec) -> Duration {
    let reference = Instant::UNIX_EPOCH;
    let first = spec.next_after(reference, reference);
    let gap = first.and_then(|first| spec.gap(reference, first)).unwrap_or(TIMEOUT_MAX);
    gap.mul_f64(0.9).clamp(TIMEOUT_MIN, TIMEOUT_MAX)
}
