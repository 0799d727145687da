//! A work transaction in memory: its writes wait until it commits, and its rows are locked until then.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use uuid::Uuid;

use super::{DueRow, Locked, State, Stored, open};
use crate::{
    Instant, StoreError,
    kinds::Held,
    ledger::Ending,
    store::{Window, rules},
};

/// What a transaction does to the ledger when it commits.
pub(super) enum Effect {
    End(Held, Ending),
    Checkpoint(Held, i64, Option<Value>),
    Wait(Held, i64, Value, Instant),
    Window(Window),
    Clear(String, Vec<Uuid>),
}

impl Effect {
    /// Whose run it is about, if it is about one.
    fn held(&self) -> Option<Held> {
        match self {
            Self::End(held, _) | Self::Checkpoint(held, ..) | Self::Wait(held, ..) => Some(*held),
            Self::Window(_) | Self::Clear(..) => None,
        }
    }
}

/// A row this transaction writes: as it was, and as it will be.
struct Written {
    before: Option<DueRow>,
    after: DueRow,
}

/// A work transaction. Dropping it rolls back.
///
/// Nothing waits for another transaction: rows locked elsewhere are left out of claims, and a commit whose runs or
/// leases changed meanwhile fails as a whole.
pub struct MemoryTx {
    state: Arc<Mutex<State>>,
    serial: u64,
    rows: BTreeMap<(String, Uuid), Written>,
    effects: Vec<Effect>,
    /// The store's time when it began.
    pub now: Instant,
}

impl MemoryTx {
    pub(super) fn new(state: Arc<Mutex<State>>, now: Instant) -> Self {
        let serial = {
            let mut state = open(&state);
            state.serial += 1;
            state.serial
        };
        Self { state, serial, rows: BTreeMap::new(), effects: Vec::new(), now }
    }

    /// Puts an effect into the transaction. False: its run is not ours any more.
    pub(super) fn later(&mut self, effect: Effect) -> bool {
        let ours = effect.held().is_none_or(|held| Locked::new(open(&self.state), self.now).holds(held));
        if ours {
            self.effects.push(effect);
        }
        ours
    }

    /// The rows of a table that will be due some time, as this transaction sees them: its own writes over those
    /// committed. `free`: without those that another transaction has locked.
    pub(super) fn due_rows(&self, table: &str, free: bool) -> Vec<DueRow> {
        let state = open(&self.state);
        let locked = |id: &Uuid| state.locks.get(&(table.to_owned(), *id)).is_some_and(|serial| *serial != self.serial);
        // Most transactions that ask have written nothing: no key is made for each row then.
        let own = |id: &Uuid| {
            if self.rows.is_empty() {
                return None;
            }
            self.rows.get(&(table.to_owned(), *id)).map(|written| &written.after)
        };
        let committed = state.tables.get(table).into_iter().flatten();
        let committed = committed.map(|(id, row)| own(id).unwrap_or(row));
        let new = self.rows.iter().filter(|((of, _), written)| of == table && written.before.is_none());
        let all = committed.chain(new.map(|(_, written)| &written.after));
        all.filter(|row| row.due_at.is_some() && !(free && locked(&row.id))).cloned().collect()
    }

    /// One row as this transaction sees it.
    pub(super) fn read(&self, table: &str, id: Uuid) -> Option<DueRow> {
        let own = self.rows.get(&(table.to_owned(), id)).map(|written| written.after.clone());
        own.or_else(|| open(&self.state).tables.get(table)?.get(&id).cloned())
    }

    /// Whether `job` has set the row aside at the moment.
    pub(super) fn set_aside(&self, job: &str, id: Uuid) -> bool {
        let state = open(&self.state);
        let failure = state.failures.get(&(job.to_owned(), id));
        failure.is_some_and(|row| row.given_up_at.is_some() || row.next_attempt_at.is_some_and(|at| at > self.now))
    }

    /// Locks rows until the transaction ends.
    pub(super) fn hold(&self, table: &str, rows: &[DueRow]) {
        let mut state = open(&self.state);
        for row in rows {
            state.locks.insert((table.to_owned(), row.id), self.serial);
        }
    }

    pub(super) fn write(&mut self, table: &str, after: DueRow) {
        let key = (table.to_owned(), after.id);
        if let Some(written) = self.rows.get_mut(&key) {
            written.after = after;
            return;
        }
        let before = open(&self.state).tables.get(table).and_then(|rows| rows.get(&after.id)).cloned();
        self.rows.insert(key, Written { before, after });
    }

    /// Makes all writes last, or none: it looks whether they may before the first.
    pub(super) fn commit(mut self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.state);
        let mut locked = Locked::new(open(&shared), self.now);
        let lease = |row: &DueRow| (row.lease_epoch, row.lease_owner.clone());
        let same = |((table, id), written): (&(String, Uuid), &Written)| {
            let now = locked.state.tables.get(table).and_then(|rows| rows.get(id));
            now.map(lease) == written.before.as_ref().map(lease)
        };
        let mut held = self.effects.iter().filter_map(Effect::held);
        if !(self.rows.iter().all(same) && held.all(|held| locked.holds(held))) {
            return Err(StoreError::Unavailable("what the transaction wrote was changed by another".to_owned()));
        }
        for ((table, _), written) in std::mem::take(&mut self.rows) {
            locked.put_row(table, written.after);
        }
        for effect in std::mem::take(&mut self.effects) {
            locked.apply(effect);
        }
        Ok(())
    }
}

impl Drop for MemoryTx {
    fn drop(&mut self) {
        open(&self.state).locks.retain(|_, serial| *serial != self.serial);
    }
}

impl Locked<'_> {
    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::End(held, ending) => {
                self.end(held, &ending);
            }
            Effect::Checkpoint(held, items, cursor) => {
                self.change(held, |row| {
                    row.items += items;
                    row.passes += 1;
                    if cursor.is_some() {
                        row.cursor = cursor;
                    }
                });
            }
            Effect::Wait(held, items, cursor, until) => {
                self.change(held, |row| {
                    row.items += items;
                    row.passes += 1;
                    row.cursor = Some(cursor);
                    rules::wait(row, until);
                });
            }
            Effect::Window(window) => self.window(&window),
            Effect::Clear(job, rows) => {
                for row in rows {
                    self.state.failures.remove(&(job.clone(), row));
                }
            }
        }
    }

    pub(super) fn end(&mut self, held: Held, ending: &Ending) -> bool {
        let now = self.now;
        self.change(held, |row| rules::end(row, ending, now))
    }

    fn window(&mut self, window: &Window) {
        let now = self.now;
        let ending = Ending::succeeded(0);
        let stored = self.state.runs.get(&window.run).map(|stored| Stored::clone(stored));
        let mut stored = stored.unwrap_or_else(|| {
            let new = window.new_run();
            let mut row = rules::row(&window.job, new, now);
            row.queued_at = None;
            row.started_at = Some(window.started_at);
            row.owner = Some(window.owner.clone());
            rules::end(&mut row, &ending, now);
            Stored { row, exclusive: false }
        });
        stored.row.items += window.items;
        stored.row.passes += 1;
        stored.row.finished_at = Some(now);
        stored.row.lateness_ms = stored.row.lateness_ms.max(Some(window.lateness_ms));
        self.put_run(stored);
    }
}
