//! The store in memory: deterministic, for simulation, for tests, and for jobs that live on one replica.

mod decide;
mod effects;
mod ops;
mod schedules;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    schedules: BTreeMap<String, ScheduleRow>,
    runs: BTreeMap<Uuid, Stored>,
    /// The runs of each job, and those of them that are not done.
    of_job: BTreeMap<String, Runs>,
    keys: HashMap<(String, String), Uuid>,
    replicas: BTreeMap<(String, String), ReplicaRow>,
    failures: BTreeMap<(String, Uuid), FailureRow>,
    tables: BTreeMap<String, BTreeMap<Uuid, DueRow>>,
    /// Rows that a transaction has locked, and which.
    locks: BTreeMap<(String, Uuid), u64>,
    serial: u64,
    /// Runs of a job that are kept at most, where there is a limit beside the runner's pruning.
    keep: Option<usize>,
}

/// The runs of one job.
#[derive(Default)]
struct Runs {
    all: BTreeSet<Uuid>,
    open: BTreeSet<Uuid>,
    /// Those that succeeded, by the instant they stand for.
    good: BTreeSet<(Instant, Uuid)>,
}

/// The instant that a run which succeeded stands for.
fn good(row: &RunRow) -> Option<Instant> {
    row.nominal_at.filter(|_| row.outcome == Some(Outcome::Succeeded))
}

impl State {
    /// Puts a run, or takes it away, and what leads to it; what was there before.
    fn place(&mut self, id: Uuid, stored: Option<Stored>) -> Option<Stored> {
        let old = match &stored {
            Some(stored) => self.runs.insert(id, stored.clone()),
            None => self.runs.remove(&id),
        };
        if let Some(Stored { row, .. }) = &old {
            self.keys.remove(&(row.job.clone(), row.run_key.clone()));
            if let Some(runs) = self.of_job.get_mut(&row.job) {
                runs.all.remove(&id);
                runs.open.remove(&id);
                if let Some(nominal) = good(row) {
                    runs.good.remove(&(nominal, id));
                }
            }
        }
        if let Some(Stored { row, .. }) = stored {
            let (open, good) = (row.state != RunState::Done, good(&row));
            self.keys.insert((row.job.clone(), row.run_key), id);
            let runs = self.of_job.entry(row.job).or_default();
            runs.all.insert(id);
            runs.good.extend(good.map(|nominal| (nominal, id)));
            if open {
                runs.open.insert(id);
            }
        }
        old
    }

    /// The runs of a job, oldest id first.
    fn runs_of(&self, job: &str) -> impl DoubleEndedIterator<Item = &Stored> {
        self.of_job.get(job).into_iter().flat_map(|runs| &runs.all).filter_map(|id| self.runs.get(id))
    }

    /// Those that wait or run.
    fn open_of(&self, job: &str) -> impl Iterator<Item = &Stored> {
        self.of_job.get(job).into_iter().flat_map(|runs| &runs.open).filter_map(|id| self.runs.get(id))
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
        let runs = self.state.of_job.get(job);
        let oldest = runs.filter(|runs| runs.all.len() > keep).and_then(|runs| runs.all.difference(&runs.open).next());
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
        fn restore<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, old: Option<V>) {
            match old {
                Some(old) => drop(map.insert(key, old)),
                None => drop(map.remove(&key)),
            }
        }
        while let Some(undo) = self.undo.pop() {
            let state = &mut *self.state;
            match undo {
                Undo::Schedule(key, old) => restore(&mut state.schedules, key, old.map(|old| *old)),
                Undo::Run(key, old) => drop(state.place(key, old.map(|old| *old))),
                Undo::Failure(key, old) => restore(&mut state.failures, key, old),
                Undo::Row(table, key, old) => restore(state.tables.entry(table).or_default(), key, old),
            }
        }
    }
}

/// How far back an idempotency key is remembered.
const KEY_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
