//! Helpers for jobs over rows: one statement to lock due rows, one to lease them.

use std::{collections::BTreeMap, marker::PhantomData};

use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    SqlTx,
    dialect::{Sql, Type, hex, id, stamp},
};
use crate::{
    Instant, JobError, StoreError,
    kinds::{Held, LeaseTake, Leased, Take},
};

/// Due rows of a table with `id` and `due_at` and an index on `(due_at, id) WHERE due_at IS NOT NULL`.
///
/// `due_at <= now` implies the index's predicate without a literal, so bound parameters keep the index.
#[derive(Debug, Clone, Copy)]
pub struct Due<R> {
    table: &'static str,
    columns: &'static str,
    row: PhantomData<fn() -> R>,
}

impl<R: FromQueryResult> Due<R> {
    /// Of `table`, reading `columns` (comma-separated; only what the verb needs).
    pub const fn of(table: &'static str, columns: &'static str) -> Self {
        Self { table, columns, row: PhantomData }
    }

    /// Locks up to `take.limit` due rows, oldest first, without those that others hold or `take.job` has set aside.
    pub async fn take(&self, tx: &SqlTx, take: &Take) -> Result<Vec<R>, JobError> {
        let mut sql = Sql::new(tx.get_database_backend());
        let lock = if sql.sqlite() { "" } else { "FOR UPDATE SKIP LOCKED" };
        let now = sql.bind(take.now);
        let aside = self.not_set_aside(&mut sql, &take.job, &now);
        let only = match &take.only {
            Some(only) => format!("AND id {}", sql.ids(only)),
            None => String::new(),
        };
        let after = after(&mut sql, take.after);
        let limit = sql.bind(i64::try_from(take.limit).unwrap_or(i64::MAX));
        let (table, columns) = (self.table, self.columns);
        let text = format!(
            "SELECT {columns} FROM {table} WHERE due_at <= {now} {after} {aside} {only} ORDER BY due_at, id LIMIT {limit} {lock}"
        );
        let rows = sql.all(tx, &text).await?;
        rows.iter().map(|row| R::from_query_result(row, "")).collect::<Result<_, _>>().map_err(JobError::failed)
    }

    /// When the next row falls due that `job` has not set aside.
    pub async fn next_due(&self, tx: &SqlTx, job: &str) -> Result<Option<Instant>, JobError> {
        let mut sql = Sql::new(tx.get_database_backend());
        let now = sql.bind(tx.now);
        let aside = self.not_set_aside(&mut sql, job, &now);
        let table = self.table;
        let text = format!("SELECT due_at FROM {table} WHERE due_at IS NOT NULL {aside} ORDER BY due_at, id LIMIT 1");
        let row = sql.one(tx, &text).await?;
        row.map(|row| row.try_get("", "due_at")).transpose().map_err(JobError::failed)
    }

    /// Leaves out what `job` has set aside. That nothing is, which is the rule, is found once for all rows.
    fn not_set_aside(&self, sql: &mut Sql, job: &str, now: &str) -> String {
        let (job, table) = (sql.bind(job), self.table);
        format!(
            "AND (NOT EXISTS (SELECT 1 FROM job_failures f WHERE f.job = {job})
                 OR NOT EXISTS (SELECT 1 FROM job_failures f WHERE f.job = {job} AND f.row_id = {table}.id
                     AND (f.given_up_at IS NOT NULL OR f.next_attempt_at > {now})))"
        )
    }
}

/// A table whose rows are leased: `id`, `due_at`, `lease_owner`, `lease_epoch`, `attempt_count`, `lost_count`.
///
/// A leased row's due time is its lease end, so a dead owner's row is simply due again.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTable {
    table: &'static str,
    /// A condition on the row beside being due, such as `status = 'failed'`, or `true`.
    condition: &'static str,
}

impl LeaseTable {
    /// Of `table`, rows that satisfy `condition` (SQL without parameters; `true` for all).
    pub const fn of(table: &'static str, condition: &'static str) -> Self {
        Self { table, condition }
    }

