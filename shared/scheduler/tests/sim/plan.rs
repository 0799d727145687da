//! What a seed is made into: jobs and their policies, and a day of events.

use std::time::Duration;

use scheduler::{
    config::JobSettings,
    schedule::{Coalesce, Dst, Overlap, Schedule},
};

use crate::time::{HOUR, MINUTE, Micros, SECOND};

/// The timeout of every job.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// The day that faults have, and the quiet after it.
pub(crate) const DAY: Micros = 24 * HOUR;
pub(crate) const QUIET: Micros = HOUR;

/// A job as replicas are configured with it: now, and after a change.
#[derive(Debug, Clone)]
pub(crate) struct JobPlan {
    pub(crate) name: &'static str,
    pub(crate) settings: [JobSettings; 2],
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    Start(usize),
    Crash(usize),
    Stop(usize),
    Freeze(usize, Micros),
    Cut(usize, Micros),
    StoreAway(Micros),
    /// The database's clock steps.
    Step(Micros),
    /// Operations go wrong for so long, so many of 10,000.
    Storm(Micros, u32),
    Pause(usize, Option<Micros>),
    Resume(usize, bool),
    Run(usize, u64),
    Backfill(usize, Micros),
    /// Replicas that start from now on have the other settings of a job.
    Configure(usize),
    /// Replicas that start from now on have a job disabled, or enabled again.
    Enable(usize, bool),
    /// Rows that fall due in so long, for the Claim and the Lease.
    Due(usize, Micros),
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) replicas: usize,
    pub(crate) jobs: Vec<JobPlan>,
    pub(crate) hints: bool,
    pub(crate) nudges_lost: u32,
    pub(crate) start_hour: i64,
    pub(crate) events: Vec<(Micros, Event)>,
}

/// One seed of so many has a backlog, which chance alone hardly makes.
const BACKLOGS: u64 = 50;
const OVERLAPS: [Overlap; 6] = [
    Overlap::Skip,
    Overlap::BufferOne,
    Overlap::BufferAll,
    Overlap::CancelOther,
    Overlap::TerminateOther,
    Overlap::AllowAll,
];
const CRONS: [&str; 6] =
    ["*/7 * * * *", "5 * * * *", "0,20,50 */2 * * *", "30 3 * * *", "*/10 8-17 * * 1-5", "0 0 1 * *"];

fn schedule(rng: &mut fastrand::Rng) -> Schedule {
    match rng.u8(0..10) {
        0..4 => Schedule::Interval { every: Duration::from_secs(rng.u64(15..120)) },
        4..7 => Schedule::Interval { every: Duration::from_secs(rng.u64(2..120) * 60) },
        _ => {
            let expression = CRONS[rng.usize(0..CRONS.len())].to_owned();
            Schedule::Cron { expression, zone: "UTC".to_owned(), dst: Dst::Vixie }
        }
    }
}

fn settings(rng: &mut fastrand::Rng, overlaps: &[Overlap]) -> JobSettings {
    let mut settings = JobSettings::of(schedule(rng));
    settings.timeout = Some(TIMEOUT);
    settings.run_on_start = rng.bool();
    settings.spec.overlap = overlaps[rng.usize(0..overlaps.len())];
    settings.spec.coalesce = [Coalesce::Latest, Coalesce::Earliest, Coalesce::All][rng.usize(0..3)];
    if rng.u8(0..3) == 0 {
        settings.spec.jitter = Duration::from_secs(rng.u64(1..30));
    }
    if rng.bool() {
        settings.spec.misfire_grace = Some(Duration::from_secs(rng.u64(1..1800)));
    }
    settings
}

