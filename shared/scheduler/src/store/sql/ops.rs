//! The store's operations on PostgreSQL and SQLite.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{Ctl, SqlStore, SqlTx, effects, notify, options, uncancelled};
use crate::{
    Instant, StoreError,
    kinds::Held,
    ledger::{Ending, FailureRow, NewRun, Outcome, Pause, ReplicaRow, RunRow, ScheduleRow},
    policy::{Decision, Resume},
    store::{
        Announcement, Decided, Enqueued, Look, Nudge, QueueOf, Recovered, Recovery, Renewal, Retention, RunPage, Store,
        Window,
    },
};

/// One atomic operation: its arguments are shared by its tries.
macro_rules! atomic {
    ($store:expr, ($($arg:ident),*), |$ctl:ident| $call:expr) => {{
        let args = Arc::new(($($arg,)*));
        $store
            .atomically(move |$ctl: &Ctl| {
                let args = Arc::clone(&args);
                Box::pin(async move {
                    let ($($arg,)*) = &*args;
                    $call.await
                })
            })
            .await
    }};
}

#[async_trait]
impl Store for SqlStore {
    type Tx = SqlTx;

    async fn now(&self) -> Result<Instant, StoreError> {
        if let Some(now) = self.bound_time() {
            return Ok(now);
        }
        let sql = Statement::from_string(DbBackend::Postgres, "SELECT statement_timestamp() AS now");
        let row = self.in_time(async { Ok(self.control.query_one_raw(sql).await?) }).await?;
        let row = row.ok_or_else(|| StoreError::Broken("no answer to SELECT".to_owned()))?;
        Ok(row.try_get("", "now")?)
    }

    async fn announce(&self, replica: &str, jobs: &[Announcement]) -> Result<Vec<ScheduleRow>, StoreError> {
        let (replica, jobs) = (replica.to_owned(), jobs.to_vec());
        atomic!(self, (replica, jobs), |ctl| ctl.announce(replica, jobs))
    }

    async fn schedules(&self, jobs: &[String]) -> Result<Vec<ScheduleRow>, StoreError> {
        self.read_schedules(jobs).await
    }

    async fn look(&self, jobs: &[String]) -> Result<Look, StoreError> {
        self.read_look(jobs).await
    }

    async fn replicas(&self, job: &str) -> Result<Vec<ReplicaRow>, StoreError> {
        self.read_replicas(job).await
    }

    async fn decide(&self, decisions: Vec<Decision>, owner: &str, lease: Duration) -> Result<Vec<Decided>, StoreError> {
        let owner = owner.to_owned();
        atomic!(self, (decisions, owner, lease), |ctl| ctl.decide(decisions, owner, *lease))
    }

    async fn enqueue(&self, job: &str, run: NewRun, limit: u64) -> Result<Enqueued, StoreError> {
        let job = job.to_owned();
        atomic!(self, (job, run, limit), |ctl| ctl.enqueue(job, run.clone(), *limit))
    }

    async fn take_queued(&self, jobs: &[QueueOf], owner: &str, lease: Duration) -> Result<Vec<RunRow>, StoreError> {
        let (jobs, owner) = (jobs.to_vec(), owner.to_owned());
        atomic!(self, (jobs, owner, lease), |ctl| ctl.take_queued(jobs, owner, *lease))
    }

    async fn running(&self, jobs: &[String]) -> Result<Vec<RunRow>, StoreError> {
        self.read_running(jobs).await
    }

    async fn recover(
        &self,
        jobs: &[Recovery],
        stale: &[(Held, i64)],
        owner: &str,
        lease: Duration,
    ) -> Result<Recovered, StoreError> {
        let (jobs, stale, owner) = (jobs.to_vec(), stale.to_vec(), owner.to_owned());
        atomic!(self, (jobs, stale, owner, lease), |ctl| ctl.recover(jobs, stale, owner, *lease))
    }

