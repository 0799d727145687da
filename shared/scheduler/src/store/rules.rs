//! Rules that every store follows: how rows begin, end, are lost and are set aside. Pure.

use std::time::Duration;

use chrono::TimeDelta;

use crate::{
    Instant,
    kinds::Held,
    ledger::{Attempt, Ending, FailureRow, NewRun, Outcome, RunRow, RunState, Wake},
};

/// Lost so often, a run is final.
const LOSSES_MAX: usize = 3;
/// A row that failed so often is given up.
const FAILURES_MAX: i32 = 5;
/// Back-off of a row that failed: this, four times as much each time.
const FAILURE_BACKOFF: TimeDelta = TimeDelta::seconds(30);
/// Waiting runs of one job that are taken in one go.
pub(super) const TAKEN_MAX: usize = 200;
/// Runs that may wait by policy.
pub(super) const BUFFER_ALL_MAX: usize = 100;

/// A ledger row from what the core decided.
pub(crate) fn row(job: &str, new: NewRun, now: Instant) -> RunRow {
    let state = if new.outcome.is_some() { RunState::Done } else { RunState::Queued };
    let mut row = RunRow {
        id: new.id,
        job: job.to_owned(),
        run_key: new.run_key,
        wake_source: new.wake,
        nominal_at: new.nominal_at,
        nominal_until: new.nominal_until,
        instants: new.instants,
        fire_at: new.fire_at,
        state,
        outcome: new.outcome,
        reason: new.reason,
        into_run: new.into_run,
        attempt: 1,
        attempts: Vec::new(),
        owner: None,
        epoch: 0,
        beat: 0,
        lease_until: None,
        cancel_at: None,
        input: new.input,
        cursor: None,
        items: 0,
        passes: 0,
        lateness_ms: None,
        queued_at: Some(now),
        started_at: None,
        finished_at: None,
        error: None,
    };
    if row.outcome.is_some() {
        row.queued_at = None;
        row.finished_at = Some(now);
    }
    row
}

/// The row begins to run. Its epoch rises, so that whoever held it before is refused.
pub(super) fn begin(row: &mut RunRow, epoch: i64, owner: &str, now: Instant, lease: Duration) {
    row.state = RunState::Running;
    row.epoch = epoch.max(row.epoch + 1);
    row.owner = Some(owner.to_owned());
    row.beat = 0;
    row.lease_until = Some(now + delta(lease));
    if row.lateness_ms.is_none() && matches!(row.wake_source, Wake::Tick) && row.attempt == 1 {
        row.lateness_ms = Some((now - row.fire_at).num_milliseconds());
    }
    row.started_at = Some(now);
}

/// The row is skipped because another run is going.
pub(super) fn skip(row: &mut RunRow, reason: Option<&str>, now: Instant) {
    row.state = RunState::Done;
    row.outcome = Some(Outcome::SkippedOverlap);
    row.reason = reason.map(str::to_owned);
    row.queued_at = None;
    row.finished_at = Some(now);
}

/// The row ends.
pub(super) fn end(row: &mut RunRow, ending: &Ending, now: Instant) {
    row.state = RunState::Done;
    row.outcome = Some(ending.outcome);
    row.reason.clone_from(&ending.reason);
    row.error.clone_from(&ending.error);
    row.items += ending.items;
    row.finished_at = Some(now);
    row.lease_until = None;
}

/// The row's attempt ends without an end of the run.
fn append(row: &mut RunRow, outcome: Outcome, now: Instant) {
    let owner = row.owner.clone().unwrap_or_default();
    let (attempt, epoch, from) = (row.attempt, row.epoch, row.started_at);
    row.attempts.push(Attempt { attempt, owner, epoch, from, to: now, outcome });
}

/// A stop gives the row back: it waits again, the attempt not counted.
pub(super) fn release(row: &mut RunRow, now: Instant) {
    append(row, Outcome::Interrupted, now);
    wait(row, now);
}

/// The row waits until `until`, the attempt not counted.
pub(super) fn wait(row: &mut RunRow, until: Instant) {
    row.state = RunState::Queued;
    row.owner = None;
    row.lease_until = None;
    row.queued_at = Some(until);
}

/// The row's owner died. True: the row goes on (attempt + 1); false: it is final.
pub(super) fn lose(row: &mut RunRow, resume: bool, superseded: bool, now: Instant) -> bool {
    append(row, Outcome::Lost, now);
    // One whose owner came back and reported itself was lost no less.
    let lost = |outcome| matches!(outcome, Outcome::Lost | Outcome::Fenced);
    let losses = row.attempts.iter().filter(|attempt| lost(attempt.outcome)).count();
    let reason = if losses >= LOSSES_MAX {
        "crashed its worker 3 times"
    } else if !resume {
        "its owner died; rows that were not done are still due"
    } else if superseded {
        "its owner died, and the next instant came first"
    } else {
        row.attempt += 1;
        return true;
    };
    // The epoch rises also here: the dead owner may only be asleep.
    row.epoch += 1;
    end(row, &Ending::because(Outcome::Lost, reason), now);
    false
}

/// A zombie reports itself. False: there is no such lost attempt.
pub(super) fn fence(row: &mut RunRow, held: Held) -> bool {
    let lost = row.attempts.iter_mut().find(|attempt| attempt.epoch == held.epoch && attempt.outcome == Outcome::Lost);
    lost.map(|attempt| attempt.outcome = Outcome::Fenced).is_some()
}

/// A row of the job's own table failed once more.
pub(super) fn set_aside(
    before: Option<FailureRow>,
    job: &str,
    row_id: uuid::Uuid,
    error: &str,
    now: Instant,
) -> FailureRow {
    let attempts = before.map_or(0, |row| row.attempts) + 1;
    let backoff = FAILURE_BACKOFF * 4_i32.pow(u32::try_from(attempts - 1).unwrap_or(0).min(6));
    let given_up = attempts >= FAILURES_MAX;
    FailureRow {
        job: job.to_owned(),
        row_id,
        attempts,
        next_attempt_at: (!given_up).then(|| now + backoff),
        given_up_at: given_up.then_some(now),
        error: crate::ledger::hostile(error),
    }
}

pub(super) fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