    /// What [`crate::kinds::Lease::claim`] asks for. The attempt is counted unless a dead owner's row is taken over.
    pub async fn claim<R: FromQueryResult>(&self, tx: &SqlTx, take: &LeaseTake) -> Result<Vec<Leased<R>>, JobError> {
        let mut sql = Sql::new(tx.get_database_backend());
        let lock = if sql.sqlite() { "" } else { "FOR UPDATE SKIP LOCKED" };
        let (now, limit) = (sql.bind(take.now), sql.bind(i64::try_from(take.limit).unwrap_or(i64::MAX)));
        let (table, condition, after) = (self.table, self.condition, after(&mut sql, take.after));
        // Locked first, by a statement of its own: a subquery under UPDATE may be run once for each outer row.
        let text = format!(
            "SELECT id, due_at FROM {table} WHERE due_at <= {now} {after} AND ({condition})
             ORDER BY due_at, id LIMIT {limit} {lock}"
        );
        let due: BTreeMap<Uuid, Option<Instant>> = sql
            .all(tx, &text)
            .await?
            .iter()
            .map(|row| Ok((row.try_get("", "id")?, row.try_get("", "due_at")?)))
            .collect::<Result<_, StoreError>>()?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = due.keys().copied().collect();
        let mut sql = Sql::new(tx.get_database_backend());
        let (owner, until, ids) = (sql.bind(take.owner.as_str()), sql.bind(take.until), sql.ids(&ids));
        let text = format!(
            "UPDATE {table} SET lease_epoch = lease_epoch + 1, due_at = {until},
                 attempt_count = attempt_count + CASE WHEN lease_owner IS NULL THEN 1 ELSE 0 END,
                 lost_count = lost_count + CASE WHEN lease_owner IS NULL THEN 0 ELSE 1 END,
                 lease_owner = {owner} WHERE id {ids} RETURNING *"
        );
        let rows = sql.all(tx, &text).await?;
        // RETURNING has no order: give the rows back oldest first.
        let mut leased: Vec<Leased<R>> = rows.iter().map(|row| leased(row, &due)).collect::<Result<_, _>>()?;
        leased.sort_by_key(|row| (row.due_at, row.held.id));
        Ok(leased)
    }

    /// Selects those of `held` whose epoch is still theirs, and locks them.
    ///
    /// Each is looked up by its id, whatever the planner believes: few rows are leased at any time, and by its estimate it
    /// would read the whole table for them and compare each with all of `held`.
    fn still_held(&self, sql: &mut Sql, held: &[Held]) -> String {
        let mut held = held.to_vec();
        // Locked in one order by everybody.
        held.sort_unstable_by_key(|held| held.id);
        let (records, table) = (sql.held(&held), self.table);
        let ours = "t.id = x.r AND t.lease_epoch = x.e AND t.lease_owner IS NOT NULL";
        if sql.sqlite() {
            return format!("SELECT t.id, t.lease_epoch FROM {records} JOIN {table} t ON {ours}");
        }
        format!(
            "SELECT l.id, l.lease_epoch FROM {records}
             CROSS JOIN LATERAL (SELECT t.id, t.lease_epoch FROM {table} t WHERE {ours} FOR UPDATE) AS l"
        )
    }

    /// Those of `held` whose epoch is still theirs, as a condition on the id.
    fn is_still_held(&self, sql: &mut Sql, held: &[Held]) -> String {
        let ours = self.still_held(sql, held);
        if sql.sqlite() {
            format!("id IN (SELECT id FROM ({ours}) AS held)")
        } else {
            format!("id = ANY (ARRAY(SELECT id FROM ({ours}) AS held))")
        }
    }

    /// Locks those of `held` whose epoch is still theirs.
    pub async fn lock(&self, tx: &SqlTx, held: &[Held]) -> Result<Vec<Held>, JobError> {
        let mut sql = Sql::new(tx.get_database_backend());
        let text = self.still_held(&mut sql, held);
        self::held(&sql.all(tx, &text).await?)
    }