    async fn renew(&self, held: &[Held], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        let held = held.to_vec();
        atomic!(self, (held, lease), |ctl| ctl.renew(held, *lease))
    }

    async fn finish(&self, held: Held, ending: &Ending) -> Result<bool, StoreError> {
        let ending = ending.clone();
        atomic!(self, (held, ending), |ctl| ctl.finish(*held, ending))
    }

    async fn note(&self, job: &str, run: Uuid, outcome: Outcome) -> Result<(), StoreError> {
        let job = job.to_owned();
        atomic!(self, (job, run, outcome), |ctl| ctl.note(job, *run, *outcome))
    }

    async fn release(&self, held: Held) -> Result<bool, StoreError> {
        atomic!(self, (held), |ctl| ctl.release(*held))
    }

    async fn fenced(&self, held: Held) -> Result<(), StoreError> {
        atomic!(self, (held), |ctl| ctl.fenced(*held))
    }

    async fn pause(&self, job: &str, pause: &Pause) -> Result<Option<ScheduleRow>, StoreError> {
        let (job, pause) = (job.to_owned(), pause.clone());
        atomic!(self, (job, pause), |ctl| ctl.pause(job, pause))
    }

    async fn resume(&self, job: &str, resume: &Resume) -> Result<bool, StoreError> {
        let (job, resume) = (job.to_owned(), resume.clone());
        atomic!(self, (job, resume), |ctl| ctl.resume(job, resume))
    }

    async fn set_override(
        &self,
        job: &str,
        seen_epoch: i64,
        overrides: Option<Value>,
        next: (Instant, Option<Instant>),
    ) -> Result<bool, StoreError> {
        let job = job.to_owned();
        atomic!(self, (job, seen_epoch, overrides, next), |ctl| {
            ctl.set_override(job, *seen_epoch, overrides.as_ref(), *next)
        })
    }

    async fn run(&self, id: Uuid) -> Result<Option<RunRow>, StoreError> {
        atomic!(self, (id), |ctl| ctl.run(*id))
    }

    async fn runs(&self, page: &RunPage) -> Result<Vec<RunRow>, StoreError> {
        let page = page.clone();
        atomic!(self, (page), |ctl| ctl.runs(page))
    }

    async fn run_at(&self, job: &str, at: Instant) -> Result<Option<RunRow>, StoreError> {
        let job = job.to_owned();
        atomic!(self, (job, at), |ctl| ctl.run_at(job, *at))
    }

    async fn previous_success(&self, job: &str) -> Result<Option<Instant>, StoreError> {
        let job = job.to_owned();
        atomic!(self, (job), |ctl| ctl.previous_success(job))
    }

    async fn set_aside(&self, job: &str, row_id: Uuid, error: &str) -> Result<FailureRow, StoreError> {
        let (job, error) = (job.to_owned(), error.to_owned());
        atomic!(self, (job, row_id, error), |ctl| ctl.set_aside(job, *row_id, error))
    }

    async fn failures(&self, job: &str, after: Option<Uuid>, limit: u64) -> Result<Vec<FailureRow>, StoreError> {
        self.read_failures(job, after, limit).await
    }

    async fn retry_failure(&self, job: &str, row_id: Uuid) -> Result<bool, StoreError> {
        let job = job.to_owned();
        atomic!(self, (job, row_id), |ctl| ctl.retry_failure(job, *row_id))
    }

    async fn next_failure(&self, job: &str) -> Result<Option<Instant>, StoreError> {
        self.read_next_failure(job).await
    }

    async fn prune(&self, job: &str, keep: Retention) -> Result<u64, StoreError> {
        let job = job.to_owned();
        atomic!(self, (job, keep), |ctl| ctl.prune(job, *keep))
    }

    async fn begin(&self, limit: Duration) -> Result<(SqlTx, Instant), StoreError> {
        self.begin_on(self.work.clone(), limit, None).await.map(|(tx, now, _)| (tx, now))
    }