fn job(rng: &mut fastrand::Rng, name: &'static str, overlaps: &[Overlap]) -> JobPlan {
    JobPlan { name, settings: [settings(rng, overlaps), settings(rng, overlaps)] }
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xbe1f);
        let rng = &mut rng;
        let replicas = [1, 2, 2, 3, 3, 3, 4, 5][rng.usize(0..8)];
        let mut jobs = vec![job(rng, "tick1", &OVERLAPS), job(rng, "dealt", &[Overlap::Skip])];
        if rng.bool() {
            jobs.push(job(rng, "tick2", &OVERLAPS));
        }
        if rng.bool() {
            jobs.push(job(rng, "steps", &OVERLAPS));
        }
        if rng.bool() {
            jobs.push(job(rng, "asked", &[Overlap::Skip]));
        }
        let hints = rng.u8(0..4) != 0;
        let nudges_lost = [0, 0, 50, 100][rng.usize(0..4)];
        let start_hour = rng.i64(0..24 * 364);
        let mut plan = Self { seed, replicas, jobs, hints, nudges_lost, start_hour, events: Vec::new() };
        plan.fill(rng);
        if seed % BACKLOGS == 7 {
            plan.backlog();
        }
        plan
    }

    /// A long pause of a busy job that catches up on everything: more waits than a buffer holds.
    fn backlog(&mut self) {
        for settings in &mut self.jobs[0].settings {
            settings.spec.schedule = Schedule::Interval { every: Duration::from_secs(15) };
            settings.spec.overlap = Overlap::BufferAll;
            settings.spec.coalesce = Coalesce::All;
        }
        for at in [2 * HOUR, 8 * HOUR, 14 * HOUR] {
            self.at(at, Event::Pause(0, None));
            self.at(at + HOUR, Event::Resume(0, true));
        }
        self.events.sort_by_key(|(at, _)| *at);
    }

    fn at(&mut self, at: Micros, event: Event) {
        self.events.push((at, event));
    }

    fn fill(&mut self, rng: &mut fastrand::Rng) {
        for replica in 0..self.replicas {
            let at = if rng.bool() { 0 } else { rng.i64(0..MINUTE) };
            self.at(at, Event::Start(replica));
        }
        for _ in 0..rng.usize(10..60) {
            let at = rng.i64(2 * MINUTE..DAY);
            self.incident(rng, at);
        }
        for _ in 0..20 {
            let at = rng.i64(0..DAY);
            self.at(at, Event::Due(rng.usize(1..4), rng.i64(10 * SECOND..10 * MINUTE)));
        }
        self.events.sort_by_key(|(at, _)| *at);
    }

    fn incident(&mut self, rng: &mut fastrand::Rng, at: Micros) {
        let replica = rng.usize(0..self.replicas);
        let job = rng.usize(0..self.jobs.len());
        let away = if rng.u8(0..4) == 0 { rng.i64(MINUTE..2 * HOUR) } else { rng.i64(0..2 * MINUTE) };
        match rng.u8(0..30) {
            0..4 => {
                self.at(at, Event::Crash(replica));
                self.at(at + away, Event::Start(replica));
            }
            4..7 => {
                self.at(at, Event::Stop(replica));
                self.at(at + away.max(30 * SECOND), Event::Start(replica));
            }
            7..9 => self.at(at, Event::Freeze(replica, away)),
            9..11 => self.at(at, Event::Cut(replica, away)),
            11 => self.at(at, Event::StoreAway(away)),
            12 => {
                let by = rng.i64(2 * MINUTE..2 * HOUR);
                self.at(at, Event::Step(if rng.bool() { by } else { -by }));
            }
            13..16 => self.at(at, Event::Storm(rng.i64(MINUTE..15 * MINUTE), rng.u32(5..400))),
            16..19 => {
                let until = (rng.u8(0..3) == 0).then(|| rng.i64(10 * SECOND..HOUR));
                self.at(at, Event::Pause(job, until));
                self.at(at + away * 2 + SECOND, Event::Resume(job, rng.bool()));
            }
            19..22 => (0..rng.u64(1..4)).for_each(|_| self.at(at, Event::Run(job, rng.u64(0..5)))),
            22 => self.at(at, Event::Backfill(job, rng.i64(MINUTE..20 * MINUTE))),
            23 | 24 => {
                // A rolling deployment of another configuration.
                self.at(at, Event::Configure(job));
                for replica in 0..self.replicas {
                    let at = at + i64::try_from(replica).unwrap() * 40 * SECOND;
                    self.at(at + 1, Event::Stop(replica));
                    self.at(at + 31 * SECOND, Event::Start(replica));
                }
            }
            25 => {
                self.at(at, Event::Enable(job, false));
                for replica in 0..self.replicas {
                    self.at(at + 1, Event::Stop(replica));
                    self.at(at + 31 * SECOND, Event::Start(replica));
                }
                self.at(at + away * 3, Event::Enable(job, true));
                self.at(at + away * 3 + 31 * SECOND, Event::Crash(replica));
                self.at(at + away * 3 + 32 * SECOND, Event::Start(replica));
            }
            _ => {
                self.at(at, Event::Due(rng.usize(1..4), rng.i64(10 * SECOND..MINUTE)));
            }
        }
    }
}
