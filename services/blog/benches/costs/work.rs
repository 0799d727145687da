//! What is done often, each as often as told.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use events::{Event, blog::PostScheduledPublished};
use scheduler::{
    Job, JobError, Scheduler,
    clock::{Clock, ManualClock},
    config::JobSettings,
    kinds::{Run, Step, Tick},
    ledger::ScheduleRow,
    policy,
    schedule::{Dst, Schedule, Spec},
    store::memory::{MemoryStore, MemoryTx},
};
use uuid::Uuid;

/// Does a work so many times.
type Work = fn(u64);

/// Works by name.
pub(crate) const WORKS: &[(&str, Work)] = &[
    ("the next instant of a cron expression", cron),
    ("the next instant of an interval", interval),
    ("a decision", decision),
    ("an event to its record", record),
    ("an envelope from its bytes", envelope),
    ("a tick", tick),
];

/// The work of that name.
pub(crate) fn of(name: &str) -> Option<Work> {
    WORKS.iter().find(|(known, _)| *known == name).map(|(_, work)| *work)
}

fn began() -> DateTime<Utc> {
    DateTime::from_timestamp(1_780_272_000, 0).expect("a time")
}

fn instants(spec: &Spec, times: u64) {
    let mut at = began();
    for _ in 0..times {
        at = black_box(spec).next_after(began(), at).expect("it goes on");
    }
    black_box(at);
}

fn cron(times: u64) {
    let (expression, zone) = ("*/7 8-18 * * MON-FRI".to_owned(), "Europe/Berlin".to_owned());
    instants(&Spec::new(Schedule::Cron { expression, zone, dst: Dst::Vixie }), times);
}

fn interval(times: u64) {
    instants(&Spec::every(Duration::from_secs(7)), times);
}

fn decision(times: u64) {
    let spec = Spec::every(Duration::from_secs(60));
    let mut row = ScheduleRow {
        job: "job".to_owned(),
        spec_hash: spec.hash(),
        spec,
        spec_by: "costs".to_owned(),
        spec_at: began(),
        overrides: None,
        anchor_at: began(),
        next_at: Some(began() + TimeDelta::seconds(60)),
        epoch: 1,
        last_start_at: None,
        pause: None,
        last_run_id: None,
        last_success_at: None,
        ledger_from: began(),
    };
    let mut at = began();
    for _ in 0..times {
        at += TimeDelta::seconds(60);
        let decided = policy::decide(black_box(&row), at, &mut Uuid::now_v7).expect("an instant is due");
        row.next_at = decided.next_at;
        black_box(decided);
    }
}

fn event(number: u64) -> Event {
    let post = PostScheduledPublished {
        post_id: Uuid::from_u128(u128::from(number)),
        title: format!("Post {number}"),
        slug: format!("post-{number}"),
        scheduled_at: Some(began()),
        published_at: began(),
    };
    Event::of(&post, 7, began(), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()))
}

fn record(times: u64) {
    for number in 0..times {
        black_box(outbox::encoded(&[event(number)]).expect("it is of the catalogue"));
    }
}

fn envelope(times: u64) {
    let bytes = event(7).to_json();
    for _ in 0..times {
        black_box(Event::from_json(black_box(&bytes)).expect("an envelope"));
    }
}

struct Counting(Arc<AtomicU64>);

#[async_trait]
impl Tick<MemoryTx> for Counting {
    async fn tick(&self, _tx: &mut MemoryTx, _run: &Run) -> Result<Step, JobError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Step::Done(1))
    }
}

/// Ticks of one job by the runner that ships, from the wake of its timer to the end in the ledger.
fn tick(times: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let clock = ManualClock::at(began());
        let store = MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let spec = Spec::every(Duration::from_secs(1));
        let settings = JobSettings { run_on_start: false, spec: spec.clone(), ..JobSettings::of(spec.schedule) };
        let ticked = Arc::new(AtomicU64::new(0));
        let job = Job::tick("tick", "", settings, Counting(Arc::clone(&ticked)));
        let running = Scheduler::new("costs", store, Arc::clone(&clock) as Arc<dyn Clock>).job(job).start();
        settle().await;
        for number in 1..=times {
            clock.advance(Duration::from_secs(1));
            while ticked.load(Ordering::Relaxed) < number {
                tokio::task::yield_now().await;
            }
        }
        drop(running);
    });
}

/// So many turns that everything which can go on without time has done so.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
