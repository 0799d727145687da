//! Drives a world through its plan: replicas, each a runtime of its own on this thread, in true time's order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use chrono::TimeDelta;
use scheduler::{
    Handle, Instant, Job, Running, Scheduler,
    clock::Clock,
    ledger::{RunRow, Wake},
    policy::ResumeFrom,
    store::{
        RunPage, Store,
        memory::{DueRow, MemoryStore},
    },
};
use tokio::{runtime::Runtime, task::JoinHandle};
use uuid::Uuid;

use crate::{
    checker::Moment,
    faults::{Health, World},
    jobs::{ASKED, Actor, DEALT, poison},
    plan::{DAY, Event, Plan, QUIET},
    store::SimStore,
    time::{DatabaseTime, Micros, ReplicaClock, SECOND, Time},
};

/// Says when a runtime has nothing left to do: it is about to park.
#[derive(Default)]
struct Idle {
    parked: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Idle {
    fn runtime(self: &Arc<Self>) -> Runtime {
        let idle = Arc::clone(self);
        let on_park = move || {
            if let Some(waker) = idle.waker.lock().unwrap().take() {
                idle.parked.store(true, Ordering::Relaxed);
                waker.wake();
            }
        };
        tokio::runtime::Builder::new_current_thread().on_thread_park(on_park).build().unwrap()
    }

    /// Runs until nothing can go on without time going on.
    fn settle(&self, runtime: &Runtime) {
        runtime.block_on(std::future::poll_fn(|cx| {
            if self.parked.swap(false, Ordering::Relaxed) {
                return Poll::Ready(());
            }
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        }));
    }
}

/// A replica's process.
struct Process {
    runtime: Runtime,
    idle: Arc<Idle>,
    running: Option<Running<SimStore>>,
    handle: Handle<SimStore>,
    stopping: Option<JoinHandle<()>>,
}

/// What came of a seed.
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) wrong: Vec<String>,
    pub(crate) timeline: String,
    pub(crate) digest: u64,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) cells: BTreeMap<(String, String, String), u64>,
    pub(crate) punctual: u64,
}

struct Drive<'a> {
    plan: &'a Plan,
    world: Arc<World>,
    store: MemoryStore,
    processes: Vec<Option<Process>>,
    dirty: Vec<bool>,
    serial: Arc<AtomicU64>,
    generation: usize,
    configured: Vec<usize>,
    enabled: Vec<bool>,
    rows: Vec<(Uuid, bool, Instant)>,
}

/// Runs the events of a plan that `keep` has, and the quiet after them.
pub(crate) fn run(plan: &Plan, keep: &[bool], tell: bool) -> Report {
    let start: Instant = "2026-01-01T00:00:00Z".parse().unwrap();
    let time = Time::new(start + TimeDelta::hours(plan.start_hour));
    let world = World::new(plan, Arc::clone(&time), tell);
    world.state().replicas = vec![Health::default(); plan.replicas];
    let mut drive = Drive {
        plan,
        store: MemoryStore::new(Arc::new(DatabaseTime(time))),
        processes: (0..plan.replicas).map(|_| None).collect(),
        dirty: vec![false; plan.replicas],
        serial: Arc::default(),
        generation: 0,
        configured: vec![0; plan.jobs.len()],
        enabled: vec![true; plan.jobs.len()],
        rows: Vec::new(),
        world,
    };
    for ((at, event), _) in plan.events.iter().zip(keep).filter(|(_, keep)| **keep) {
        drive.until(*at);
        if drive.over() {
            break;
        }
        drive.event(*event);
    }
    drive.end()
}

