//! Running many seeds, replaying one, and saying what was tried.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    drive::{Report, run},
    number,
    plan::{DAY, Plan, QUIET},
    time::HOUR,
};

/// Runs a scenario may take while it is made smaller, unless `SIM_SHRINKS` says otherwise.
const SHRINKS: u64 = 120;

fn all(plan: &Plan) -> Vec<bool> {
    vec![true; plan.events.len()]
}

/// What kind of failure it is: its words without its figures.
fn kind(report: &Report) -> Option<String> {
    let first = report.wrong.first()?.split_once(": ")?.1;
    Some(first.chars().filter(|c| c.is_alphabetic() && !c.is_uppercase()).take(30).collect())
}

/// Leaves out whatever the same failure does not need: halves, then less, then single events.
fn shrink(plan: &Plan) -> Vec<bool> {
    let mut keep = all(plan);
    let wanted = kind(&run(plan, &keep, false));
    let (mut size, mut tries, most) = (keep.len().div_ceil(2), 0, number("SIM_SHRINKS").unwrap_or(SHRINKS));
    loop {
        let mut at = 0;
        while at < keep.len() && tries < most {
            let mut fewer = keep.clone();
            let end = (at + size).min(fewer.len());
            fewer[at..end].fill(false);
            if fewer != keep {
                tries += 1;
                if kind(&run(plan, &fewer, false)) == wanted {
                    keep = fewer;
                }
            }
            at = end;
        }
        if size <= 1 || tries >= most {
            return keep;
        }
        size = size.div_ceil(2);
    }
}

/// What failed, as small as it could be made, for a person to read.
fn story(seed: u64) -> String {
    let plan = Plan::of(seed);
    let keep = shrink(&plan);
    let report = run(&plan, &keep, true);
    let jobs: Vec<String> = plan.jobs.iter().map(|job| format!("  {}: {:?}", job.name, job.settings[0].spec)).collect();
    let kept = plan.events.iter().zip(&keep).filter(|(_, keep)| **keep);
    let events: Vec<String> = kept.map(|((at, event), _)| format!("{:>12.3} s  {event:?}", *at as f64 / 1e6)).collect();
    format!(
        "seed {seed}: {} replicas, hints {}, {} % of nudges lost\n{}\nevents that are needed ({} of {}):\n{}\ntimeline:\n{}\nwrong:\n{}\nreplay: SIM_SEED={seed} cargo test -p scheduler --test sim every_promise\n",
        plan.replicas,
        plan.hints,
        plan.nudges_lost,
        jobs.join("\n"),
        events.len(),
        plan.events.len(),
        events.join("\n"),
        report.timeline,
        report.wrong.join("\n"),
    )
}

/// Replays one seed.
pub(crate) fn replay(seed: u64) {
    let plan = Plan::of(seed);
    let report = run(&plan, &all(&plan), false);
    assert!(report.wrong.is_empty(), "\n{}", story(seed));
    tell(&format!("seed {seed}: nothing wrong; {} fires and rows were on time; {:?}", report.punctual, report.counts));
}

#[expect(clippy::print_stdout, reason = "the report is what the run is for")]
fn tell(line: &str) {
    println!("{line}");
}

#[derive(Default)]
struct Sum {
    counts: BTreeMap<&'static str, u64>,
    cells: BTreeMap<(String, String, String), u64>,
    punctual: u64,
    failed: Vec<(u64, String)>,
}

impl Sum {
    fn add(&mut self, report: Report) {
        for (kind, count) in report.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        for (cell, count) in report.cells {
            *self.cells.entry(cell).or_default() += count;
        }
        self.punctual += report.punctual;
        if let Some(wrong) = report.wrong.into_iter().next() {
            self.failed.push((report.seed, wrong));
        }
    }
}

/// Runs seeds 0 to `count` and prints what was tried; fails when a promise was broken or something was never tried.
pub(crate) fn many(count: u64) {
    let began = std::time::Instant::now();
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count || sum.lock().unwrap().failed.len() >= 20 {
                        return;
                    }
                    let plan = Plan::of(seed);
                    let report = run(&plan, &all(&plan), false);
                    sum.lock().unwrap().add(report);
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap();
    let took = began.elapsed().as_secs_f64();
    let virtual_hours = count as f64 * (DAY + QUIET) as f64 / HOUR as f64;
    tell(&format!(
        "{count} seeds in {took:.1} s: {virtual_hours:.0} virtual hours, {:.0} virtual hours a second",
        virtual_hours / took
    ));
    tell(&format!("{} fires and due rows asserted to be on time", sum.punctual));
    sum.counts.iter().for_each(|(kind, count)| tell(&format!("{count:>10}  {kind}")));
    sum.cells
        .iter()
        .for_each(|((policy, outcome, wake), count)| tell(&format!("{count:>10}  {policy:<15} {outcome:<16} {wake}")));
    sum.failed.sort();
    sum.failed.iter().for_each(|(seed, wrong)| tell(&format!("seed {seed}: {wrong}")));
    if let Some((seed, _)) = sum.failed.first() {
        panic!("{} of {count} seeds failed; the first:\n{}", sum.failed.len(), story(*seed));
    }
    let never = never_tried(&sum.cells);
    assert!(count < 500 || never.is_empty(), "the generator never reached: {never:?}");
}

/// What a good generator reaches, and this one did not.
fn never_tried(cells: &BTreeMap<(String, String, String), u64>) -> Vec<String> {
    let overlaps = ["Skip", "BufferOne", "BufferAll", "CancelOther", "TerminateOther", "AllowAll"];
    let ran = ["succeeded", "failed", "panicked", "timed_out", "lost"];
    let mut wanted = Vec::new();
    for overlap in overlaps {
        wanted.extend(ran.iter().map(|outcome| (overlap, *outcome, "tick")));
        wanted.extend(["start", "manual", "backfill", "catch_up"].map(|wake| (overlap, "succeeded", wake)));
        wanted.extend(["missed", "coalesced", "paused", "disabled"].map(|outcome| (overlap, outcome, "tick")));
    }
    wanted.extend(["Skip", "BufferOne", "BufferAll"].map(|overlap| (overlap, "skipped_overlap", "tick")));
    wanted.push(("CancelOther", "cancelled", "tick"));
    wanted.push(("TerminateOther", "terminated", "tick"));
    wanted.extend([("Skip", "succeeded", "due"), ("Skip", "failed", "due"), ("Skip", "succeeded", "hint")]);
    let reached = |(a, b, c): &(&str, &str, &str)| cells.contains_key(&((*a).into(), (*b).into(), (*c).into()));
    wanted.into_iter().filter(|cell| !reached(cell)).map(|cell| format!("{cell:?}")).collect()
}
