//! Chooses operations that mean something to the rows there are, and some that do not.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::TimeDelta;
use scheduler::{
    Instant,
    clock::{Clock, ManualClock},
    kinds::{Held, LeaseTake, Take},
    ledger::{Ending, NewRun, Outcome, Pause, RunRow, RunState, ScheduleRow, Wake},
    policy::{self, ResumeFrom},
    schedule::{Coalesce, Overlap, Schedule, Spec},
    store::{Announcement, QueueOf, Recovery, Retention, RunPage, Store, Window, memory::MemoryStore},
};
use serde_json::json;
use uuid::Uuid;

use super::{
    operation::{Operation, Statement},
    rows::{Alike, Thing},
};

const REPLICAS: [&str; 3] = ["a", "b", "c"];
const OVERLAPS: [Overlap; 6] = [
    Overlap::Skip,
    Overlap::BufferOne,
    Overlap::BufferAll,
    Overlap::CancelOther,
    Overlap::TerminateOther,
    Overlap::AllowAll,
];
const OUTCOMES: [Outcome; 5] =
    [Outcome::Succeeded, Outcome::Failed, Outcome::TimedOut, Outcome::Panicked, Outcome::Interrupted];

/// A stream of operations; the same seed is the same stream.
pub(crate) struct Generator {
    rng: fastrand::Rng,
    jobs: Vec<String>,
    ids: u64,
    counts: BTreeMap<String, u64>,
}

/// What the operation is chosen for.
struct View {
    job: String,
    now: Instant,
    row: Option<ScheduleRow>,
    runs: Vec<RunRow>,
    things: Vec<Thing>,
}

