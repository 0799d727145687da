//! Tables of decisions, and what holds for every sequence of them.

use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::ledger::Pause;

fn at(text: &str) -> Instant {
    text.parse().unwrap()
}

fn row(spec: Spec) -> ScheduleRow {
    let anchor_at = at("2026-06-01T00:00:00Z");
    ScheduleRow {
        job: "job".to_owned(),
        spec_hash: spec.hash(),
        next_at: spec.next_after(anchor_at, anchor_at),
        spec,
        spec_by: "a".to_owned(),
        spec_at: anchor_at,
        overrides: None,
        anchor_at,
        epoch: 7,
        last_start_at: None,
        pause: None,
        last_run_id: None,
        last_success_at: None,
        ledger_from: anchor_at,
    }
}

fn minute() -> Spec {
    Spec::every(Duration::from_secs(60))
}

fn ids() -> impl FnMut() -> Uuid {
    let mut next = 0;
    move || {
        next += 1;
        Uuid::from_u128(next)
    }
}

/// (outcome or "run", first minute, instants, reason)
fn told(rows: &[NewRun]) -> Vec<Row> {
    let anchor = at("2026-06-01T00:00:00Z");
    rows.iter()
        .map(|row| {
            let outcome = row.outcome.map_or("run".to_owned(), |outcome| outcome.to_string());
            let first = row.nominal_at.map_or(-1, |nominal| (nominal - anchor).num_minutes());
            (outcome, first, row.instants, row.reason.clone().unwrap_or_default())
        })
        .collect()
}

/// A ledger row in short: outcome or start, minutes after the anchor, instants, reason.
type Row = (String, i64, i64, String);

fn decided(spec: Spec, now: &str) -> (Vec<Row>, Option<Decision>) {
    let decision = decide(&row(spec), at(now), &mut ids());
    let all: Vec<NewRun> =
        decision.iter().flat_map(|decision| decision.ledger.iter().chain(&decision.starts).cloned()).collect();
    (told(&all), decision)
}

fn is(outcome: &str, first: i64, instants: i64) -> Row {
    (outcome.to_owned(), first, instants, String::new())
}

#[test]
fn nothing_is_decided_before_its_time() {
    assert_eq!(decided(minute(), "2026-06-01T00:00:59.999999Z").1, None);
}

#[test]
fn an_instant_whose_time_has_come_runs() {
    let (rows, decision) = decided(minute(), "2026-06-01T00:01:00Z");
    let decision = decision.unwrap();
    assert_eq!(rows, [is("run", 1, 1)]);
    assert_eq!(decision.next_at, Some(at("2026-06-01T00:02:00Z")));
    assert_eq!(decision.seen_epoch, 7);
    assert_eq!(decision.starts[0].run_key, "tick:2026-06-01T00:01:00.000000Z");
}

#[test]
fn after_an_outage_one_row_tells_what_was_missed_and_the_latest_runs() {
    let (rows, decision) = decided(minute(), "2026-06-01T01:00:30Z");
    assert_eq!(rows, [is("missed", 1, 59), is("run", 60, 1)]);
    assert_eq!(decision.unwrap().next_at, Some(at("2026-06-01T01:01:00Z")));
}

#[test]
fn the_grace_says_how_many_are_fresh_and_coalescing_which_of_them_run() {
    let grace = |coalesce| Spec { misfire_grace: Some(Duration::from_secs(600)), coalesce, ..minute() };
    let (rows, decision) = decided(grace(Coalesce::Latest), "2026-06-01T01:00:00Z");
    assert_eq!(rows, [is("missed", 1, 49), is("coalesced", 50, 10), is("run", 60, 1)]);
    let decision = decision.unwrap();
    assert_eq!(decision.ledger[1].into_run, Some(decision.starts[0].id));
    let (rows, _) = decided(grace(Coalesce::Earliest), "2026-06-01T01:00:00Z");
    assert_eq!(rows, [is("missed", 1, 49), is("coalesced", 51, 10), is("run", 50, 1)]);
    let (rows, _) = decided(grace(Coalesce::All), "2026-06-01T01:00:00Z");
    assert_eq!(rows.len(), 1 + 11);
}

