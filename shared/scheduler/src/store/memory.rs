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
    Instant, StoreError,
    clock::Clock,
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
    runs: BTreeMap<Uuid, Stored>,
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

impl Runs {
    /// Follows a run that was one row and is another. Most changes leave what leads to it as it is.
    fn follow(&mut self, id: Uuid, was: Option<&RunRow>, is: Option<&RunRow>) {
        let open = |row: &RunRow| (row.state != RunState::Done).then_some(id);
        let good = |row: &RunRow| good(row).map(|nominal| (nominal, id));
        self.all.follow(was.map(|_| id), is.map(|_| id));
        self.open.follow(was.and_then(open), is.and_then(open));
        self.good.follow(was.and_then(good), is.and_then(good));
        if was.map(|row| &row.run_key) != is.map(|row| &row.run_key) {
            let key = |row: &RunRow| (row.run_key.clone(), id);
            self.by_key.follow(was.map(key), is.map(key));
        }
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

/// The instant that a run which succeeded stands for.
fn good(row: &RunRow) -> Option<Instant> {
    row.nominal_at.filter(|_| row.outcome == Some(Outcome::Succeeded))
}

impl State {
    /// Puts a run, or takes it away, and what leads to it; what was there before.
    fn place(&mut self, id: Uuid, stored: Option<Stored>) -> Option<Stored> {
        let Self { runs, of_job, .. } = self;
        let was = match stored {
            Some(stored) => runs.insert(id, stored),
            None => runs.remove(&id),
        };
        let (was_row, is_row) = (was.as_ref().map(|stored| &stored.row), runs.get(&id).map(|stored| &stored.row));
        if let Some(RunRow { job, .. }) = is_row.or(was_row) {
            if !of_job.contains_key(job) {
                of_job.insert(job.clone(), Runs::default());
            }
            if let Some(runs) = of_job.get_mut(job) {
                runs.follow(id, was_row, is_row);
            }
        }
        was
    }

    /// The runs of a job, oldest id first.
    fn runs_of(&self, job: &str) -> impl DoubleEndedIterator<Item = &Stored> {
        self.of_job.get(job).into_iter().flat_map(|runs| &runs.all.0).filter_map(|id| self.runs.get(id))
    }

    /// Those that wait or run.
    fn open_of(&self, job: &str) -> impl Iterator<Item = &Stored> {
        self.of_job.get(job).into_iter().flat_map(|runs| &runs.open.0).filter_map(|id| self.runs.get(id))
    }
}

fn open(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a write replaced, for rolling back.
enum Undo {
    Schedule(String, Option<Box<ScheduleRow>>),
    Run(Uuid, Option<Box<Stored>>),
    Failure((String, Uuid), Option<FailureRow>),
    Row(String, Uuid, Option<DueRow>),
}

/// One atomic operation: it has the store to itself. Dropping it takes its writes back.
struct Locked<'a> {
    state: MutexGuard<'a, State>,
    undo: Vec<Undo>,
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

    /// One atomic operation: all of it, or (on an error) nothing.
    fn atomically<T>(&self, work: impl FnOnce(&mut Locked<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut locked = self.lock();
        let done = work(&mut locked)?;
        locked.keep();
        Ok(done)
    }
}

impl<'a> Locked<'a> {
    fn new(state: MutexGuard<'a, State>, now: Instant) -> Self {
        Self { state, undo: Vec::new(), now }
    }

    /// Makes the writes last.
    fn keep(mut self) {
        self.undo.clear();
    }

    fn put_row(&mut self, table: String, row: DueRow) {
        let id = row.id;
        let old = self.state.tables.entry(table.clone()).or_default().insert(id, row);
        self.undo.push(Undo::Row(table, id, old));
    }

    fn put_schedule(&mut self, row: ScheduleRow) {
        let key = row.job.clone();
        let old = self.state.schedules.insert(key.clone(), row);
        self.undo.push(Undo::Schedule(key, old.map(Box::new)));
    }

    fn put_run(&mut self, stored: Stored) {
        let id = stored.row.id;
        let job = stored.row.job.clone();
        let old = self.state.place(id, Some(stored));
        let new = old.is_none();
        self.undo.push(Undo::Run(id, old.map(Box::new)));
        if new {
            self.forget(&job);
        }
    }

    /// Where few runs of a job are kept, the oldest that is done goes when one comes.
    fn forget(&mut self, job: &str) {
        let Some(keep) = self.state.keep else { return };
        let runs = self.state.of_job.get(job).filter(|runs| runs.all.0.len() > keep);
        let oldest = runs.and_then(|runs| runs.all.0.iter().find(|run| !runs.open.0.contains(run)));
        if let Some(oldest) = oldest.copied() {
            self.remove_run(oldest);
        }
    }

    fn remove_run(&mut self, id: Uuid) {
        let old = self.state.place(id, None);
        self.undo.push(Undo::Run(id, old.map(Box::new)));
    }

    fn put_failure(&mut self, row: FailureRow) {
        let key = (row.job.clone(), row.row_id);
        let old = self.state.failures.insert(key.clone(), row);
        self.undo.push(Undo::Failure(key, old));
    }

    fn remove_failure(&mut self, job: &str, row_id: Uuid) {
        let key = (job.to_owned(), row_id);
        let old = self.state.failures.remove(&key);
        self.undo.push(Undo::Failure(key, old));
    }

    /// Changes a run if its epoch is still the holder's and it is running. False: fenced.
    fn change(&mut self, held: crate::kinds::Held, change: impl FnOnce(&mut RunRow)) -> bool {
        let Some(stored) = self.state.runs.get(&held.id) else { return false };
        if stored.row.epoch != held.epoch || stored.row.state != RunState::Running {
            return false;
        }
        let mut stored = stored.clone();
        change(&mut stored.row);
        self.put_run(stored);
        true
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        fn put_back(schedules: &mut HashMap<String, ScheduleRow>, job: String, old: Option<Box<ScheduleRow>>) {
            match old {
                Some(old) => drop(schedules.insert(job, *old)),
                None => drop(schedules.remove(&job)),
            }
        }
        fn restore<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, old: Option<V>) {
            match old {
                Some(old) => drop(map.insert(key, old)),
                None => drop(map.remove(&key)),
            }
        }
        while let Some(undo) = self.undo.pop() {
            let state = &mut *self.state;
            match undo {
                Undo::Schedule(key, old) => put_back(&mut state.schedules, key, old),
                Undo::Run(key, old) => drop(state.place(key, old.map(|old| *old))),
                Undo::Failure(key, old) => restore(&mut state.failures, key, old),
                Undo::Row(table, key, old) => restore(state.tables.entry(table).or_default(), key, old),
            }
        }
    }
}

/// How far back an idempotency key is remembered.
const KEY_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