impl Drive<'_> {
    fn over(&self) -> bool {
        !self.world.state().checker.wrong.is_empty()
    }

    /// Lets time go on, and everything that it causes.
    fn until(&mut self, until: Micros) {
        loop {
            self.settle();
            if self.over() {
                return;
            }
            match self.world.time.next_timer().filter(|at| *at <= until) {
                Some(at) => self.world.time.advance(at).into_iter().for_each(|replica| self.dirty[replica] = true),
                None => break,
            }
        }
        self.world.time.advance(until).into_iter().for_each(|replica| self.dirty[replica] = true);
    }

    fn settle(&mut self) {
        while let Some(replica) = (0..self.dirty.len()).find(|replica| self.dirty[*replica]) {
            self.dirty[replica] = false;
            let now = self.world.time.now();
            let frozen_until = self.world.state().replicas[replica].frozen_until;
            if frozen_until > now {
                self.world.time.ring(replica, frozen_until);
                continue;
            }
            let Some(process) = &mut self.processes[replica] else { continue };
            process.idle.settle(&process.runtime);
            let stopped = process.stopping.as_ref().is_some_and(JoinHandle::is_finished);
            let crashed = self.world.state().replicas[replica].crashed;
            if crashed || stopped {
                self.processes[replica] = None;
            }
            let nudged = std::mem::take(&mut self.world.state().nudged);
            if nudged {
                self.dirty.fill(true);
            }
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.world.time.now();
        match event {
            Event::Start(replica) => self.start(replica),
            Event::Crash(replica) => {
                self.world.fault("crash", replica, now);
                self.processes[replica] = None;
            }
            Event::Stop(replica) => self.stop(replica),
            Event::Freeze(replica, by) => {
                self.world.fault("pause", replica, now + by);
                self.world.state().replicas[replica].frozen_until = now + by;
            }
            Event::Cut(replica, by) => {
                self.world.fault("partition", replica, now + by);
                self.world.state().replicas[replica].cut_until = now + by;
            }
            Event::StoreAway(by) => {
                self.world.fault("store away", 0, now + by);
                self.world.state().away_until = now + by;
            }
            Event::Step(by) => {
                self.world.fault("clock step", 0, now + 70 * SECOND);
                let mut state = self.world.state();
                state.checker.stepped = now;
                state.checker.stepped_back |= by < 0;
                drop(state);
                self.world.time.step(by);
            }
            Event::Storm(by, often) => {
                self.world.state().storm = (now + by, often);
            }
            Event::Configure(job) => self.configured[job] ^= 1,
            Event::Enable(job, enabled) => self.enabled[job] = enabled,
            Event::Due(count, within) => self.due(count, within),
            operator => self.operator(operator),
        }
        self.dirty.fill(true);
    }

    fn due(&mut self, count: usize, within: Micros) {
        let due_at = Some(self.world.time.database() + TimeDelta::microseconds(within));
        let leases = self.plan.jobs.iter().any(|job| job.name == "asked");
        for table in [DEALT, ASKED] {
            let is_lease = table.0 == ASKED.0;
            for _ in 0..count {
                let serial = u128::from(self.serial.fetch_add(1, Ordering::Relaxed));
                let id = Uuid::from_u128((0xd0e0 << 112) | (u128::from(is_lease) << 96) | (serial * 7 + serial / 3));
                if !is_lease || leases {
                    self.store.put(table, DueRow { id, due_at, ..DueRow::default() });
                    self.rows.extend(due_at.map(|due_at| (id, is_lease, due_at)));
                }
            }
        }
        let process = self.processes.iter().flatten().next();
        process.inspect(|process| process.handle.changed());
    }

    fn start(&mut self, replica: usize) {
        if self.processes[replica].is_some() {
            return;
        }
        self.generation += 1;
        let name = format!("r{replica}.{}", self.generation);
        let (ppm, wrong_by) = {
            let mut state = self.world.state();
            state.replicas[replica] = Health::default();
            (state.rng.i64(-500..500), state.rng.i64(-7_200 * SECOND..7_200 * SECOND))
        };
        self.world.fault("start", replica, self.world.time.now());
        let clock = ReplicaClock::new(&self.world.time, replica, ppm, wrong_by);
        let idle = Arc::new(Idle::default());
        let runtime = idle.runtime();
        let store = SimStore { inner: self.store.clone(), world: Arc::clone(&self.world), replica, name: name.clone() };
        let (serial, time) = (Arc::clone(&self.serial), Arc::clone(&self.world.time));
        let ids = move || {
            let serial = serial.fetch_add(1, Ordering::Relaxed);
            let millis = u64::try_from(time.now() / 1_000).unwrap_or(0);
            Uuid::from_u64_pair(millis << 16 | 0x7000, 0x8000 << 48 | serial)
        };
        let mut scheduler = Scheduler::new("sim", store, Arc::clone(&clock) as Arc<dyn Clock>)
            .replica(&name)
            .hints(self.plan.hints)
            .ids(Arc::new(ids));
        for (at, job) in self.plan.jobs.iter().enumerate() {
            let actor = Actor { seed: self.plan.seed, clock: Arc::clone(&clock) };
            let mut settings = job.settings[self.configured[at]].clone();
            settings.enabled = self.enabled[at];
            scheduler = scheduler.job(match job.name {
                "steps" => Job::steps(job.name, "", settings, actor),
                "dealt" => Job::claim(job.name, "", settings, actor),
                "asked" => Job::lease(job.name, "", settings, actor),
                _ => Job::tick(job.name, "", settings, actor),
            });
        }
        let running = {
            let _inside = runtime.enter();
            scheduler.start()
        };
        let handle = running.handle();
        self.processes[replica] = Some(Process { runtime, idle, running: Some(running), handle, stopping: None });
        self.dirty[replica] = true;
    }

    fn stop(&mut self, replica: usize) {
        let now = self.world.time.now();
        let Some(process) = &mut self.processes[replica] else { return };
        if let Some(running) = process.running.take() {
            self.world.fault("stop", replica, now + 25 * SECOND);
            process.stopping = Some(process.runtime.spawn(async move {
                running.stop(Duration::from_secs(25)).await;
            }));
        }
    }

    /// An operator asks the first replica that answers.
    fn operator(&self, event: Event) {
        let (time, now) = (&self.world.time, self.world.time.now());
        let frozen = |replica: usize| self.world.state().replicas[replica].frozen_until > now;
        let mut asked = self.processes.iter().enumerate().filter(|(replica, _)| !frozen(*replica));
        let Some(process) = asked.find_map(|(_, process)| process.as_ref()) else { return };
        let (handle, database) = (process.handle.clone(), time.database());
        let name = |job: usize| self.plan.jobs[job].name;
        match event {
            Event::Pause(job, until) => {
                let (name, until) = (name(job), until.map(|until| database + TimeDelta::microseconds(until)));
                process.runtime.spawn(async move { drop(handle.pause(name, "op", "calm", until).await) });
            }
            Event::Resume(job, catch_up) => {
                let (name, from) = (name(job), if catch_up { ResumeFrom::CatchUp } else { ResumeFrom::Now });
                process.runtime.spawn(async move { drop(handle.resume(name, from).await) });
            }
            Event::Run(job, key) => {
                let name = name(job);
                process.runtime.spawn(async move { drop(handle.run(name, Some(&key.to_string()), None).await) });
            }
            Event::Backfill(job, span) => {
                let (name, from) = (name(job), database - TimeDelta::microseconds(span));
                let to = database - TimeDelta::seconds(1);
                process.runtime.spawn(async move { drop(handle.backfill(name, from, to).await) });
            }
            _ => {}
        }
    }

    /// The quiet after the last fault, and what must hold then.
    fn end(mut self) -> Report {
        let quiet = DAY.max(self.world.time.now());
        self.until(quiet);
        self.heal();
        self.until(quiet + QUIET);
        self.settle();
        let mut found = BTreeMap::new();
        for job in &self.plan.jobs {
            found.insert(job.name.to_owned(), self.ledger(job.name));
        }
        let world = Arc::clone(&self.world);
        let mut state = world.state();
        let (at, database) = (world.time.now(), world.time.database());
        let moment = Moment { at, database, replica: "at the end" };
        if state.checker.wrong.is_empty() {
            state.checker.verify(moment, &found);
            // After a step back of the database's clock some are not due by the end.
            let due = self.rows.iter().filter(|(.., due_at)| *due_at < database - TimeDelta::seconds(10));
            for (id, is_lease, _) in due {
                if (*is_lease || !poison(*id)) && !state.checker.took_effect(*id) {
                    state.checker.fail(moment, format!("row {id} was never dealt with"));
                }
            }
        }
        let (effects, events) = (
            self.store.rows(scheduler::store::memory::DueTable("effects")),
            self.store.rows(scheduler::store::memory::DueTable("events")),
        );
        if effects != events || (state.checker.wrong.is_empty() && effects.len() != state.checker.effects()) {
            let (effects, events) = (effects.len(), events.len());
            state.checker.fail(moment, format!("{effects} effects, {events} events"));
        }
        let mut cells = BTreeMap::new();
        for (overlap, outcome, wake) in state.checker.cells() {
            *cells.entry((format!("{overlap:?}"), outcome.to_string(), wake.to_string())).or_default() += 1;
        }
        for row in found.values().flatten().filter(|row| matches!(row.wake_source, Wake::Due | Wake::Hint)) {
            let outcome = row.outcome.map(|outcome| outcome.to_string()).unwrap_or_default();
            *cells.entry(("Skip".to_owned(), outcome, row.wake_source.to_string())).or_default() += 1;
        }
        Report {
            seed: self.plan.seed,
            wrong: state.checker.wrong.clone(),
            timeline: state.checker.timeline(),
            digest: state.checker.digest(),
            counts: state.counts.clone(),
            cells,
            punctual: state.checker.punctual,
        }
    }

    fn heal(&mut self) {
        let now = self.world.time.now();
        {
            let mut state = self.world.state();
            state.storm = (0, 0);
            state.away_until = now;
            for health in &mut state.replicas {
                health.cut_until = now;
                health.frozen_until = health.frozen_until.min(now);
            }
            state.checker.disturbed = now;
        }
        self.enabled.fill(true);
        for replica in 0..self.plan.replicas {
            self.processes[replica] = None;
            self.start(replica);
        }
        self.until(now + 10 * SECOND);
        for job in 0..self.plan.jobs.len() {
            self.event(Event::Resume(job, false));
        }
    }

    fn ledger(&self, job: &str) -> Vec<RunRow> {
        let page = RunPage { job: job.to_owned(), before: None, outcomes: Vec::new(), limit: u64::MAX };
        futures_util::FutureExt::now_or_never(self.store.runs(&page)).unwrap().unwrap()
    }
}
