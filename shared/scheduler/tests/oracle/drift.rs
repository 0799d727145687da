//! Intervals do not drift: whatever happens in between, every instant is the anchor and a whole number of intervals.

use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;
use scheduler::{Instant, ledger::ScheduleRow, policy, schedule::Spec};
use uuid::Uuid;

/// A row as a first start leaves it.
fn row(spec: Spec, now: Instant) -> ScheduleRow {
    let (anchor_at, next_at) = policy::first(&spec, now);
    ScheduleRow {
        job: "job".to_owned(),
        spec_hash: spec.hash(),
        spec,
        spec_by: "a".to_owned(),
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
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// A year of decisions at odd moments: late by a restart, by a sleep of days, after a step of the clock in either
    /// direction. Arithmetic in whole microseconds is the oracle.
    #[test]
    fn intervals_keep_their_phase_through_restarts_sleeps_and_steps(
        every_ms in 1_u64..100_000_000,
        moves in prop::collection::vec(-7_200_000_i64..40_000_000, 1..60),
    ) {
        let start: Instant = "2026-03-01T12:34:56.789Z".parse().unwrap();
        let mut row = row(Spec::every(Duration::from_millis(every_ms)), start);
        let every = i64::try_from(every_ms).unwrap() * 1_000;
        let phase = |at: Instant| (at - start).num_microseconds().unwrap().rem_euclid(every);
        let mut now = start;
        for by in moves {
            now += TimeDelta::milliseconds(by);
            if let Some(back) = policy::set_back(&row, now) {
                row.next_at = back.next_at;
            }
            if let Some(decided) = policy::decide(&row, now, &mut Uuid::now_v7) {
                for run in decided.starts.iter().chain(&decided.ledger) {
                    prop_assert_eq!(phase(run.nominal_at.unwrap()), 0);
                    prop_assert!(run.nominal_at.unwrap() <= now);
                    prop_assert_eq!(run.nominal_until.map_or(0, phase), 0);
                }
                row.next_at = decided.next_at;
            }
            let next = row.next_at.unwrap();
            prop_assert_eq!(phase(next), 0);
            prop_assert!(next > now && next - now <= TimeDelta::microseconds(every), "{} after {}", next, now);
        }
    }
}
