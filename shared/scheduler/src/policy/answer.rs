//! Why a job did, did not, or will run at a moment.

use chrono::SecondsFormat;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    Instant,
    ledger::{Outcome, RunRow, RunState, ScheduleRow},
};

/// The answer to "why did it (not) run then?".
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// What was asked about.
    pub at: Instant,
    /// The latest instant at or before it; for the future the next one.
    pub nominal_at: Option<Instant>,
    /// What became of it.
    pub outcome: Option<Outcome>,
    /// Its ledger row.
    pub run_id: Option<Uuid>,
    /// The answer in words.
    pub text: String,
}

/// The answer from the schedule row and the ledger row that covers the latest instant at or before `at`, if any.
pub fn why(row: &ScheduleRow, at: Instant, run: Option<&RunRow>, now: Instant) -> Why {
    let none = Why { at, nominal_at: None, outcome: None, run_id: None, text: String::new() };
    if at > now {
        return future(row, none);
    }
    if at < row.ledger_from {
        let text = format!("before the ledger, which begins at {}", shown(row.ledger_from));
        return Why { text, ..none };
    }
    if let Some(next) = row.next_at.filter(|next| *next <= at) {
        let text = match &row.pause {
            Some(pause) => {
                format!("{} waits: paused by {} since {}: {}", shown(next), pause.by, shown(pause.at), pause.reason)
            }
            None => format!("{} is due and not decided yet", shown(next)),
        };
        return Why { nominal_at: Some(next), text, ..none };
    }
    let Some(run) = run else {
        let text = "no instant of the schedule lies at or before that moment in the ledger".to_owned();
        return Why { text, ..none };
    };
    let nominal_at = run.nominal_at;
    Why { at, nominal_at, outcome: run.outcome, run_id: Some(run.id), text: past(run) }
}

fn shown(at: Instant) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn future(row: &ScheduleRow, none: Why) -> Why {
    let (nominal_at, text) = match (&row.pause, row.next_at) {
        (Some(pause), _) => (None, format!("in the future; the job is paused by {}: {}", pause.by, pause.reason)),
        (None, Some(next)) => (Some(next), format!("in the future; the next instant is {}", shown(next))),
        (None, None) => (None, "in the future; the job runs only by hand".to_owned()),
    };
    Why { nominal_at, text, ..none }
}

fn past(run: &RunRow) -> String {
    let instant = run.nominal_at.map_or_else(|| "a run by hand".to_owned(), shown);
    let what = match (run.state, run.outcome) {
        (RunState::Queued, _) => "waits in the queue".to_owned(),
        (RunState::Running, _) => format!("is running on {}", run.owner.as_deref().unwrap_or("?")),
        (RunState::Done, Some(Outcome::Missed)) if run.reason.as_deref() == Some("limit") => {
            "was missed: more instants were late than one decision runs".to_owned()
        }
        (RunState::Done, Some(Outcome::Missed)) => "was missed: it came later than the grace allows".to_owned(),
        (RunState::Done, Some(Outcome::Coalesced)) => match run.into_run {
            Some(into) => format!("did not run by itself: run {into} stood for it"),
            None => "did not run by itself: a newer one stood for it".to_owned(),
        },
        (RunState::Done, Some(Outcome::SkippedOverlap)) => "was skipped: the previous run was still going".to_owned(),
        (RunState::Done, Some(Outcome::Paused)) => "did not run: the job was paused".to_owned(),
        (RunState::Done, Some(Outcome::Disabled)) => "did not run: no live replica had the job enabled".to_owned(),
        (RunState::Done, Some(outcome)) => {
            let late = run.lateness_ms.map(|ms| format!(", {ms} ms after its time")).unwrap_or_default();
            format!("ran{late}: {outcome}, {} items", run.items)
        }
        (RunState::Done, None) => "is done".to_owned(),
    };
    let detail = run.error.as_ref().or(run.reason.as_ref()).map(|text| format!(" ({text})")).unwrap_or_default();
    format!("{instant} {what}{detail}")
}
