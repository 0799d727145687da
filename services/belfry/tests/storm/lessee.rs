//! A job that asks the outside world about rows it holds by lease, as a process of its own that can be killed. No service
//! has such a job yet.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use scheduler::{
    Instant, Job, JobError, Scheduler,
    clock::{Clock, DatabaseClock},
    config::JobSettings,
    kinds::{Held, Lease, LeaseTake, Leased, Run},
    schedule::Spec,
    store::sql::{LeaseTable, SqlStore, SqlTx, Time},
};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, FromQueryResult, Statement, Value,
};
use uuid::Uuid;

use crate::{role::Player, variable};

/// Its role.
pub(crate) const ROLE: &str = "lessee";
const DATABASE: &str = "STORM_LESSEE_DATABASE";
const LETTERS: LeaseTable = LeaseTable::of("letters", "true");

#[derive(Debug, Clone, FromQueryResult)]
struct Letter {
    id: Uuid,
}

/// Asks about each letter, and notes both the question and the answer.
struct Asker {
    outside: DatabaseConnection,
}

async fn noted(db: &impl ConnectionTrait, text: &str, row: Uuid, epoch: i64) -> Result<(), JobError> {
    let values: [Value; 2] = [row.into(), epoch.into()];
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, text, values);
    db.execute_raw(statement).await.map(drop).map_err(|error| JobError::Failed(error.to_string()))
}

#[async_trait]
impl Lease<SqlTx> for Asker {
    type Row = Letter;
    type Answer = ();

    async fn claim(&self, tx: &mut SqlTx, take: &LeaseTake) -> Result<Vec<Leased<Letter>>, JobError> {
        LETTERS.claim(tx, take).await
    }

    async fn ask(&self, row: &Leased<Letter>, _run: &Run) -> Result<(), JobError> {
        noted(&self.outside, "INSERT INTO asked (id, epoch) VALUES ($1, $2)", row.row.id, row.held.epoch).await
    }

    async fn lock(&self, tx: &mut SqlTx, held: &[Held]) -> Result<Vec<Held>, JobError> {
        LETTERS.lock(tx, held).await
    }

    async fn settle(
        &self,
        tx: &mut SqlTx,
        answers: &[(Leased<Letter>, Result<(), JobError>)],
        run: &Run,
    ) -> Result<(), JobError> {
        let next = |answer: &Result<_, _>| answer.is_err().then_some(run.now);
        let rows: Vec<_> = answers.iter().map(|(row, answer)| (row.held.id, next(answer))).collect();
        LETTERS.settle(tx, &rows).await?;
        for (row, _) in answers.iter().filter(|(_, answer)| answer.is_ok()) {
            noted(&**tx, "INSERT INTO settled (id, epoch) VALUES ($1, $2)", row.held.id, row.held.epoch).await?;
        }
        Ok(())
    }

    async fn renew(&self, tx: &mut SqlTx, held: &[Held], until: Instant) -> Result<Vec<Held>, JobError> {
        LETTERS.renew(tx, held, until).await
    }

    async fn release(&self, tx: &mut SqlTx, held: &[Held], now: Instant) -> Result<(), JobError> {
        LETTERS.release(tx, held, now).await
    }

    async fn next_due(&self, tx: &mut SqlTx) -> Result<Option<DateTime<Utc>>, JobError> {
        LETTERS.next_due(tx).await
    }
}

async fn connected(url: &str, lazy: bool) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(2).sqlx_logging(false).set_schema_search_path("lessee").connect_lazy(lazy);
    options.acquire_timeout(Duration::from_secs(4));
    Database::connect(options).await.expect("the database answers")
}

/// Makes its tables.
pub(crate) async fn prepare(url: &str) {
    let db = connected(url, false).await;
    let mut statements = vec!["CREATE SCHEMA lessee".to_owned()];
    statements.extend(scheduler::tables::create(DbBackend::Postgres));
    let own = [
        "CREATE TABLE letters (id uuid PRIMARY KEY, due_at timestamptz, lease_owner text, lease_epoch bigint NOT NULL DEFAULT 0,
             attempt_count integer NOT NULL DEFAULT 0, lost_count integer NOT NULL DEFAULT 0)",
        "CREATE TABLE asked (id uuid NOT NULL, epoch bigint NOT NULL)",
        "CREATE TABLE settled (id uuid NOT NULL, epoch bigint NOT NULL)",
    ];
    statements.extend(own.map(str::to_owned));
    for statement in statements {
        db.execute_unprepared(&statement).await.expect("a table can be made");
    }
}

/// Starts it, under a program that may end it at any moment or under none.
pub(crate) fn start(tracer: &[&str], url: &str) -> Player {
    Player::start(tracer, ROLE, &[(DATABASE, url)])
}

/// Asks for as long as it lives.
pub(crate) async fn play() {
    let Some(url) = variable(DATABASE) else { return };
    let (control, work, outside) = tokio::join!(connected(&url, true), connected(&url, true), connected(&url, true));
    let clock: Arc<dyn Clock> = DatabaseClock::new();
    let store = SqlStore::new(control, work, "lessee", Time::Database, Arc::clone(&clock), None);
    let settings = JobSettings::of(Spec::every(Duration::from_secs(1)).schedule);
    let job = Job::lease("asker", "asks about letters", settings, Asker { outside });
    let _running = Scheduler::new("lessee", store, clock).job(job).start();
    std::future::pending::<()>().await;
}