#[test]
fn catching_up_on_all_runs_the_newest_hundred() {
    let spec = Spec { misfire_grace: Some(Duration::from_secs(86_400)), coalesce: Coalesce::All, ..minute() };
    let (rows, decision) = decided(spec, "2026-06-01T05:00:00Z");
    assert_eq!(rows[0], ("missed".to_owned(), 1, 200, "limit".to_owned()));
    assert_eq!(decision.unwrap().starts.len(), 100);
}

#[test]
fn a_week_of_seconds_is_decided_at_once() {
    let began = std::time::Instant::now();
    let (rows, _) = decided(Spec::every(Duration::from_secs(1)), "2026-06-08T00:00:00Z");
    assert_eq!(rows.iter().map(|row| row.2).sum::<i64>(), 7 * 86_400);
    assert!(rows.len() <= 3, "{} rows", rows.len());
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
}

#[test]
fn a_paused_job_decides_nothing_and_its_instants_wait() {
    let mut paused = row(minute());
    let (by, reason) = ("op".to_owned(), "calm".to_owned());
    paused.pause = Some(Pause { at: paused.anchor_at, by, reason, until: None });
    let now = at("2026-06-01T00:10:00Z");
    assert_eq!(decide(&paused, now, &mut ids()), None);
    assert_eq!(start(&paused, now, &mut ids()), None);
    assert_eq!(wake_at(&paused), None);
    let left = resume(&paused, now, ResumeFrom::Now, &mut ids());
    assert_eq!((told(&left.ledger), left.queued.len()), (vec![is("paused", 1, 10)], 0));
    let caught = resume(&paused, now, ResumeFrom::CatchUp, &mut ids());
    assert_eq!(told(&caught.ledger), [is("coalesced", 1, 9)]);
    assert_eq!(told(&caught.queued), [is("run", 10, 1)]);
    assert_eq!(caught.queued[0].wake, Wake::CatchUp);
    assert_eq!(caught.next_at, Some(at("2026-06-01T00:11:00Z")));
}

#[test]
fn the_run_on_start_stands_for_what_is_fresh_and_is_made_once() {
    let mut fresh = row(minute());
    let now = at("2026-06-01T00:03:30Z");
    let decision = start(&fresh, now, &mut ids()).unwrap();
    assert!(decision.stamp_start);
    assert_eq!(told(&decision.ledger), [is("missed", 1, 2), is("coalesced", 3, 1)]);
    assert_eq!(decision.ledger[1].into_run, Some(decision.starts[0].id));
    assert_eq!((decision.starts[0].nominal_at, decision.starts[0].wake), (None, Wake::Start));
    fresh.last_start_at = Some(now - TimeDelta::seconds(59));
    assert_eq!(start(&fresh, now, &mut ids()), None);
    fresh.last_start_at = Some(now - TimeDelta::seconds(60));
    assert!(start(&fresh, now, &mut ids()).is_some());
}

#[test]
fn starts_are_a_minute_apart_or_an_interval_if_that_is_shorter() {
    let now = at("2026-06-01T06:00:00Z");
    let quick = row(Spec::every(Duration::from_secs(5)));
    let daily = row(Spec::every(Duration::from_secs(86_400)));
    for (mut row, spacing) in [(quick, 5), (daily, 60), (row(daily_cron()), 60)] {
        row.last_start_at = Some(now - TimeDelta::seconds(spacing) + TimeDelta::microseconds(1));
        assert_eq!(start(&row, now, &mut ids()), None, "{spacing} s");
        row.last_start_at = Some(now - TimeDelta::seconds(spacing));
        assert!(start(&row, now, &mut ids()).is_some(), "{spacing} s");
    }
}

fn daily_cron() -> Spec {
    let (expression, zone) = ("0 3 * * *".to_owned(), "UTC".to_owned());
    Spec::new(Schedule::Cron { expression, zone, dst: crate::schedule::Dst::Vixie })
}

