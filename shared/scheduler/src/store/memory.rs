//! The store in memory: deterministic, for simulation, for tests, and for jobs that live on one replica.

mod decide;
mod effects;
mod ops;
mod schedules;
mod table;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::broadcast;
use uuid::Uuid;

pub use self::{
    effects::MemoryTx,
    table::{DueRow, DueTable},
};
use crate::{
    Instant,
    clock::Clock,
    kinds::Held,
    ledger::{FailureRow, Outcome, ReplicaRow, RunRow, RunState, ScheduleRow},
    store::Nudge,
};

/// Nudges that wait for a slow receiver, at most; more mean "look now".
const NUDGES: usize = 1024;

/// A store in memory, shared by its clones.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
    nudges: broadcast::Sender<Nudge>,
}

#[derive(Debug, Clone)]
struct Stored {
    row: RunRow,
    exclusive: bool,
}

#[derive(Default)]
struct State {
    schedules: HashMap<String, ScheduleRow>,
    /// Each in a box of its own: a run is large, and a map moves what it holds.
    runs: HashMap<Uuid, Box<Stored>>,
    of_job: HashMap<String, Runs>,
    replicas: BTreeMap<(String, String), ReplicaRow>,
    failures: BTreeMap<(String, Uuid), FailureRow>,
    tables: BTreeMap<String, BTreeMap<Uuid, DueRow>>,
    /// Rows that a transaction has locked, and which.
    locks: BTreeMap<(String, Uuid), u64>,
    serial: u64,
    /// Runs of a job that are kept at most, where there is a limit beside the runner's pruning.
    keep: Option<usize>,
}

/// The runs of one job, and what leads to them.
#[derive(Default)]
struct Runs {
    all: Sorted<Uuid>,
    by_key: Sorted<(String, Uuid)>,
    /// Those that are not done.
    open: Sorted<Uuid>,
    /// Those that succeeded, by the instant they stand for.
    good: Sorted<(Instant, Uuid)>,
}

/// Where a run stands among the others of its job.
#[derive(Clone, Copy)]
struct Standing {
    open: bool,
    /// The instant it stands for, if it succeeded.
    good: Option<Instant>,
}

impl Standing {
    fn of(row: &RunRow) -> Self {
        let good = row.nominal_at.filter(|_| row.outcome == Some(Outcome::Succeeded));
        Self { open: row.state != RunState::Done, good }
    }
}

impl Runs {
    /// Follows a run that was one row and is another.
    fn follow(&mut self, id: Uuid, was: Option<&RunRow>, is: Option<&RunRow>) {
        self.all.follow(was.map(|_| id), is.map(|_| id));
        self.stand(id, was.map(Standing::of), is.map(Standing::of));
        if was.map(|row| &row.run_key) != is.map(|row| &row.run_key) {
            let key = |row: &RunRow| (row.run_key.clone(), id);
            self.by_key.follow(was.map(key), is.map(key));
        }
    }

    /// Follows a run that stands elsewhere now.
    fn stand(&mut self, id: Uuid, was: Option<Standing>, is: Option<Standing>) {
        let open = |standing: Standing| standing.open.then_some(id);
        let good = |standing: Standing| standing.good.map(|nominal| (nominal, id));
        self.open.follow(was.and_then(open), is.and_then(open));
        self.good.follow(was.and_then(good), is.and_then(good));
    }

    /// The run with this key.
    fn by_key(&self, run_key: &str) -> Option<Uuid> {
        let at = self.by_key.0.partition_point(|(key, _)| key.as_str() < run_key);
        self.by_key.0.get(at).filter(|(key, _)| key == run_key).map(|(_, id)| *id)
    }
}

/// A set as a list: most are of a few runs, and what comes is mostly the greatest.
struct Sorted<T>(Vec<T>);

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Sorted<T> {
    fn follow(&mut self, was: Option<T>, is: Option<T>) {
        if was == is {
            return;
        }
        if let Some(Ok(at)) = was.map(|was| self.0.binary_search(&was)) {
            self.0.remove(at);
        }
        if let Some(is) = is
            && let Err(at) = self.0.binary_search(&is)
        {
            self.0.insert(at, is);
        }
    }
}

