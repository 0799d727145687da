//! Tables of instants across clock changes, and what holds for every schedule.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Instant {
    text.parse().unwrap()
}

fn cron(expression: &str, zone: &str, dst: Dst) -> Spec {
    Spec::new(Schedule::Cron { expression: expression.to_owned(), zone: zone.to_owned(), dst })
}

fn firings(spec: &Spec, from: &str, count: usize) -> Vec<String> {
    let first = spec.next_after(at(from), at(from));
    let all = std::iter::successors(first, |last| spec.next_after(at(from), *last));
    all.take(count).map(|at| at.format("%m-%dT%H:%MZ").to_string()).collect()
}

#[test]
fn vixie_runs_a_fixed_time_of_the_gap_right_after_it_and_of_the_overlap_once() {
    // New York 2026: the clock jumps from 02:00 to 03:00 on March 8 and back from 02:00 to 01:00 on November 1.
    let table: &[(&str, &str, &[&str])] = &[
        ("30 2 * * *", "2026-03-07T00:00:00Z", &["03-07T07:30Z", "03-08T07:00Z", "03-09T06:30Z"]),
        ("30 1 * * *", "2026-10-31T12:00:00Z", &["11-01T05:30Z", "11-02T06:30Z"]),
        ("*/30 * * * *", "2026-11-01T05:00:00Z", &["11-01T05:30Z", "11-01T06:00Z", "11-01T06:30Z", "11-01T07:00Z"]),
        // Ranges and lists name their times as much as a single hour does.
        ("10 1-3 * * *", "2026-11-01T04:00:00Z", &["11-01T05:10Z", "11-01T07:10Z", "11-01T08:10Z"]),
        ("0,40 2 * * *", "2026-03-08T00:00:00Z", &["03-08T07:00Z", "03-09T06:00Z"]),
        ("*/20 2 * * *", "2026-03-08T00:00:00Z", &["03-09T06:00Z"]),
    ];
    for (expression, from, expected) in table {
        let spec = cron(expression, "America/New_York", Dst::Vixie);
        assert_eq!(firings(&spec, from, expected.len()), *expected, "{expression}");
    }
}

#[test]
fn a_change_of_three_hours_is_a_correction_that_moves_no_fixed_time() {
    // Casey put its clock forward by three hours, from 00:01 to 03:01, on October 4, 2020: no 02:30 that day.
    let casey = |dst| firings(&cron("30 2 * * *", "Antarctica/Casey", dst), "2020-10-03T00:00:00Z", 3);
    assert_eq!(casey(Dst::Vixie), casey(Dst::Literal));
}

#[test]
fn days_are_met_as_crontab_says() {
    let table: &[(&str, &[&str])] = &[
        // Both fields restricted: either. One begins with a star: both.
        ("0 0 13 * 5", &["02-06T00:00Z", "02-13T00:00Z", "02-20T00:00Z"]),
        ("0 0 */10 * 6", &["02-21T00:00Z", "03-21T00:00Z", "04-11T00:00Z"]),
        // A month without the day is left out, also by W.
        ("0 0 31W * *", &["03-31T00:00Z", "05-29T00:00Z", "07-31T00:00Z"]),
        ("0 0 L * *", &["02-28T00:00Z", "03-31T00:00Z", "04-30T00:00Z"]),
        ("0 0 * * 5L", &["02-27T00:00Z", "03-27T00:00Z", "04-24T00:00Z"]),
        ("0 0 * * 1#5", &["03-30T00:00Z", "06-29T00:00Z", "08-31T00:00Z"]),
    ];
    for (expression, expected) in table {
        let spec = cron(expression, "UTC", Dst::Vixie);
        assert_eq!(firings(&spec, "2026-02-01T12:00:00Z", 3), *expected, "{expression}");
    }
}

