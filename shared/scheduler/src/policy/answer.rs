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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        ledger::{NewRun, Pause, Wake},
        schedule::{Schedule, Spec},
        store::rules,
    };

    fn at(text: &str) -> Instant {
        text.parse().unwrap()
    }

    /// Every minute from midnight; the ledger begins at one o'clock, 01:10 is next.
    fn row() -> ScheduleRow {
        let (midnight, spec) = (at("2026-06-01T00:00:00Z"), Spec::every(Duration::from_secs(60)));
        ScheduleRow {
            job: "job".to_owned(),
            spec_hash: spec.hash(),
            spec,
            spec_by: "a".to_owned(),
            spec_at: midnight,
            overrides: None,
            next_at: Some(at("2026-06-01T01:10:00Z")),
            anchor_at: midnight,
            epoch: 7,
            last_start_at: None,
            pause: None,
            last_run_id: None,
            last_success_at: None,
            ledger_from: at("2026-06-01T01:00:00Z"),
        }
    }

    fn paused(mut row: ScheduleRow) -> ScheduleRow {
        let (by, reason) = ("op".to_owned(), "calm".to_owned());
        row.pause = Some(Pause { at: at("2026-06-01T01:05:00Z"), by, reason, until: None });
        row
    }

    fn run(outcome: Option<Outcome>) -> RunRow {
        let nominal_at = Some(at("2026-06-01T01:09:00Z"));
        let new = NewRun {
            id: Uuid::from_u128(9),
            run_key: "tick".to_owned(),
            wake: Wake::Tick,
            nominal_at,
            nominal_until: None,
            instants: 1,
            fire_at: at("2026-06-01T01:09:00Z"),
            outcome,
            reason: None,
            into_run: None,
            input: None,
        };
        rules::row("job", new, at("2026-06-01T01:09:00Z"))
    }

    const NOW: &str = "2026-06-01T01:20:00Z";

    fn words(row: &ScheduleRow, asked: &str, run: Option<&RunRow>) -> (Option<Instant>, String) {
        let why = why(row, at(asked), run, at(NOW));
        assert_eq!(why.at, at(asked));
        (why.nominal_at, why.text)
    }

    #[test]
    fn of_the_future_it_tells_what_comes_next() {
        let later = "2026-06-01T01:20:00.000001Z";
        let next = row().next_at;
        assert_eq!(
            words(&row(), later, None),
            (next, "in the future; the next instant is 2026-06-01T01:10:00Z".to_owned())
        );
        assert_eq!(
            words(&paused(row()), later, None),
            (None, "in the future; the job is paused by op: calm".to_owned())
        );
        let by_hand = ScheduleRow { next_at: None, spec: Spec::new(Schedule::None), ..row() };
        assert_eq!(words(&by_hand, later, None), (None, "in the future; the job runs only by hand".to_owned()));
    }

    #[test]
    fn of_what_nothing_is_written_about_it_tells_why_not() {
        let before = "2026-06-01T00:59:59.999999Z";
        assert_eq!(words(&row(), before, None).1, "before the ledger, which begins at 2026-06-01T01:00:00Z");
        let none = "no instant of the schedule lies at or before that moment in the ledger";
        assert_eq!(words(&row(), "2026-06-01T01:00:00Z", None), (None, none.to_owned()));
        assert_eq!(words(&row(), "2026-06-01T01:09:59Z", None).1, none);
        let undecided = (row().next_at, "2026-06-01T01:10:00Z is due and not decided yet".to_owned());
        assert_eq!(words(&row(), "2026-06-01T01:10:00Z", None), undecided);
        assert_eq!(words(&row(), NOW, None), undecided, "now is not the future");
        let waits = "2026-06-01T01:10:00Z waits: paused by op since 2026-06-01T01:05:00Z: calm";
        assert_eq!(words(&paused(row()), NOW, None), (row().next_at, waits.to_owned()));
    }

    #[test]
    fn of_the_past_it_tells_what_the_ledger_says() {
        let told = |run: &RunRow| {
            let why = why(&row(), at("2026-06-01T01:09:30Z"), Some(run), at(NOW));
            assert_eq!((why.run_id, why.outcome, why.nominal_at), (Some(run.id), run.outcome, run.nominal_at));
            why.text
        };
        for (outcome, text) in [
            (None, "waits in the queue"),
            (Some(Outcome::Missed), "was missed: it came later than the grace allows"),
            (Some(Outcome::Coalesced), "did not run by itself: a newer one stood for it"),
            (Some(Outcome::SkippedOverlap), "was skipped: the previous run was still going"),
            (Some(Outcome::Paused), "did not run: the job was paused"),
            (Some(Outcome::Disabled), "did not run: no live replica had the job enabled"),
            (Some(Outcome::Succeeded), "ran: succeeded, 0 items"),
        ] {
            assert_eq!(told(&run(outcome)), format!("2026-06-01T01:09:00Z {text}"));
        }
        let with = |outcome, change: &dyn Fn(&mut RunRow)| {
            let mut run = run(outcome);
            change(&mut run);
            told(&run).split_once(' ').unwrap().1.to_owned()
        };
        let limit = with(Some(Outcome::Missed), &|run| run.reason = Some("limit".to_owned()));
        assert_eq!(limit, "was missed: more instants were late than one decision runs (limit)");
        let into = with(Some(Outcome::Coalesced), &|run| run.into_run = Some(Uuid::from_u128(10)));
        assert_eq!(into, format!("did not run by itself: run {} stood for it", Uuid::from_u128(10)));
        let failed = with(Some(Outcome::Failed), &|run| {
            (run.lateness_ms, run.items) = (Some(12), 3);
            (run.error, run.reason) = (Some("no route".to_owned()), Some("other".to_owned()));
        });
        assert_eq!(failed, "ran, 12 ms after its time: failed, 3 items (no route)");
        let running = |owner: Option<&str>| {
            with(None, &|run| (run.state, run.owner) = (RunState::Running, owner.map(str::to_owned)))
        };
        assert_eq!((running(Some("b")), running(None)), ("is running on b".to_owned(), "is running on ?".to_owned()));
        assert_eq!(with(None, &|run| run.state = RunState::Done), "is done");
        let by_hand = RunRow { nominal_at: None, ..run(Some(Outcome::Succeeded)) };
        assert_eq!(told(&by_hand), "a run by hand ran: succeeded, 0 items");
    }
}
