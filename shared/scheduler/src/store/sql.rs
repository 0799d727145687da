//! The store on PostgreSQL and SQLite: one set of statements, two dialects.

mod decide;
mod dialect;
mod due;
mod effects;
mod ledger;
pub mod notify;
mod ops;
mod queue;
mod rows;
mod schedules;

use std::{ops::Deref, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, QueryResult, Statement,
    TransactionOptions, TransactionTrait, sea_query::Value,
};
use tokio::sync::broadcast;

pub use self::due::{Due, LeaseTable};
use self::{dialect::Sql, notify::Notifications};
use crate::{Instant, StoreError, clock::Clock, store::Nudge};

/// A transaction that met a deadlock or a serialization failure is tried so often in all.
const TRIES: u32 = 3;
/// Statements of the scheduler itself take at most this.
const CONTROL_LIMIT: Duration = Duration::from_secs(4);
/// A step of the scheduler itself takes at most this, seen from here: a frozen peer or a lost route answers nothing.
const DEADLINE: Duration = Duration::from_secs(6);
/// A statement of a job takes at most this, whatever its timeout.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);
/// A frozen owner's rows are free again after this.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// Waiting for a lock takes at most this.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// Nudges that wait for a slow receiver, at most; more mean "look now".
const NUDGES: usize = 1024;

/// Whose time decides.
#[derive(Clone)]
pub enum Time {
    /// The database's (`statement_timestamp()`; on SQLite the process is the database).
    Database,
    /// A clock of ours, for tests that drive it by hand.
    Clock(Arc<dyn Clock>),
}

/// A store on PostgreSQL or SQLite.
#[derive(Clone)]
pub struct SqlStore {
    control: DatabaseConnection,
    work: DatabaseConnection,
    service: Arc<str>,
    time: Time,
    process: Arc<dyn Clock>,
    nudges: broadcast::Sender<Nudge>,
    notifications: Option<Arc<Notifications>>,
    /// Called before a wait that was too long is given up.
    on_deadline: Arc<dyn Fn() + Send + Sync>,
}

/// A work transaction. Dropping it rolls back.
pub struct SqlTx {
    tx: DatabaseTransaction,
    /// The store's time when it began.
    pub now: Instant,
    session: Option<i64>,
}

impl Deref for SqlTx {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &DatabaseTransaction {
        &self.tx
    }
}

impl SqlTx {
    /// Commits outside the runner (a request, say).
    pub async fn commit(self) -> Result<(), DbErr> {
        self.tx.commit().await
    }

    /// Rolls back outside the runner.
    pub async fn rollback(self) -> Result<(), DbErr> {
        self.tx.rollback().await
    }
}

/// A transaction of the scheduler itself, with the time it goes by.
struct Ctl {
    tx: DatabaseTransaction,
    now: Instant,
    backend: DbBackend,
}

/// A transaction that has begun: the time, the session's name, and whether it is its turn.
struct Opened {
    tx: DatabaseTransaction,
    now: Instant,
    session: Option<i64>,
    turn: bool,
}

/// Turns of a job at once, as [`TURN`] gives them.
const TURNS: usize = 2;
/// One of two turns of a job in the whole cluster: while one transaction writes, another may claim. It ends with the
/// transaction.
const TURN: &str = "(pg_try_advisory_xact_lock(hashtext($4), 0) OR pg_try_advisory_xact_lock(hashtext($4), 1))";

/// Work inside a control transaction; called again when the transaction must be.
type Work<T> = dyn for<'a> Fn(&'a Ctl) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync;