#[test]
fn what_passed_while_only_disabled_replicas_lived_is_disabled_and_what_passed_before_was_missed() {
    let row = row(minute());
    let now = at("2026-06-01T00:10:30Z");
    let decision = disabled(&row, at("2026-06-01T00:04:00Z"), now, &mut ids()).unwrap();
    assert_eq!(told(&decision.ledger), [is("missed", 1, 3), is("disabled", 4, 7)]);
    assert_eq!((decision.next_at, decision.starts.len()), (Some(at("2026-06-01T00:11:00Z")), 0));
    assert_eq!((decision.seen_epoch, decision.stamp_start, decision.now), (7, false, now));
    assert_eq!(disabled(&row, now, at("2026-06-01T00:00:30Z"), &mut ids()), None, "nothing has passed");
    // A range says where it ends; a single instant is none.
    let ends = |since: &str| -> Vec<_> {
        let decision = disabled(&row, at(since), now, &mut ids()).unwrap();
        decision.ledger.iter().map(|row| row.nominal_until).collect()
    };
    assert_eq!(ends("2026-06-01T00:02:00Z"), [None, Some(at("2026-06-01T00:10:00Z"))]);
    assert_eq!(ends("2026-06-01T00:10:00Z"), [Some(at("2026-06-01T00:09:00Z")), None]);
    let mut paused = row;
    let (by, reason) = ("op".to_owned(), "calm".to_owned());
    paused.pause = Some(Pause { at: paused.anchor_at, by, reason, until: None });
    assert_eq!(disabled(&paused, now, now, &mut ids()), None);
}

#[test]
fn a_job_that_has_never_been_begins_now() {
    let now = at("2026-06-01T01:23:45Z");
    assert_eq!(first(&minute(), now), (now, Some(now + TimeDelta::minutes(1))));
    assert_eq!(first(&daily_cron(), now), (now, Some(at("2026-06-01T03:00:00Z"))));
    assert_eq!(first(&Spec::new(Schedule::None), now), (now, None));
}

#[test]
fn a_job_is_woken_for_its_next_instant_with_jitter() {
    let mut row = row(minute());
    assert_eq!(wake_at(&row), row.next_at);
    row.spec.jitter = Duration::from_secs(30);
    let (next, fire) = (row.next_at.unwrap(), wake_at(&row).unwrap());
    assert_eq!(fire, row.spec.fire_at("job", row.anchor_at, next));
    assert!(fire > next);
    row.next_at = None;
    assert_eq!(wake_at(&row), None);
}

#[test]
fn a_lost_attempt_is_final_once_the_instant_after_it_is_due() {
    let row = row(minute());
    let mut run = crate::store::rules::row(
        "job",
        decide(&row, row.next_at.unwrap(), &mut ids()).unwrap().starts.remove(0),
        row.anchor_at,
    );
    assert_eq!(superseded_at(&row, &run), Some(at("2026-06-01T00:02:00Z")));
    run.nominal_at = None;
    assert_eq!(superseded_at(&row, &run), None, "a run by hand has no instant after it");
}

#[test]
fn the_plan_begins_with_the_next_instant_that_is_not_past() {
    let row = row(minute());
    let planned = |now: &str, count| -> Vec<i64> {
        let plan = plan(&row, at(now), count);
        assert!(plan.iter().all(|planned| planned.fire_at == planned.nominal_at));
        plan.iter().map(|planned| (planned.nominal_at - row.anchor_at).num_minutes()).collect()
    };
    assert_eq!(planned("2026-06-01T00:00:30Z", 3), [1, 2, 3]);
    assert_eq!(planned("2026-06-01T00:00:00Z", 1), [1]);
    // It is due at this very moment: what is planned comes after.
    assert_eq!(planned("2026-06-01T00:01:00Z", 2), [2, 3]);
    assert_eq!(planned("2026-06-01T00:07:30Z", 2), [8, 9]);
    assert!(planned("2026-06-01T00:00:30Z", 0).is_empty());
    let mut later = row.clone();
    later.next_at = Some(at("2026-06-01T00:05:00Z"));
    assert_eq!(super::plan(&later, at("2026-06-01T00:00:30Z"), 1)[0].nominal_at, at("2026-06-01T00:05:00Z"));
}

#[test]
fn instants_between_are_those_of_both_ends_too() {
    let row = row(minute());
    let between = |from: &str, to: &str, max| -> Vec<i64> {
        let all = instants_between(&row, at(from), at(to), max);
        all.iter().map(|instant| (*instant - row.anchor_at).num_minutes()).collect()
    };
    assert_eq!(between("2026-06-01T00:02:00Z", "2026-06-01T00:04:00Z", 10), [2, 3, 4]);
    assert_eq!(between("2026-06-01T00:02:00.000001Z", "2026-06-01T00:03:59.999999Z", 10), [3]);
    assert_eq!(between("2026-06-01T00:02:00Z", "2026-06-01T00:04:00Z", 2), [2, 3]);
    assert!(between("2026-06-01T00:02:30Z", "2026-06-01T00:02:40Z", 2).is_empty());
}

