//! Reading the ledger, rows set aside, and retention.

use uuid::Uuid;

use super::{
    Ctl, SqlStore,
    dialect::{Sql, id, time},
    rows,
};
use crate::{
    Instant, StoreError,
    ledger::{FailureRow, RunRow},
    store::{Retention, RunPage, rules},
};

/// Ends that are kept for the whole age, however many there are.
const BAD: &str = "('failed', 'timed_out', 'panicked', 'lost')";

impl Ctl {
    pub(super) async fn run(&self, run: Uuid) -> Result<Option<RunRow>, StoreError> {
        let mut sql = self.sql();
        let run = sql.bind(id(Some(run)));
        let text = format!("SELECT {} FROM job_runs WHERE id = {run}", rows::RUN);
        sql.one(&self.tx, &text).await?.map(|row| rows::run(&row)).transpose()
    }

    pub(super) async fn runs(&self, page: &RunPage) -> Result<Vec<RunRow>, StoreError> {
        let mut sql = self.sql();
        let mut wanted = format!("job = {}", sql.bind(page.job.as_str()));
        if let Some(before) = page.before {
            wanted = format!("{wanted} AND id < {}", sql.bind(id(Some(before))));
        }
        if !page.outcomes.is_empty() {
            let words: Vec<&str> = page.outcomes.iter().map(|outcome| outcome.as_str()).collect();
            wanted = format!("{wanted} AND outcome {}", sql.words(&words));
        }
        let limit = sql.bind(i64::try_from(page.limit).unwrap_or(i64::MAX));
        let text = format!("SELECT {} FROM job_runs WHERE {wanted} ORDER BY id DESC LIMIT {limit}", rows::RUN);
        rows::each(&sql.all(&self.tx, &text).await?, rows::run)
    }

    pub(super) async fn run_at(&self, job: &str, at: Instant) -> Result<Option<RunRow>, StoreError> {
        let mut sql = self.sql();
        let (job, at) = (sql.bind(job), sql.bind(at));
        let text = format!(
            "SELECT {} FROM job_runs WHERE job = {job} AND nominal_at IS NOT NULL AND nominal_at <= {at}
             ORDER BY nominal_at DESC, id DESC LIMIT 1",
            rows::RUN
        );
        sql.one(&self.tx, &text).await?.map(|row| rows::run(&row)).transpose()
    }

    pub(super) async fn previous_success(&self, job: &str) -> Result<Option<Instant>, StoreError> {
        let mut sql = self.sql();
        let job = sql.bind(job);
        let text = format!(
            "SELECT nominal_at FROM job_runs WHERE job = {job} AND nominal_at IS NOT NULL AND outcome = 'succeeded'
             ORDER BY nominal_at DESC LIMIT 1"
        );
        let row = sql.one(&self.tx, &text).await?;
        Ok(row.map(|row| row.try_get("", "nominal_at")).transpose()?)
    }

    pub(super) async fn set_aside(&self, job: &str, row_id: Uuid, error: &str) -> Result<FailureRow, StoreError> {
        let mut sql = self.sql();
        let lock = if sql.sqlite() { "" } else { "FOR UPDATE" };
        let (name, row) = (sql.bind(job), sql.bind(id(Some(row_id))));
        let text = format!("SELECT * FROM job_failures WHERE job = {name} AND row_id = {row} {lock}");
        let before = sql.one(&self.tx, &text).await?.map(|row| rows::failure(&row)).transpose()?;
        let after = rules::set_aside(before, job, row_id, error, self.now);
        let mut sql = self.sql();
        let (name, row, attempts) = (sql.bind(job), sql.bind(id(Some(row_id))), sql.bind(after.attempts));
        let (next, given_up) = (sql.bind(time(after.next_attempt_at)), sql.bind(time(after.given_up_at)));
        let error = sql.bind(after.error.as_str());
        let text = format!(
            "INSERT INTO job_failures (job, row_id, attempts, next_attempt_at, given_up_at, error)
             VALUES ({name}, {row}, {attempts}, {next}, {given_up}, {error})
             ON CONFLICT (job, row_id) DO UPDATE SET attempts = excluded.attempts,
                 next_attempt_at = excluded.next_attempt_at, given_up_at = excluded.given_up_at, error = excluded.error"
        );
        sql.run(&self.tx, &text).await?;
        Ok(after)
    }

