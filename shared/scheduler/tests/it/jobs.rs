//! Jobs that do what a test tells them, and a replica to run them on.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use scheduler::{
    Instant, Job, JobError, Running, Scheduler, Stopped,
    clock::{Clock, ManualClock},
    config::JobSettings,
    control::RunView,
    kinds::{Claim, Run, Step, Take, Tick},
    schedule::Spec,
    store::memory::{DueRow, DueTable, MemoryStore, MemoryTx},
};
use serde_json::json;
use uuid::Uuid;

/// The table of the due rows in these stories.
pub(crate) const ROWS: DueTable = DueTable("rows");

/// Settings of a job that runs every so many seconds, not at the start.
pub(crate) fn every(seconds: u64) -> JobSettings {
    let spec = Spec::every(Duration::from_secs(seconds));
    JobSettings { run_on_start: false, spec: spec.clone(), ..JobSettings::of(spec.schedule) }
}

/// What a tick is told to do.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Do {
    Succeed,
    Fail,
    Panic,
    /// Go on until asked to stop.
    UntilStop,
}

/// A tick that does as told and remembers its runs.
#[derive(Clone)]
pub(crate) struct Told {
    what: Arc<Mutex<Do>>,
    pub(crate) runs: Arc<Mutex<Vec<Run>>>,
}

impl Told {
    pub(crate) fn to(what: Do) -> Self {
        Self { what: Arc::new(Mutex::new(what)), runs: Arc::default() }
    }

    pub(crate) fn now(&self, what: Do) {
        *self.what.lock().unwrap() = what;
    }

    pub(crate) fn count(&self) -> usize {
        self.runs.lock().unwrap().len()
    }
}

#[async_trait]
impl<T: Send> Tick<T> for Told {
    async fn tick(&self, _tx: &mut T, run: &Run) -> Result<Step, JobError> {
        self.runs.lock().unwrap().push(run.clone());
        let what = *self.what.lock().unwrap();
        match what {
            Do::Succeed => Ok(Step::Done(1)),
            Do::Fail => Err(JobError::failed("told to fail")),
            Do::Panic => panic!("told to panic"),
            Do::UntilStop => {
                run.stop.cancelled().await;
                Ok(Step::More { items: 1, cursor: json!("half") })
            }
        }
    }
}

/// A row's place among those that are due.
type Place = (Instant, Uuid);

/// Moves rows out of being due; some are poison.
#[derive(Clone, Default)]
pub(crate) struct Deal {
    pub(crate) poison: Arc<Mutex<Vec<Uuid>>>,
    /// Poison makes it panic instead of fail.
    pub(crate) panics: bool,
    /// Poison makes it never come back.
    pub(crate) hangs: bool,
    pub(crate) acts: Arc<AtomicUsize>,
    /// Leaves the rows due, which is a mistake.
    pub(crate) forgets: bool,
    /// Behind which row each batch was taken.
    pub(crate) behind: Arc<Mutex<Vec<Option<Place>>>>,
}

#[async_trait]
impl Claim<MemoryTx> for Deal {
    type Row = DueRow;

    fn id(&self, row: &DueRow) -> Uuid {
        row.id
    }

    fn due_at(&self, row: &DueRow) -> Option<Instant> {
        row.due_at
    }

    async fn take(&self, tx: &mut MemoryTx, take: &Take) -> Result<Vec<DueRow>, JobError> {
        self.behind.lock().unwrap().push(take.after);
        Ok(ROWS.take(tx, take))
    }

    async fn act(&self, tx: &mut MemoryTx, rows: Vec<DueRow>, run: &Run) -> Result<(), JobError> {
        self.acts.fetch_add(1, Ordering::Relaxed);
        for row in rows {
            let poison = self.poison.lock().unwrap().contains(&row.id);
            assert!(!(poison && self.panics), "row {} is too much", row.id);
            if poison && self.hangs {
                std::future::pending::<()>().await;
            }
            if poison {
                return Err(JobError::failed(format!("row {} is poison", row.id)));
            }
            let done = json!({ "done_at": run.now, "times": row.data["times"].as_i64().unwrap_or(0) + 1 });
            let due_at = row.due_at.filter(|_| self.forgets);
            ROWS.put(tx, DueRow { due_at, data: done, ..row });
        }
        Ok(())
    }

    fn wakes_when_due(&self) -> bool {
        true
    }

    async fn next_due(&self, tx: &mut MemoryTx) -> Result<Option<Instant>, JobError> {
        Ok(ROWS.next_due(tx, "deal"))
    }
}

/// Puts rows that fall due in so many seconds; their ids.
pub(crate) fn due_in(store: &MemoryStore, clock: &ManualClock, seconds: i64, count: usize) -> Vec<Uuid> {
    let due_at = Some(clock.now() + chrono::TimeDelta::seconds(seconds));
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    for id in &ids {
        store.put(ROWS, DueRow { id: *id, due_at, ..DueRow::default() });
    }
    ids
}

/// A replica on memory.
pub(crate) struct Replica {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) running: Running<MemoryStore>,
}

impl Replica {
    pub(crate) fn start(
        store: &MemoryStore,
        clock: &Arc<ManualClock>,
        jobs: impl IntoIterator<Item = Job<MemoryStore>>,
    ) -> Self {
        Self::of(Self::scheduler(store, clock).jobs(jobs), clock)
    }

    pub(crate) fn scheduler(store: &MemoryStore, clock: &Arc<ManualClock>) -> Scheduler<MemoryStore> {
        Scheduler::new("test", store.clone(), Arc::clone(clock) as Arc<dyn Clock>)
    }

    pub(crate) fn of(scheduler: Scheduler<MemoryStore>, clock: &Arc<ManualClock>) -> Self {
        Self { clock: Arc::clone(clock), running: scheduler.start() }
    }

    /// The runs of a job, oldest first.
    pub(crate) async fn runs(&self, job: &str) -> Vec<RunView> {
        let mut runs = self.running.handle().runs(job, None, Vec::new(), 100).await.unwrap();
        runs.reverse();
        runs
    }

    /// Stops it, with a grace of 25 s, while time goes on.
    pub(crate) async fn stop(self) -> Stopped {
        let stop = self.running.stop(Duration::from_secs(25));
        let time = async {
            loop {
                self.clock.advance(Duration::from_millis(10));
                settle().await;
            }
        };
        tokio::select! {
            stopped = stop => stopped,
            () = time => unreachable!("time does not end"),
        }
    }

    /// Moves time on by a second at a time, and lets everything happen that it causes.
    pub(crate) async fn pass(&self, seconds: u64) {
        pass(&self.clock, seconds).await;
    }
}

/// Moves time on by a second at a time, and lets everything happen that it causes.
pub(crate) async fn pass(clock: &ManualClock, seconds: u64) {
    settle().await;
    for _ in 0..seconds {
        clock.advance(Duration::from_secs(1));
        settle().await;
    }
}

/// Lets every task of this thread go as far as it can without time moving.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
