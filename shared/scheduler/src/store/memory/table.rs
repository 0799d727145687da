//! Small tables of due rows, so that jobs over rows can be run without a database.

use serde_json::Value;
use uuid::Uuid;

use super::{MemoryStore, MemoryTx};
use crate::{
    Instant, JobError,
    kinds::{Held, LeaseTake, Leased, Take},
};

/// A row that may be due.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DueRow {
    /// Its identity.
    pub id: Uuid,
    /// When it next wants the clock; `None`: never.
    pub due_at: Option<Instant>,
    /// Whatever else it holds.
    pub data: Value,
    /// Who leased it.
    pub lease_owner: Option<String>,
    /// Raised by each claim.
    pub lease_epoch: i64,
    /// Attempts counted.
    pub attempt_count: i32,
    /// Owners lost.
    pub lost_count: i32,
}

/// A table of due rows, by name.
#[derive(Debug, Clone, Copy)]
pub struct DueTable(pub &'static str);

impl MemoryStore {
    /// Puts a row, outside any transaction.
    pub fn put(&self, table: DueTable, row: DueRow) {
        self.lock().put_row(table.0.to_owned(), row);
    }

    /// All rows of a table, by id.
    pub fn rows(&self, table: DueTable) -> Vec<DueRow> {
        self.lock().state.tables.get(table.0).into_iter().flat_map(|rows| rows.values().cloned()).collect()
    }
}

impl DueTable {
    /// Writes a row.
    pub fn put(self, tx: &mut MemoryTx, row: DueRow) {
        tx.write(self.0, row);
    }

    /// One row.
    pub fn get(self, tx: &MemoryTx, id: Uuid) -> Option<DueRow> {
        tx.read(self.0, id)
    }

    /// Rows due at `now` that no other transaction has locked, oldest first.
    fn due(self, tx: &MemoryTx, now: Instant) -> Vec<DueRow> {
        let rows = tx.due_rows(self.0, true).into_iter();
        let mut due: Vec<DueRow> = rows.filter(|row| row.due_at.is_some_and(|due| due <= now)).collect();
        due.sort_by_key(|row| (row.due_at, row.id));
        due
    }

    /// What [`crate::kinds::Claim::take`] asks for.
    pub fn take(self, tx: &MemoryTx, take: &Take) -> Vec<DueRow> {
        let wanted = |row: &DueRow| {
            take.only.as_ref().is_none_or(|only| only.contains(&row.id))
                && take.after.is_none_or(|after| row.due_at.is_some_and(|due| (due, row.id) > after))
        };
        let due = self.due(tx, take.now).into_iter();
        let free = due.filter(|row| wanted(row) && !tx.set_aside(&take.job, row.id));
        let taken: Vec<DueRow> = free.take(usize::try_from(take.limit).unwrap_or(usize::MAX)).collect();
        tx.hold(self.0, &taken);
        taken
    }

    /// When the next row falls due that `job` has not set aside.
    pub fn next_due(self, tx: &MemoryTx, job: &str) -> Option<Instant> {
        let rows = tx.due_rows(self.0, false).into_iter();
        rows.filter(|row| !tx.set_aside(job, row.id)).filter_map(|row| row.due_at).min()
    }

    /// What [`crate::kinds::Lease::claim`] asks for.
    pub fn claim(self, tx: &mut MemoryTx, take: &LeaseTake) -> Vec<Leased<DueRow>> {
        let limit = usize::try_from(take.limit).unwrap_or(usize::MAX);
        let behind = |row: &DueRow| take.after.is_none_or(|after| row.due_at.is_some_and(|due| (due, row.id) > after));
        let due: Vec<DueRow> = self.due(tx, take.now).into_iter().filter(behind).take(limit).collect();
        tx.hold(self.0, &due);
        due.into_iter()
            .map(|mut row| {
                let due_at = row.due_at;
                if row.lease_owner.is_some() {
                    row.lost_count += 1;
                } else {
                    row.attempt_count += 1;
                }
                row.lease_owner = Some(take.owner.clone());
                row.lease_epoch += 1;
                row.due_at = Some(take.until);
                self.put(tx, row.clone());
                let held = Held { id: row.id, epoch: row.lease_epoch };
                Leased { held, due_at, attempt: row.attempt_count, lost: row.lost_count, row }
            })
            .collect()
    }

    /// Those of `held` whose epoch is still theirs.
    pub fn lock(self, tx: &MemoryTx, held: &[Held]) -> Vec<Held> {
        let ours = |held: &&Held| {
            self.get(tx, held.id).is_some_and(|row| row.lease_epoch == held.epoch && row.lease_owner.is_some())
        };
        held.iter().filter(ours).copied().collect()
    }

    /// Ends a lease with the row's next due time.
    pub fn settle(self, tx: &mut MemoryTx, id: Uuid, due_at: Option<Instant>, data: Value) -> Result<(), JobError> {
        let mut row = self.get(tx, id).ok_or_else(|| JobError::failed(format!("no row {id}")))?;
        row.lease_owner = None;
        row.due_at = due_at;
        row.data = data;
        self.put(tx, row);
        Ok(())
    }

    /// Extends the leases still held.
    pub fn renew(self, tx: &mut MemoryTx, held: &[Held], until: Instant) -> Vec<Held> {
        let kept = self.lock(tx, held);
        for held in &kept {
            if let Some(mut row) = self.get(tx, held.id) {
                row.due_at = Some(until);
                self.put(tx, row);
            }
        }
        kept
    }

    /// Gives rows back: due now, the attempt not counted.
    pub fn release(self, tx: &mut MemoryTx, held: &[Held], now: Instant) {
        for held in self.lock(tx, held) {
            if let Some(mut row) = self.get(tx, held.id) {
                row.lease_owner = None;
                row.attempt_count -= 1;
                row.due_at = Some(now);
                self.put(tx, row);
            }
        }
    }
}