    async fn begin_read(&self) -> Result<SqlTx, StoreError> {
        let (store, sqlite) = (self.clone(), self.backend() == DbBackend::Sqlite);
        let now = self.process_or_bound();
        let begin =
            async move { store.in_time(async { Ok(store.work.begin_with_options(options(sqlite)).await?) }).await };
        Ok(SqlTx { tx: uncancelled(begin).await?, now, session: None })
    }

    async fn begin_in_turn(&self, job: &str, limit: Duration) -> Result<(SqlTx, Instant, bool), StoreError> {
        let of = format!("{}/{job}", self.service);
        self.begin_on(self.work.clone(), limit, Some(of)).await
    }

    async fn begin_control(&self, limit: Duration) -> Result<(SqlTx, Instant), StoreError> {
        self.begin_on(self.control.clone(), limit, None).await.map(|(tx, now, _)| (tx, now))
    }

    fn turns(&self) -> usize {
        if self.single_writer() { 1 } else { super::TURNS }
    }

    fn single_writer(&self) -> bool {
        self.backend() == DbBackend::Sqlite
    }

    async fn commit(&self, tx: SqlTx) -> Result<(), StoreError> {
        let store = self.clone();
        uncancelled(async move { store.in_time(async { Ok(tx.tx.commit().await?) }).await }).await
    }

    async fn rollback(&self, tx: SqlTx) -> Result<(), StoreError> {
        let store = self.clone();
        uncancelled(async move { store.in_time(async { Ok(tx.tx.rollback().await?) }).await }).await
    }

    fn session(&self, tx: &SqlTx) -> Option<i64> {
        tx.session
    }

    fn given_up(&self) {
        (self.on_deadline)();
    }

    async fn kill(&self, session: i64) -> Result<(), StoreError> {
        let sql = "SELECT pg_terminate_backend($1::int)";
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [session.into()]);
        self.in_time(async { Ok(self.control.execute_raw(statement).await.map(drop)?) }).await
    }

    async fn complete(&self, tx: &mut SqlTx, held: Held, ending: &Ending) -> Result<bool, StoreError> {
        effects::end(tx, self.backend(), tx.now, held, ending).await
    }

    async fn checkpoint(
        &self,
        tx: &mut SqlTx,
        held: Held,
        items: i64,
        cursor: Option<&Value>,
    ) -> Result<bool, StoreError> {
        effects::checkpoint(tx, self.backend(), held, items, cursor).await
    }

    async fn wait(
        &self,
        tx: &mut SqlTx,
        held: Held,
        items: i64,
        cursor: &Value,
        until: Instant,
    ) -> Result<bool, StoreError> {
        effects::wait(tx, self.backend(), held, items, cursor, until).await
    }

    async fn window(&self, tx: &mut SqlTx, window: &Window) -> Result<(), StoreError> {
        effects::window(tx, self.backend(), window).await
    }

    async fn clear_failures(&self, tx: &mut SqlTx, job: &str, rows: &[Uuid]) -> Result<(), StoreError> {
        effects::clear_failures(tx, self.backend(), job, rows).await
    }

    async fn record(&self, job: &str, owner: &str, run: NewRun, ending: &Ending) -> Result<(), StoreError> {
        let (job, owner, ending) = (job.to_owned(), owner.to_owned(), ending.clone());
        atomic!(self, (job, owner, run, ending), |ctl| ctl.record(job, owner, run.clone(), ending))
    }

    async fn nudge(&self, nudge: &Nudge) -> Result<(), StoreError> {
        if self.notifications.is_none() {
            // Nobody listening is fine: a nudge is only a hint.
            return self.nudges.send(nudge.clone()).map(drop).or(Ok(()));
        }
        let payload = notify::payload(&self.service, nudge);
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, notify::SQL, [payload.into()]);
        self.in_time(async { Ok(self.control.execute_raw(statement).await.map(drop)?) }).await
    }

    fn nudges(&self) -> broadcast::Receiver<Nudge> {
        self.nudges.subscribe()
    }
}
