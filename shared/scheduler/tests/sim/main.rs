//! Simulation of the scheduler that ships: real runners on the memory store, in virtual time, with a seeded world of
//! faults, and a checker that works everything out once more.
//!
//! `make sim SEEDS=10000` runs more; `SIM_SEED=42` replays one, shrinks it when it fails, and tells its story.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_wrap, reason = "figures for people, and counts that fit")]

mod checker;
mod drive;
mod faults;
mod jobs;
mod plan;
mod report;
mod store;
mod time;

use plan::Plan;

/// The number in a variable, or the default.
#[expect(clippy::disallowed_methods, reason = "how much is tried is told by the environment")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a whole number"))
}

/// Panics are what some jobs are told to do; only those of the test itself are shown.
fn quiet() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&"told to panic") {
            shown(info);
        }
    }));
}

#[test]
fn every_promise_holds_whatever_goes_wrong() {
    quiet();
    if let Some(seed) = number("SIM_SEED") {
        report::replay(seed);
        return;
    }
    report::many(number("SIM_SEEDS").unwrap_or(500));
}

#[test]
fn the_same_seed_is_the_same_trace() {
    quiet();
    for seed in 1_000..1_050 {
        let plan = Plan::of(seed);
        let all = vec![true; plan.events.len()];
        let (once, again) = (drive::run(&plan, &all, false), drive::run(&plan, &all, true));
        assert_eq!(once.digest, again.digest, "seed {seed}");
    }
}