impl Generator {
    pub(crate) fn new(seed: u64, jobs: &[String]) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), jobs: jobs.to_vec(), ids: 0, counts: BTreeMap::new() }
    }

    /// How often each operation was chosen.
    pub(crate) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// The next operation, in view of what the memory store holds.
    pub(crate) async fn next(&mut self, store: &MemoryStore, time: &Arc<ManualClock>) -> Operation {
        let job = self.jobs[self.rng.usize(..self.jobs.len())].clone();
        let row = store.schedules(std::slice::from_ref(&job)).await.unwrap().pop();
        let page = RunPage { job: job.clone(), before: None, outcomes: Vec::new(), limit: 24 };
        let runs = store.runs(&page).await.unwrap();
        let view = View { job, now: time.now(), row, runs, things: store.things().await };
        let operation = self.choose(&view);
        *self.counts.entry(operation.name()).or_default() += 1;
        operation
    }

    /// An id that is later than all before it.
    fn id(&mut self, now: Instant) -> Uuid {
        self.ids += 1;
        let millis = u128::try_from(now.timestamp_millis()).unwrap();
        let chance = u128::from(self.rng.u32(..));
        Uuid::from_u128(
            (millis << 80) | (7 << 76) | (2 << 62) | (u128::from(self.ids) << 32 & ((1 << 62) - 1)) | chance,
        )
    }

    fn choose(&mut self, view: &View) -> Operation {
        let job = view.job.clone();
        if view.row.is_none() && self.rng.u8(..10) < 8 {
            return self.announce(view);
        }
        match self.rng.u8(..100) {
            0..12 => Operation::Advance(self.step()),
            12..17 => self.announce(view),
            17..33 => self.decide(view),
            33..38 => self.enqueue(view),
            38..44 => Operation::TakeQueued(vec![QueueOf { job, exclusive: self.rng.u8(..8) > 0 }], self.replica()),
            44..48 => self.recover(view),
            48..52 => {
                let mut held: Vec<Held> = (0..self.rng.usize(1..4)).map(|_| self.held(view)).collect();
                held.sort_by_key(|held| held.id);
                held.dedup_by_key(|held| held.id);
                Operation::Renew(held)
            }
            52..61 => Operation::Finish(self.held(view), self.ending()),
            61..64 => Operation::Release(self.held(view)),
            64..66 => Operation::Fenced(self.held(view)),
            66..68 => self.pause(view),
            68..71 => self.resume(view),
            71..73 => self.overriding(view),
            73..77 => self.failure(view),
            77..79 => Operation::Prune(job, self.retention()),
            79..81 => self.record(view),
            81..88 => self.question(view),
            _ => self.work(view),
        }
    }

    fn step(&mut self) -> Duration {
        match self.rng.u8(..20) {
            0..10 => Duration::from_millis(self.rng.u64(1..2_000)),
            10..17 => Duration::from_secs(self.rng.u64(1..90)),
            17..19 => Duration::from_secs(self.rng.u64(60..3_600)),
            _ => Duration::from_secs(self.rng.u64(3_600..100_000)),
        }
    }

    fn replica(&mut self) -> String {
        REPLICAS[self.rng.usize(..REPLICAS.len())].to_owned()
    }

    fn spec(&mut self) -> Spec {
        let schedule = match self.rng.u8(..6) {
            0 => Schedule::None,
            1 => Schedule::Cron {
                expression: "*/5 * * * *".to_owned(),
                zone: "Europe/Berlin".to_owned(),
                dst: scheduler::schedule::Dst::Vixie,
            },
            _ => Schedule::Interval { every: Duration::from_secs([1, 20, 60, 600][self.rng.usize(..4)]) },
        };
        let mut spec = Spec::new(schedule);
        spec.overlap = OVERLAPS[self.rng.usize(..OVERLAPS.len())];
        spec.coalesce = [Coalesce::Latest, Coalesce::Earliest, Coalesce::All][self.rng.usize(..3)];
        spec.misfire_grace = self.rng.bool().then(|| Duration::from_secs(self.rng.u64(1..600)));
        spec.jitter = Duration::from_millis(if self.rng.bool() { 0 } else { self.rng.u64(1..5_000) });
        spec
    }

    fn announce(&mut self, view: &View) -> Operation {
        let known = view.row.as_ref().map(|row| row.spec.clone());
        let spec = known.filter(|_| self.rng.bool()).unwrap_or_else(|| self.spec());
        let (enabled, starting) = (self.rng.u8(..5) > 0, self.rng.bool());
        Operation::Announce(self.replica(), Announcement { job: view.job.clone(), enabled, spec, starting })
    }

    fn decide(&mut self, view: &View) -> Operation {
        let Some(row) = &view.row else { return self.announce(view) };
        let (mut ids, now) = (Vec::new(), view.now);
        // At most all 100 of a coalesce, and their ranges.
        ids.extend((0..110).map(|_| self.id(now)));
        ids.reverse();
        let mut next = || ids.pop().unwrap();
        let decided = match self.rng.u8(..10) {
            0 => policy::start(row, now, &mut next),
            1 => policy::disabled(row, now - TimeDelta::seconds(self.rng.i64(0..600)), now, &mut next),
            2 => policy::set_back(row, now),
            _ => policy::decide(row, now, &mut next),
        };
        let Some(mut decision) = decided else { return self.hand_made(view, row) };
        if self.rng.u8(..4) == 0 {
            decision.overlap = OVERLAPS[self.rng.usize(..OVERLAPS.len())];
        }
        if self.rng.u8(..12) == 0 {
            decision.seen_epoch -= 1;
        }
        Operation::Decide(vec![decision], self.replica())
    }

    /// A start that no schedule asked for; at times of an instant that has a row.
    fn hand_made(&mut self, view: &View, row: &ScheduleRow) -> Operation {
        let old = view.runs.iter().find_map(|run| run.nominal_at);
        let nominal = old.filter(|_| self.rng.u8(..4) == 0).unwrap_or(view.now);
        let mut run = self.new_run(view, Wake::Tick, format!("tick:{nominal}"));
        (run.nominal_at, run.fire_at) = (Some(nominal), nominal);
        let decision = policy::Decision {
            job: view.job.clone(),
            seen_epoch: row.epoch,
            next_at: row.next_at,
            stamp_start: self.rng.u8(..8) == 0,
            ledger: Vec::new(),
            starts: vec![run],
            overlap: OVERLAPS[self.rng.usize(..OVERLAPS.len())],
            now: view.now,
        };
        Operation::Decide(vec![decision], self.replica())
    }

    fn new_run(&mut self, view: &View, wake: Wake, run_key: String) -> NewRun {
        NewRun {
            id: self.id(view.now),
            run_key,
            wake,
            nominal_at: None,
            nominal_until: None,
            instants: 1,
            fire_at: view.now,
            outcome: None,
            reason: None,
            into_run: None,
            input: (self.rng.u8(..4) == 0).then(|| json!({ "given": self.rng.u8(..) })),
        }
    }

    fn enqueue(&mut self, view: &View) -> Operation {
        let wake = if self.rng.u8(..4) == 0 { Wake::Backfill } else { Wake::Manual };
        let different = if self.rng.bool() { 10 } else { u32::MAX };
        let key = format!("manual:{}", self.rng.u32(..different));
        let run = self.new_run(view, wake, key);
        Operation::Enqueue(view.job.clone(), run, self.rng.u64(1..6))
    }

    /// A run, mostly one that goes on, mostly with its own epoch.
    fn held(&mut self, view: &View) -> Held {
        let going: Vec<&RunRow> = view.runs.iter().filter(|run| run.state == RunState::Running).collect();
        let run = if !going.is_empty() && self.rng.u8(..10) < 9 {
            going[self.rng.usize(..going.len())]
        } else if view.runs.is_empty() {
            return Held { id: self.id(view.now), epoch: 1 };
        } else {
            &view.runs[self.rng.usize(..view.runs.len())]
        };
        Held { id: run.id, epoch: run.epoch - i64::from(self.rng.u8(..6) == 0) }
    }

    fn ending(&mut self) -> Ending {
        match self.rng.u8(..3) {
            0 => Ending::succeeded(self.rng.u64(..9).try_into().unwrap()),
            1 => Ending::because(OUTCOMES[self.rng.usize(..OUTCOMES.len())], "because"),
            _ => Ending::error(OUTCOMES[self.rng.usize(..OUTCOMES.len())], "it\u{7} \"failed\" 😀"),
        }
    }

    fn recover(&mut self, view: &View) -> Operation {
        let mut most: Vec<Uuid> = view.runs.iter().map(|run| run.id).collect();
        most.retain(|_| self.rng.u8(..4) > 0);
        let instants = [None, Some(Instant::MIN_UTC), Some(Instant::MAX_UTC)];
        let runs = most.into_iter().map(|run| (run, instants[self.rng.usize(..3)])).collect();
        let recovery = Recovery { job: view.job.clone(), resume: self.rng.bool(), runs };
        let stale = view.runs.iter().filter(|run| run.state == RunState::Running && self.rng.u8(..3) == 0);
        let stale = stale.map(|run| (Held { id: run.id, epoch: run.epoch }, run.beat)).collect();
        Operation::Recover(vec![recovery], stale, self.replica())
    }

    fn pause(&mut self, view: &View) -> Operation {
        let until = self.rng.bool().then(|| view.now + TimeDelta::seconds(self.rng.i64(1..600)));
        let pause = Pause { at: view.now, by: self.replica(), reason: "to \"see\"".to_owned(), until };
        Operation::Pause(view.job.clone(), pause)
    }

    fn resume(&mut self, view: &View) -> Operation {
        let Some(row) = &view.row else { return self.pause(view) };
        let from = if self.rng.bool() { ResumeFrom::Now } else { ResumeFrom::CatchUp };
        let mut ids: Vec<Uuid> = (0..110).map(|_| self.id(view.now)).collect();
        ids.reverse();
        let mut resume = policy::resume(row, view.now, from, &mut || ids.pop().unwrap());
        if self.rng.u8(..6) == 0 {
            resume.seen_epoch -= 1;
        }
        Operation::Resume(view.job.clone(), resume)
    }

    fn overriding(&mut self, view: &View) -> Operation {
        let Some(row) = &view.row else { return self.announce(view) };
        let next = view.now + TimeDelta::seconds(self.rng.i64(1..100));
        let overrides = self.rng.bool().then(|| json!({ "interval": "5m" }));
        let epoch = row.epoch - i64::from(self.rng.u8(..4) == 0);
        Operation::Override(view.job.clone(), epoch, overrides, (view.now, Some(next)))
    }

    fn thing(&mut self, view: &View) -> Uuid {
        if view.things.is_empty() { self.id(view.now) } else { view.things[self.rng.usize(..view.things.len())].id }
    }

    fn failure(&mut self, view: &View) -> Operation {
        let (job, row) = (view.job.clone(), self.thing(view));
        match self.rng.u8(..8) {
            0..4 => Operation::SetAside(job, row, "bad\u{1b}[2J".to_owned()),
            4 => Operation::Failures(job, self.rng.bool().then_some(row), self.rng.u64(1..5)),
            5 => Operation::Retry(job, row),
            _ => Operation::NextFailure(job),
        }
    }

    fn retention(&mut self) -> Retention {
        let age = Duration::from_secs([60, 3_600, 86_400][self.rng.usize(..3)]);
        Retention { age, rows: self.rng.u64(5..30), batch: self.rng.u64(1..40) }
    }

    fn record(&mut self, view: &View) -> Operation {
        let id = self.id(view.now);
        let mut run = self.new_run(view, Wake::Due, format!("due:{id}"));
        run.input = None;
        Operation::Record(view.job.clone(), self.replica(), run, self.ending())
    }

    fn question(&mut self, view: &View) -> Operation {
        let job = view.job.clone();
        let some = view.runs.get(self.rng.usize(..24)).map(|run| run.id);
        match self.rng.u8(..9) {
            0 => Operation::Schedules(self.jobs.clone()),
            8 => Operation::Look(vec![job]),
            1 => Operation::Replicas(job),
            2 => Operation::Running(self.jobs.clone()),
            3 => Operation::Run(some.unwrap_or_else(Uuid::nil)),
            4 => {
                let outcomes = OUTCOMES.iter().filter(|_| self.rng.bool()).copied().collect();
                Operation::Runs(RunPage { job, before: some, outcomes, limit: self.rng.u64(1..20) })
            }
            5 => Operation::RunAt(job, view.now - TimeDelta::seconds(self.rng.i64(0..600))),
            6 => Operation::PreviousSuccess(job),
            _ => some.map_or(Operation::PreviousSuccess(job.clone()), |run| {
                Operation::Note(job, run, OUTCOMES[self.rng.usize(..OUTCOMES.len())])
            }),
        }
    }

    fn work(&mut self, view: &View) -> Operation {
        let mut statements: Vec<Statement> = (0..self.rng.usize(1..4)).map(|_| self.of_rows(view)).collect();
        let held = self.held(view);
        match self.rng.u8(..8) {
            0..2 => statements.push(Statement::Complete(held, self.ending())),
            2 => statements.push(Statement::Checkpoint(held, 3, self.rng.bool().then(|| json!({ "at": [1, null] })))),
            3 => {
                let until = view.now + TimeDelta::seconds(self.rng.i64(0..60));
                statements.push(Statement::Wait(held, 1, json!("here"), until));
            }
            4 => {
                let known =
                    view.runs.iter().find(|run| run.run_key == format!("due:{}", run.id) && run.error.is_none());
                let run = known.map_or_else(|| self.id(view.now), |run| run.id);
                let (wake, items) = (if self.rng.bool() { Wake::Due } else { Wake::Hint }, self.rng.i64(1..500));
                let (job, owner, lateness_ms) = (view.job.clone(), self.replica(), self.rng.i64(0..2_000));
                let window = Window { job, run, owner, wake, started_at: view.now, items, lateness_ms };
                statements.push(Statement::Window(window));
            }
            5 => statements.push(Statement::Clear(view.job.clone(), vec![self.thing(view), self.thing(view)])),
            _ => {}
        }
        Operation::Work(statements, self.rng.u8(..6) > 0)
    }

    fn perhaps_behind(&mut self, view: &View) -> Option<(Instant, Uuid)> {
        let behind = (self.rng.u8(..3) == 0).then(|| self.thing(view));
        let behind = view.things.iter().find(|thing| behind == Some(thing.id))?;
        Some((behind.due_at?, behind.id))
    }

    fn of_rows(&mut self, view: &View) -> Statement {
        let later = |rng: &mut fastrand::Rng| view.now + TimeDelta::milliseconds(rng.i64(-2_000..60_000));
        let mut leased: Vec<Held> = Vec::new();
        for thing in view.things.iter().filter(|thing| thing.lease_epoch > 0) {
            if self.rng.u8(..3) == 0 {
                leased.push(Held { id: thing.id, epoch: thing.lease_epoch - i64::from(self.rng.u8(..6) == 0) });
            }
        }
        match self.rng.u8(..9) {
            0 if view.things.len() < 40 => Statement::Put(self.id(view.now), later(&mut self.rng)),
            0 => {
                let idle = view.things.iter().find(|thing| thing.due_at.is_none()).unwrap_or(&view.things[0]);
                Statement::Arm(idle.id, later(&mut self.rng))
            }
            1 => {
                let only = (self.rng.u8(..4) == 0).then(|| vec![self.thing(view), self.thing(view)]);
                let after = self.perhaps_behind(view);
                let take = Take { job: view.job.clone(), now: view.now, limit: self.rng.u64(1..6), only, after };
                Statement::Take(take, self.rng.bool().then(|| later(&mut self.rng)))
            }
            2 | 3 => {
                let until = view.now + TimeDelta::seconds(30);
                let (owner, limit, after) = (self.replica(), self.rng.u64(1..6), self.perhaps_behind(view));
                Statement::Claim(LeaseTake { now: view.now, until, owner, limit, after })
            }
            4 => Statement::Lock(leased),
            5 => Statement::Extend(leased, later(&mut self.rng)),
            6 => Statement::GiveBack(leased, view.now),
            7 => Statement::Settle(leased, self.rng.u8(..5).gt(&0).then(|| later(&mut self.rng))),
            _ => Statement::NextDue(view.job.clone()),
        }
    }
}