impl SqlStore {
    /// A store of `service`. `control`: connections of the scheduler itself; `work`: those of its jobs (on SQLite the same
    /// single writer). `process` is the clock that SQLite goes by.
    pub fn new(
        control: DatabaseConnection,
        work: DatabaseConnection,
        service: &str,
        time: Time,
        process: Arc<dyn Clock>,
        notifications: Option<Arc<Notifications>>,
    ) -> Self {
        let nudges = match &notifications {
            Some(notifications) => notifications.of(service),
            None => broadcast::Sender::new(NUDGES),
        };
        let (service, on_deadline): (Arc<str>, Arc<dyn Fn() + Send + Sync>) = (service.into(), Arc::new(|| {}));
        Self { control, work, service, time, process, nudges, notifications, on_deadline }
    }

    /// What is called before a wait for a database that does not answer is given up: its connections are not to be lent
    /// again.
    #[must_use]
    pub fn on_deadline(mut self, on_deadline: Arc<dyn Fn() + Send + Sync>) -> Self {
        self.on_deadline = on_deadline;
        self
    }

    /// Waits at most [`DEADLINE`], whatever the server does.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let mut work = std::pin::pin!(work);
        let Ok(done) = tokio::time::timeout(DEADLINE, work.as_mut()).await else {
            (self.on_deadline)();
            return Err(StoreError::Unavailable(format!("no answer within {DEADLINE:?}")));
        };
        done
    }

    fn backend(&self) -> DbBackend {
        self.control.get_database_backend()
    }

    /// The time to bind; `None` where the database says it.
    fn bound_time(&self) -> Option<Instant> {
        match &self.time {
            Time::Clock(clock) => Some(clock.now()),
            Time::Database if self.backend() == DbBackend::Sqlite => Some(self.process.now()),
            Time::Database => None,
        }
    }

    /// Runs one transaction of the scheduler itself in a task that nothing cancels: a future dropped inside BEGIN or
    /// COMMIT would poison the pool.
    async fn atomically<T: Send + 'static>(
        &self,
        work: impl for<'a> Fn(&'a Ctl) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        uncancelled(async move { store.in_time(store.tries(&work)).await }).await
    }

    /// One statement that only reads: the transaction around it is its own, and costs no trip to the server.
    async fn read(&self, sql: Sql, text: String) -> Result<Vec<QueryResult>, StoreError> {
        let store = self.clone();
        uncancelled(async move { store.in_time(sql.read(&store.control, &text)).await }).await
    }

    async fn tries<T>(&self, work: &Work<T>) -> Result<T, StoreError> {
        let mut tried = 1;
        loop {
            match self.once(work).await {
                Err(StoreError::Again(_)) if tried < TRIES => tried += 1,
                Err(StoreError::Again(text)) => return Err(StoreError::Unavailable(text)),
                other => return other,
            }
        }
    }

    async fn once<T>(&self, work: &Work<T>) -> Result<T, StoreError> {
        let Opened { tx, now, .. } = self.open(&self.control, CONTROL_LIMIT, None).await?;
        let ctl = Ctl { tx, now, backend: self.backend() };
        match work(&ctl).await {
            Ok(done) => {
                ctl.tx.commit().await?;
                Ok(done)
            }
            Err(error) => {
                // The first error is the one to tell of; a lost connection has rolled back by itself.
                if let Err(also) = ctl.tx.rollback().await {
                    tracing::debug!(error = %also, "a rollback on a lost connection");
                }
                Err(error)
            }
        }
    }

    /// BEGIN with server-side limits, and with a turn `of` a job if asked to.
    async fn open(&self, db: &DatabaseConnection, limit: Duration, of: Option<&str>) -> Result<Opened, StoreError> {
        let sqlite = self.backend() == DbBackend::Sqlite;
        let tx = db.begin_with_options(options(sqlite)).await?;
        if sqlite {
            return Ok(Opened { tx, now: self.process_or_bound(), session: None, turn: true });
        }
        let limits = [limit.min(STATEMENT_LIMIT), LOCK_LIMIT, IDLE_LIMIT].map(|limit| Value::from(millis(limit)));
        let mut values = limits.to_vec();
        values.extend(of.map(Value::from));
        let turn = if of.is_some() { TURN } else { "true" };
        let sql = format!(
            "SELECT pg_backend_pid()::bigint AS session, statement_timestamp() AS now, {turn} AS turn,
                 set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true),
                 set_config('idle_in_transaction_session_timeout', $3, true)"
        );
        let row = tx.query_one_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, values)).await?;
        let row = row.ok_or_else(|| StoreError::Broken("no answer to SELECT".to_owned()))?;
        let now = self.bound_time().map_or_else(|| row.try_get("", "now"), Ok)?;
        Ok(Opened { tx, now, session: Some(row.try_get("", "session")?), turn: row.try_get("", "turn")? })
    }

    fn process_or_bound(&self) -> Instant {
        self.bound_time().unwrap_or_else(|| self.process.now())
    }

    /// Begins a work transaction on `db`, in a task that nothing cancels.
    async fn begin_on(
        &self,
        db: DatabaseConnection,
        limit: Duration,
        of: Option<String>,
    ) -> Result<(SqlTx, Instant, bool), StoreError> {
        let store = self.clone();
        let open = async move { store.in_time(store.open(&db, limit, of.as_deref())).await };
        let Opened { tx, now, session, turn } = uncancelled(open).await?;
        Ok((SqlTx { tx, now, session }, now, turn))
    }

    /// Begins a transaction of a request on `db` (its pool), with the store's time and limits.
    pub async fn begin_request(&self, db: &DatabaseConnection) -> Result<SqlTx, StoreError> {
        self.begin_on(db.clone(), CONTROL_LIMIT, None).await.map(|(tx, ..)| tx)
    }
}