    pub(super) async fn retry_failure(&self, job: &str, row_id: Uuid) -> Result<bool, StoreError> {
        let mut sql = self.sql();
        let (now, job, row) = (sql.bind(self.now), sql.bind(job), sql.bind(id(Some(row_id))));
        let text = format!(
            "UPDATE job_failures SET next_attempt_at = {now}, given_up_at = NULL WHERE job = {job} AND row_id = {row}"
        );
        Ok(sql.run(&self.tx, &text).await? == 1)
    }

    pub(super) async fn prune(&self, job: &str, keep: Retention) -> Result<u64, StoreError> {
        let mut sql = self.sql();
        let rows = sql.bind(i64::try_from(keep.rows).unwrap_or(i64::MAX));
        let name = sql.bind(job);
        let text = format!("SELECT id FROM job_runs WHERE job = {name} ORDER BY id DESC LIMIT 1 OFFSET {rows}");
        let beyond: Option<Uuid> = sql.one(&self.tx, &text).await?.map(|row| row.try_get("", "id")).transpose()?;

        let mut sql = self.sql();
        let (name, horizon) = (sql.bind(job), sql.bind(self.now - rules::delta(keep.age)));
        let many = match beyond {
            Some(beyond) => format!("OR (id <= {} AND outcome NOT IN {BAD})", sql.bind(id(Some(beyond)))),
            None => String::new(),
        };
        let batch = sql.bind(i64::try_from(keep.batch).unwrap_or(i64::MAX));
        let text = format!(
            "DELETE FROM job_runs WHERE id IN (SELECT id FROM job_runs WHERE job = {name} AND state = 'done'
                 AND (finished_at < {horizon} {many}) ORDER BY id LIMIT {batch}) RETURNING finished_at"
        );
        let gone = sql.all(&self.tx, &text).await?;
        let mut newest: Option<Instant> = None;
        for row in &gone {
            newest = newest.max(row.try_get("", "finished_at")?);
        }
        if let Some(newest) = newest {
            let mut sql = self.sql();
            let (newest, name) = (sql.bind(newest), sql.bind(job));
            let text = format!(
                "UPDATE job_schedules SET ledger_from = {newest} WHERE job = {name} AND ledger_from < {newest}"
            );
            sql.run(&self.tx, &text).await?;
        }
        Ok(gone.len() as u64)
    }
}

impl SqlStore {
    pub(super) async fn read_failures(
        &self,
        job: &str,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<FailureRow>, StoreError> {
        let mut sql = Sql::new(self.backend());
        let mut wanted = format!("job = {}", sql.bind(job));
        if let Some(after) = after {
            wanted = format!("{wanted} AND row_id < {}", sql.bind(id(Some(after))));
        }
        let limit = sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let text = format!("SELECT * FROM job_failures WHERE {wanted} ORDER BY row_id DESC LIMIT {limit}");
        rows::each(&self.read(sql, text).await?, rows::failure)
    }

    pub(super) async fn read_next_failure(&self, job: &str) -> Result<Option<Instant>, StoreError> {
        let mut sql = Sql::new(self.backend());
        let job = sql.bind(job);
        let now = self.bound_time().map_or_else(|| "statement_timestamp()".to_owned(), |now| sql.bind(now));
        let text = format!(
            "SELECT next_attempt_at FROM job_failures WHERE job = {job} AND given_up_at IS NULL
             AND next_attempt_at > {now} ORDER BY next_attempt_at LIMIT 1"
        );
        let rows = self.read(sql, text).await?;
        Ok(rows.first().map(|row| row.try_get("", "next_attempt_at")).transpose()?)
    }
}