    /// Extends the leases that are still ours.
    pub async fn renew(&self, tx: &SqlTx, held: &[Held], until: Instant) -> Result<Vec<Held>, JobError> {
        let mut sql = Sql::new(tx.get_database_backend());
        let (ours, table, until) = (self.is_still_held(&mut sql, held), self.table, sql.bind(until));
        let text = format!("UPDATE {table} SET due_at = {until} WHERE {ours} RETURNING id, lease_epoch");
        self::held(&sql.all(tx, &text).await?)
    }

    /// Gives rows back: due now, the attempt not counted.
    pub async fn release(&self, tx: &SqlTx, held: &[Held], now: Instant) -> Result<(), JobError> {
        let mut sql = Sql::new(tx.get_database_backend());
        let (ours, table, now) = (self.is_still_held(&mut sql, held), self.table, sql.bind(now));
        let text = format!(
            "UPDATE {table} SET due_at = {now}, lease_owner = NULL, attempt_count = attempt_count - 1 WHERE {ours}"
        );
        sql.run(tx, &text).await?;
        Ok(())
    }

    /// Ends leases of rows that are locked, each with its next due time; the rows' own columns are the job's to write.
    pub async fn settle(&self, tx: &SqlTx, rows: &[(Uuid, Option<Instant>)]) -> Result<(), JobError> {
        let record = |(id, due): &(Uuid, Option<Instant>)| json!({ "r": hex(*id), "d": due.map(stamp) });
        let records: Vec<Value> = rows.iter().map(record).collect();
        let mut sql = Sql::new(tx.get_database_backend());
        let (records, table) = (sql.records(&[("r", Type::Uuid), ("d", Type::Time)], &records), self.table);
        let text = if sql.sqlite() {
            format!("UPDATE {table} SET due_at = x.d, lease_owner = NULL FROM {records} WHERE id = x.r")
        } else {
            // Looked up by id, as what is held is, and changed where it lies: it is locked, so it stays there.
            format!(
                "UPDATE {table} SET due_at = x.d, lease_owner = NULL FROM {records}
                 CROSS JOIN LATERAL (SELECT t.ctid AS place FROM {table} t WHERE t.id = x.r FOR UPDATE) AS l
                 WHERE {table}.ctid = l.place"
            )
        };
        sql.run(tx, &text).await?;
        Ok(())
    }

    /// When the next row falls due, leased ones at their lease end.
    pub async fn next_due(&self, tx: &SqlTx) -> Result<Option<Instant>, JobError> {
        let (table, condition) = (self.table, self.condition);
        let text = format!(
            "SELECT due_at FROM {table} WHERE due_at IS NOT NULL AND ({condition}) ORDER BY due_at, id LIMIT 1"
        );
        let row = Sql::new(tx.get_database_backend()).one(tx, &text).await?;
        row.map(|row| row.try_get("", "due_at")).transpose().map_err(JobError::failed)
    }
}

/// The condition that a row lies behind this one.
fn after(sql: &mut Sql, row: Option<(Instant, Uuid)>) -> String {
    match row {
        Some((due, row)) => format!("AND (due_at, id) > ({}, {})", sql.bind(due), sql.bind(id(Some(row)))),
        None => String::new(),
    }
}

fn held(rows: &[QueryResult]) -> Result<Vec<Held>, JobError> {
    let held = |row: &QueryResult| Ok(Held { id: row.try_get("", "id")?, epoch: row.try_get("", "lease_epoch")? });
    Ok(rows.iter().map(held).collect::<Result<Vec<Held>, StoreError>>()?)
}

fn leased<R: FromQueryResult>(row: &QueryResult, due: &BTreeMap<Uuid, Option<Instant>>) -> Result<Leased<R>, JobError> {
    let read = || -> Result<_, sea_orm::DbErr> {
        let id: Uuid = row.try_get("", "id")?;
        let held = Held { id, epoch: row.try_get("", "lease_epoch")? };
        Ok((held, row.try_get("", "attempt_count")?, row.try_get("", "lost_count")?, R::from_query_result(row, "")?))
    };
    let (held, attempt, lost, row) = read().map_err(JobError::failed)?;
    let due_at = due.get(&held.id).copied().flatten();
    Ok(Leased { held, due_at, attempt, lost, row })
}