/// On SQLite a transaction is the writer at once: a deferred one fails where it should wait.
fn options(sqlite: bool) -> TransactionOptions {
    let sqlite_transaction_mode = sqlite.then_some(sea_orm::SqliteTransactionMode::Immediate);
    TransactionOptions { sqlite_transaction_mode, ..TransactionOptions::default() }
}

fn millis(limit: Duration) -> String {
    limit.as_millis().max(1).to_string()
}

/// Awaits work in a task of its own, which goes on when this future is dropped.
pub(crate) async fn uncancelled<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    #[expect(clippy::disallowed_methods, reason = "this is the place that keeps transactions from being cancelled")]
    let task = tokio::spawn(work);
    task.await.unwrap_or_else(|error| Err(StoreError::Broken(error.to_string())))
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        classify(&error)
    }
}

/// What a database error means: come back later, try the transaction again, not migrated, or broken.
fn classify(error: &DbErr) -> StoreError {
    use sea_orm::RuntimeErr::SqlxError;
    let text = error.to_string();
    let source = match error {
        DbErr::Conn(SqlxError(source)) | DbErr::Exec(SqlxError(source)) | DbErr::Query(SqlxError(source)) => source,
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => return StoreError::Unavailable(text),
        _ => return StoreError::Broken(text),
    };
    let sqlx::Error::Database(database) = source.as_ref() else {
        return match source.as_ref() {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => StoreError::Unavailable(text),
            _ => StoreError::Broken(text),
        };
    };
    let code = database.code().unwrap_or_default();
    match code.as_ref() {
        // A unique violation inside a store's operation is a race that another one won.
        "40001" | "40P01" | "23505" => StoreError::Again(text),
        "42P01" | "3F000" => StoreError::NotMigrated(text),
        "55P03" | "57014" | "25P03" | "25P02" => StoreError::Unavailable(text),
        code if code.starts_with("53") || code.starts_with("57P") || code.starts_with("08") => {
            StoreError::Unavailable(text)
        }
        // SQLITE_BUSY, SQLITE_LOCKED and their extended codes.
        "5" | "6" | "261" | "262" | "517" | "773" => StoreError::Unavailable(text),
        _ if text.contains("no such table") => StoreError::NotMigrated(text),
        _ => StoreError::Broken(text),
    }
}
