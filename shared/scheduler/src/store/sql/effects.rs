//! Writes that carry an epoch: ends, checkpoints, waits, windows. Each is the last statement of its transaction.

use sea_orm::{DatabaseTransaction, DbBackend};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Ctl, SqlTx,
    dialect::{Sql, id},
    rows,
};
use crate::{
    Instant, StoreError,
    kinds::Held,
    ledger::{Ending, NewRun, Outcome, RunRow},
    store::{Window, rules},
};

/// Ends a run under its epoch. False: fenced.
pub(super) async fn end(
    tx: &DatabaseTransaction,
    backend: DbBackend,
    now: Instant,
    held: Held,
    ending: &Ending,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new(backend);
    let (outcome, items) = (sql.bind(ending.outcome.as_str()), sql.bind(ending.items));
    let (reason, error, now) = (sql.bind(ending.reason.clone()), sql.bind(ending.error.clone()), sql.bind(now));
    let fence = fence(&mut sql, held);
    let text = format!(
        "UPDATE job_runs SET state = 'done', outcome = {outcome}, reason = {reason}, error = {error},
             items = items + {items}, finished_at = {now}, lease_until = NULL {fence}"
    );
    Ok(sql.run(tx, &text).await? == 1)
}

/// The condition that keeps a stale owner's write out.
fn fence(sql: &mut Sql, held: Held) -> String {
    let (run, epoch) = (sql.bind(id(Some(held.id))), sql.bind(held.epoch));
    format!("WHERE id = {run} AND epoch = {epoch} AND state = 'running'")
}

pub(super) async fn checkpoint(
    tx: &SqlTx,
    backend: DbBackend,
    held: Held,
    items: i64,
    cursor: Option<&Value>,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new(backend);
    let items = sql.bind(items);
    let cursor = match cursor {
        Some(cursor) => format!(", cursor = {}", sql.json(Some(cursor))),
        None => String::new(),
    };
    let fence = fence(&mut sql, held);
    let text = format!("UPDATE job_runs SET items = items + {items}, passes = passes + 1{cursor} {fence}");
    Ok(sql.run(tx, &text).await? == 1)
}

pub(super) async fn wait(
    tx: &SqlTx,
    backend: DbBackend,
    held: Held,
    items: i64,
    cursor: &Value,
    until: Instant,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new(backend);
    let (items, cursor, until) = (sql.bind(items), sql.json(Some(cursor)), sql.bind(until));
    let fence = fence(&mut sql, held);
    let text = format!(
        "UPDATE job_runs SET items = items + {items}, passes = passes + 1, cursor = {cursor}, state = 'queued',
             owner = NULL, lease_until = NULL, queued_at = {until} {fence}"
    );
    Ok(sql.run(tx, &text).await? == 1)
}

pub(super) async fn window(tx: &SqlTx, backend: DbBackend, window: &Window) -> Result<(), StoreError> {
    let mut sql = Sql::new(backend);
    let greatest = if sql.sqlite() { "max" } else { "greatest" };
    let new = window.new_run();
    let (run, job, key) = (sql.bind(id(Some(window.run))), sql.bind(window.job.as_str()), sql.bind(new.run_key));
    let (wake, owner) = (sql.bind(window.wake.as_str()), sql.bind(window.owner.as_str()));
    let (started, now) = (sql.bind(window.started_at), sql.bind(tx.now));
    let (items, late) = (sql.bind(window.items), sql.bind(window.lateness_ms));
    let attempts = sql.json(Some(&Value::Array(Vec::new())));
    let exclusive = sql.bind(false);
    let text = format!(
        "INSERT INTO job_runs (id, job, run_key, wake_source, fire_at, state, outcome, attempts, exclusive, owner, epoch,
             items, passes, lateness_ms, started_at, finished_at)
         VALUES ({run}, {job}, {key}, {wake}, {started}, 'done', 'succeeded', {attempts}, {exclusive}, {owner}, 0,
             {items}, 1, {late}, {started}, {now})
         ON CONFLICT (id) DO UPDATE SET items = job_runs.items + excluded.items, passes = job_runs.passes + 1,
             finished_at = excluded.finished_at, lateness_ms = {greatest}(job_runs.lateness_ms, excluded.lateness_ms)"
    );
    sql.run(tx, &text).await.map(drop)
}

pub(super) async fn clear_failures(tx: &SqlTx, backend: DbBackend, job: &str, rows: &[Uuid]) -> Result<(), StoreError> {
    let mut sql = Sql::new(backend);
    let (job, rows) = (sql.bind(job), sql.ids(rows));
    sql.run(tx, &format!("DELETE FROM job_failures WHERE job = {job} AND row_id {rows}")).await.map(drop)
}

impl Ctl {
    pub(super) async fn finish(&self, held: Held, ending: &Ending) -> Result<bool, StoreError> {
        end(&self.tx, self.backend, self.now, held, ending).await
    }

    pub(super) async fn note(&self, job: &str, run: Uuid, outcome: Outcome) -> Result<(), StoreError> {
        let mut sql = self.sql();
        let run = sql.bind(id(Some(run)));
        let success = match outcome {
            Outcome::Succeeded => format!(", last_success_at = {}", sql.bind(self.now)),
            _ => String::new(),
        };
        let job = sql.bind(job);
        let text = format!("UPDATE job_schedules SET last_run_id = {run}{success} WHERE job = {job}");
        sql.run(&self.tx, &text).await.map(drop)
    }

    pub(super) async fn locked_run(&self, run: Uuid) -> Result<Option<RunRow>, StoreError> {
        let mut sql = self.sql();
        let lock = if sql.sqlite() { "" } else { "FOR UPDATE" };
        let run = sql.bind(id(Some(run)));
        let text = format!("SELECT {} FROM job_runs WHERE id = {run} {lock}", rows::RUN);
        sql.one(&self.tx, &text).await?.map(|row| rows::run(&row)).transpose()
    }

    pub(super) async fn release(&self, held: Held) -> Result<bool, StoreError> {
        let Some(mut row) = self.locked_run(held.id).await?.filter(|row| row.epoch == held.epoch) else {
            return Ok(false);
        };
        rules::release(&mut row, self.now);
        self.replace(&row, held.epoch).await
    }

    pub(super) async fn fenced(&self, held: Held) -> Result<(), StoreError> {
        let Some(mut row) = self.locked_run(held.id).await? else { return Ok(()) };
        if !rules::fence(&mut row, held) {
            return Ok(());
        }
        let attempts = serde_json::to_value(&row.attempts).map_err(|error| StoreError::Broken(error.to_string()))?;
        let mut sql = self.sql();
        let (attempts, run) = (sql.json(Some(&attempts)), sql.bind(id(Some(held.id))));
        sql.run(&self.tx, &format!("UPDATE job_runs SET attempts = {attempts} WHERE id = {run}")).await.map(drop)
    }

    pub(super) async fn record(&self, job: &str, owner: &str, run: NewRun, ending: &Ending) -> Result<(), StoreError> {
        let mut row = rules::row(job, run, self.now);
        row.owner = Some(owner.to_owned());
        row.started_at = Some(row.fire_at);
        row.queued_at = None;
        rules::end(&mut row, ending, self.now);
        self.insert_runs(&[(row, false)]).await.map(drop)
    }
}