impl State {
    /// Puts a run and what leads to it. Where few runs of a job are kept, the oldest that is done goes when one comes.
    fn put(&mut self, stored: Box<Stored>) {
        let Self { runs, of_job, keep, .. } = self;
        if !of_job.contains_key(&stored.row.job) {
            of_job.insert(stored.row.job.clone(), Runs::default());
        }
        let (id, Some(of)) = (stored.row.id, of_job.get_mut(&stored.row.job)) else { return };
        let was = runs.get(&id);
        let new = was.is_none();
        of.follow(id, was.map(|was| &was.row), Some(&stored.row));
        runs.insert(id, stored);
        if new && keep.is_some_and(|keep| of.all.0.len() > keep) {
            let done = of.all.0.iter().find(|run| !of.open.0.contains(run)).copied();
            if let Some((id, gone)) = done.and_then(|id| runs.remove_entry(&id)) {
                of.follow(id, Some(&gone.row), None);
            }
        }
    }

    /// Takes a run away, and what leads to it.
    fn remove(&mut self, id: Uuid) {
        let Some(gone) = self.runs.remove(&id) else { return };
        if let Some(of) = self.of_job.get_mut(&gone.row.job) {
            of.follow(id, Some(&gone.row), None);
        }
    }

    /// The runs of a job, oldest id first.
    fn runs_of(&self, job: &str) -> impl DoubleEndedIterator<Item = &Stored> {
        self.of_job.get(job).into_iter().flat_map(|runs| &runs.all.0).filter_map(|id| Some(&**self.runs.get(id)?))
    }

    /// Those that wait or run.
    fn open_of(&self, job: &str) -> impl Iterator<Item = &Stored> {
        self.of_job.get(job).into_iter().flat_map(|runs| &runs.open.0).filter_map(|id| Some(&**self.runs.get(id)?))
    }
}

fn open(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One atomic operation: it has the store to itself.
struct Locked<'a> {
    state: MutexGuard<'a, State>,
    now: Instant,
}

impl MemoryStore {
    /// An empty store that goes by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: Arc::default(), clock, nudges: broadcast::Sender::new(NUDGES) }
    }

    /// An empty store that keeps only so many runs of each job: for jobs of one replica, of which only the latest matter.
    pub fn brief(clock: Arc<dyn Clock>, keep: usize) -> Self {
        let this = Self::new(clock);
        open(&this.state).keep = Some(keep);
        this
    }

    fn begin_tx(&self) -> MemoryTx {
        MemoryTx::new(Arc::clone(&self.state), self.clock.now())
    }

    fn lock(&self) -> Locked<'_> {
        let now = self.clock.now();
        Locked::new(open(&self.state), now)
    }

    /// One atomic operation.
    fn atomically<T>(&self, work: impl FnOnce(&mut Locked<'_>) -> T) -> T {
        work(&mut self.lock())
    }
}

impl<'a> Locked<'a> {
    fn new(state: MutexGuard<'a, State>, now: Instant) -> Self {
        Self { state, now }
    }

    fn put_row(&mut self, table: String, row: DueRow) {
        self.state.tables.entry(table).or_default().insert(row.id, row);
    }

    fn put_schedule(&mut self, row: ScheduleRow) {
        self.state.schedules.insert(row.job.clone(), row);
    }

    fn put_run(&mut self, stored: Stored) {
        self.state.put(Box::new(stored));
    }

    fn put_failure(&mut self, row: FailureRow) {
        self.state.failures.insert((row.job.clone(), row.row_id), row);
    }

    /// Whether the run is running, and still its holder's.
    fn holds(&self, held: Held) -> bool {
        let stored = self.state.runs.get(&held.id);
        stored.is_some_and(|stored| stored.row.epoch == held.epoch && stored.row.state == RunState::Running)
    }

    /// Changes a run, but neither its id nor its key, if its holder still holds it. False: fenced.
    fn change(&mut self, held: Held, change: impl FnOnce(&mut RunRow)) -> bool {
        if !self.holds(held) {
            return false;
        }
        let State { runs, of_job, .. } = &mut *self.state;
        let Some(stored) = runs.get_mut(&held.id) else { return false };
        let was = Standing::of(&stored.row);
        change(&mut stored.row);
        if let Some(runs) = of_job.get_mut(&stored.row.job) {
            runs.stand(held.id, Some(was), Some(Standing::of(&stored.row)));
        }
        true
    }
}

/// How far back an idempotency key is remembered.
const KEY_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