#[test]
fn a_changed_interval_takes_effect_at_once_and_restarts_do_not_postpone_it_for_ever() {
    let day = row(Spec::every(Duration::from_secs(86_400)));
    let now = at("2026-06-01T01:00:00Z");
    let (_, next) = respec(&day, &minute(), now);
    assert_eq!(next, Some(now + TimeDelta::minutes(1)));
    let soon = row(minute());
    let (_, next) = respec(&soon, &Spec::every(Duration::from_secs(86_400)), at("2026-06-01T00:00:30Z"));
    assert_eq!(next, soon.next_at, "the instant that was next comes all the same");
    let (_, next) = respec(&soon, &Spec { coalesce: Coalesce::All, ..minute() }, now);
    assert_eq!(next, soon.next_at, "a policy alone moves nothing");
}

#[test]
fn new_rules_of_time_zones_are_computed_anew() {
    let cron = Schedule::Cron {
        expression: "0 3 * * *".to_owned(),
        zone: "Europe/Berlin".to_owned(),
        dst: crate::schedule::Dst::Vixie,
    };
    let mut old = row(Spec { tzdata: "2020a".to_owned(), ..Spec::new(cron.clone()) });
    old.next_at = Some(at("2026-06-02T02:00:00Z"));
    let (_, next) = respec(&old, &Spec::new(cron), at("2026-06-01T12:00:00Z"));
    assert_eq!(next, Some(at("2026-06-02T01:00:00Z")));
}

#[test]
fn a_clock_that_stepped_back_does_not_silence_a_job() {
    let mut ahead = row(minute());
    ahead.next_at = Some(at("2026-06-02T00:00:00Z"));
    let now = at("2026-06-01T00:05:30Z");
    assert_eq!(set_back(&ahead, now).unwrap().next_at, Some(at("2026-06-01T00:06:00Z")));
    assert_eq!(set_back(&row(minute()), at("2026-06-01T00:00:30Z")), None);
}

#[test]
fn the_default_timeout_follows_the_gap_within_its_bounds() {
    for (every, timeout) in [(1, 30), (60, 54), (86_400, 3_600)] {
        assert_eq!(default_timeout(&Spec::every(Duration::from_secs(every))), Duration::from_secs(timeout));
    }
}

proptest! {
    /// Whatever the moments at which it is decided, every instant ends in exactly one row.
    #[test]
    fn no_instant_is_lost_or_doubled(
        every_s in 1_u64..600,
        jitter_s in 0_u64..900,
        grace_s in 1_u64..5_000,
        which in 0_usize..3,
        steps in prop::collection::vec(1_i64..20_000, 1..20),
    ) {
        let coalesce = [Coalesce::Latest, Coalesce::Earliest, Coalesce::All][which];
        let spec = Spec {
            jitter: Duration::from_secs(jitter_s),
            misfire_grace: Some(Duration::from_secs(grace_s)),
            coalesce,
            ..Spec::every(Duration::from_secs(every_s))
        };
        let mut row = row(spec);
        let (mut now, first, mut ids) = (row.anchor_at, row.next_at.unwrap(), ids());
        let every = i64::try_from(every_s).unwrap();
        let mut covered: Vec<(i64, i64)> = Vec::new();
        for step in steps {
            now += TimeDelta::seconds(step);
            let Some(decision) = decide(&row, now, &mut ids) else { continue };
            for new in decision.ledger.iter().chain(&decision.starts) {
                let from = (new.nominal_at.unwrap() - first).num_seconds() / every;
                covered.push((from, new.instants));
                let last = new.nominal_until.or(new.nominal_at).unwrap();
                prop_assert_eq!((last - first).num_seconds() / every, from + new.instants - 1);
                prop_assert!(row.spec.fire_at("job", row.anchor_at, last) <= now);
            }
            row.next_at = decision.next_at;
            prop_assert!(row.spec.fire_at("job", row.anchor_at, row.next_at.unwrap()) > now);
        }
        covered.sort_unstable();
        let mut next = 0;
        for (from, instants) in covered {
            prop_assert_eq!(from, next);
            next = from + instants;
        }
        prop_assert_eq!(first + TimeDelta::seconds(next * every), row.next_at.unwrap());
    }
}
