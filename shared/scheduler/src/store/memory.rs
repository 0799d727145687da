//! The store in memory: deterministic, for simulation, for tests, and for jobs that live on one replica.

mod decide;
mod effects;
mod ops;
mod schedules;
mod table;

use std::{
    collections::BTreeMap,
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
    ledger::{FailureRow, ReplicaRow, RunRow, ScheduleRow},
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
    replicas: BTreeMap<(String, String), ReplicaRow>,
    failures: BTreeMap<(String, Uuid), FailureRow>,
    tables: BTreeMap<String, BTreeMap<Uuid, DueRow>>,
    /// Rows that a transaction has locked, and which.
    locks: BTreeMap<(String, Uuid), u64>,
    serial: u64,
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
        let old = self.state.runs.insert(id, stored);
        self.undo.push(Undo::Run(id, old.map(Box::new)));
    }

    fn remove_run(&mut self, id: Uuid) {
        let old = self.state.runs.remove(&id);
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
        if stored.row.epoch != held.epoch || stored.row.state != crate::ledger::RunState::Running {
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
                Undo::Run(key, old) => restore(&mut state.runs, key, old.map(|old| *old)),
                Undo::Failure(key, old) => restore(&mut state.failures, key, old),
                Undo::Row(table, key, old) => restore(state.tables.entry(table).or_default(), key, old),
            }
        }
    }
}

/// How far back an idempotency key is remembered.
const KEY_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