#[test]
fn literal_goes_by_the_wall_clock_twice_in_the_overlap_and_never_in_the_gap() {
    let table: &[(&str, &str, &str, &[&str])] = &[
        ("30 2 * * *", "America/New_York", "2026-03-07T00:00:00Z", &["03-07T07:30Z", "03-09T06:30Z"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", &["11-01T05:30Z", "11-01T06:30Z", "11-02T06:30Z"]),
        (
            "15 * * * *",
            "America/New_York",
            "2026-11-01T04:00:00Z",
            &["11-01T04:15Z", "11-01T05:15Z", "11-01T06:15Z", "11-01T07:15Z"],
        ),
        // The second hour begins in the moment of the change.
        ("0,30 1 * * *", "America/New_York", "2026-11-01T05:00:00Z", &["11-01T05:30Z", "11-01T06:00Z", "11-01T06:30Z"]),
        // Lord Howe changes by half an hour: 02:00 becomes 01:30 on April 5, 2026.
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T00:00:00Z",
            &["04-04T14:45Z", "04-04T15:15Z", "04-05T15:15Z"],
        ),
    ];
    for (expression, zone, from, expected) in table {
        let spec = cron(expression, zone, Dst::Literal);
        assert_eq!(firings(&spec, from, expected.len()), *expected, "{expression} {zone}");
    }
}

#[test]
fn a_change_at_midnight_loses_no_day() {
    // Cairo jumps from 00:00 to 01:00 on April 24, 2026.
    let spec = cron("0 0 * * *", "Africa/Cairo", Dst::Vixie);
    assert_eq!(firings(&spec, "2026-04-22T00:00:00Z", 3), ["04-22T22:00Z", "04-23T22:00Z", "04-24T21:00Z"]);
}

#[test]
fn names_macros_seconds_and_special_days_are_understood() {
    let table = [
        ("@daily", "2026-01-01T12:00:00Z", "01-02T00:00Z"),
        ("0 9 * * MON", "2026-01-01T12:00:00Z", "01-05T09:00Z"),
        ("0 0 L * *", "2026-02-01T12:00:00Z", "02-28T00:00Z"),
        ("0 0 * * FRI#2", "2026-01-01T12:00:00Z", "01-09T00:00Z"),
        ("0 0 15W * *", "2026-02-01T12:00:00Z", "02-16T00:00Z"),
        ("30 0 0 1 JAN *", "2026-02-01T12:00:00Z", "01-01T00:00Z"),
    ];
    for (expression, from, expected) in table {
        assert_eq!(firings(&cron(expression, "UTC", Dst::Vixie), from, 1), [expected], "{expression}");
    }
}

#[test]
fn what_never_fires_or_cannot_be_read_is_refused() {
    for (expression, zone) in [("0 0 30 2 *", "UTC"), ("61 * * * *", "UTC"), ("", "UTC"), ("* * * * *", "Atlantis")] {
        assert!(validate(expression, zone).is_err(), "{expression} {zone}");
    }
    assert_eq!(
        cron("0 0 30 2 *", "UTC", Dst::Vixie).next_after(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z")),
        None
    );
}

#[test]
fn the_rules_of_time_zones_are_our_own_and_new() {
    let (year, release) = tzdata_version().split_at(4);
    assert!(year.parse::<u32>().unwrap() >= 2026 && release.chars().all(|c| c.is_ascii_lowercase()), "{year}{release}");
}

#[test]
fn the_grace_is_the_gap_which_for_a_cron_schedule_is_an_hour_at_most() {
    let anchor = at("2026-06-01T00:00:00Z");
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    for (spec, gap, grace) in [
        (Spec::every(hours(2)), Some(hours(2)), hours(2)),
        (cron("0 */2 * * *", "UTC", Dst::Vixie), Some(hours(2)), hours(1)),
        (cron("*/30 * * * *", "UTC", Dst::Vixie), Some(hours(1) / 2), hours(1) / 2),
        (Spec::new(Schedule::None), None, hours(1)),
        (Spec { misfire_grace: Some(hours(5)), ..Spec::every(hours(2)) }, Some(hours(2)), hours(5)),
    ] {
        assert_eq!((spec.gap(anchor, anchor), spec.grace(anchor, anchor)), (gap, grace), "{}", spec.schedule);
    }
    // An instant that does not lie on the interval's grid (the anchor was moved since): the gap is the interval all the same.
    let off = anchor + TimeDelta::seconds(1);
    assert_eq!(Spec::every(hours(2)).gap(anchor, off), Some(hours(2)));
}

#[test]
fn a_jitter_is_the_same_on_every_replica_and_in_every_release() {
    // FNV-1a of the job's name and the instant in microseconds (big-endian), folded, modulo the jitter; computed elsewhere.
    let jittered = |seconds| Spec { jitter: Duration::from_secs(seconds), ..Spec::every(Duration::from_secs(300)) };
    for (job, nominal, of_ten, of_sixty) in [
        ("post_publisher", "2026-06-01T00:00:00Z", 1_870_234, 41_870_234),
        ("post_publisher", "2026-06-01T00:05:00Z", 4_690_907, 44_690_907),
        ("other", "2026-06-01T00:00:00Z", 8_237_021, 18_237_021),
        ("job", "1969-12-31T23:59:59Z", 9_166_667, 59_166_667),
    ] {
        for (seconds, micros) in [(10, of_ten), (60, of_sixty)] {
            let (nominal, spec) = (at(nominal), jittered(seconds));
            assert_eq!(
                spec.fire_at(job, nominal, nominal) - nominal,
                TimeDelta::microseconds(micros),
                "{job} {nominal}"
            );
        }
    }
    // A jitter of less than a microsecond, or an interval without room for one, moves nothing.
    let nominal = at("2026-06-01T00:00:00Z");
    let none = Spec { jitter: Duration::from_nanos(1), ..jittered(10) };
    assert_eq!(none.fire_at("job", nominal, nominal), nominal);
    let no_room = Spec { jitter: Duration::from_secs(1), ..Spec::every(Duration::from_millis(1)) };
    assert_eq!(no_room.fire_at("job", nominal, nominal), nominal);
}

#[test]
fn instants_are_kept_in_whole_microseconds() {
    assert_eq!(whole_micros(at("2026-06-01T00:00:00.123456789Z")), at("2026-06-01T00:00:00.123456Z"));
    assert_eq!(whole_micros(at("2026-06-01T00:00:00.123456Z")), at("2026-06-01T00:00:00.123456Z"));
}

#[test]
fn a_schedule_is_told_in_a_few_words() {
    let daily = |dst| cron("0 3 * * *", "Europe/Berlin", dst).schedule.to_string();
    assert_eq!(daily(Dst::Vixie), "cron 0 3 * * * Europe/Berlin");
    assert_eq!(daily(Dst::Literal), "cron 0 3 * * * Europe/Berlin (literal)");
    assert_eq!(Spec::every(Duration::from_secs(5_400)).schedule.to_string(), "every 1h 30m");
    assert_eq!(Schedule::None.to_string(), "by hand");
}

#[test]
fn equal_specs_have_equal_digests_and_others_do_not() {
    let five = Spec::every(Duration::from_secs(300));
    assert_eq!(five.hash(), Spec::every(Duration::from_secs(300)).hash());
    assert_ne!(five.hash(), Spec::every(Duration::from_secs(301)).hash());
    assert_ne!(five.hash(), Spec { tzdata: "2020a".to_owned(), ..five.clone() }.hash());
    let graced =
        Spec { misfire_grace: Some(Duration::from_millis(1_500)), jitter: Duration::from_secs(7), ..five.clone() };
    for spec in [five, graced] {
        let read: Spec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(read, spec);
    }
}

proptest! {
    #[test]
    fn an_interval_keeps_its_phase_whatever_it_is_asked_after(every_ms in 1_u64..10_000_000, after_ms in -1_000_000_000_i64..1_000_000_000) {
        let anchor = at("2026-06-01T00:00:00.123456Z");
        let spec = Spec::every(Duration::from_millis(every_ms));
        let after = anchor + chrono::TimeDelta::milliseconds(after_ms);
        let next = spec.next_after(anchor, after).unwrap();
        let every = i64::try_from(every_ms).unwrap() * 1000;
        prop_assert!(next > after);
        prop_assert!((next - after).num_microseconds().unwrap() <= every);
        prop_assert_eq!((next - anchor).num_microseconds().unwrap().rem_euclid(every), 0);
    }

    #[test]
    fn a_jitter_is_always_the_same_and_never_reaches_the_next_instant(every_ms in 2_u64..1_000_000, jitter_ms in 0_u64..2_000_000, k in 0_i64..1_000) {
        let anchor = at("2026-06-01T00:00:00Z");
        let spec = Spec { jitter: Duration::from_millis(jitter_ms), ..Spec::every(Duration::from_millis(every_ms)) };
        let every = chrono::TimeDelta::milliseconds(i64::try_from(every_ms).unwrap());
        let nominal = anchor + every * i32::try_from(k).unwrap();
        let fire = spec.fire_at("job", anchor, nominal);
        prop_assert!(fire >= nominal && fire < nominal + every);
        prop_assert_eq!(fire, spec.fire_at("job", anchor, nominal));
    }
}
