//! How fast due rows that need no work are dealt with, by the runners that ship, beside plain SQL on the same table.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use events::{Event, blog::PostScheduledPublished};
use scheduler::{
    Job, JobError, Scheduler,
    clock::{Clock, DatabaseClock},
    config::JobSettings,
    kinds::{Claim, Held, Lease, LeaseTake, Leased, Run, Take},
    schedule::Spec,
    store::sql::{Due, LeaseTable, SqlStore, SqlTx, Time},
};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, FromQueryResult};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use crate::{
    ID, Size,
    cpu::Cpu,
    table::{Rate, Table},
    wait,
};

pub(crate) const ROWS_A_SECOND: &str = "rows/s";
/// Rows a transaction of the limit has.
const BATCH: i64 = 1_000;

#[derive(FromQueryResult, Clone)]
pub(crate) struct Row {
    id: Uuid,
    due_at: Option<scheduler::Instant>,
}

const ROWS: Due<Row> = Due::of("rows", "id, due_at");
const LEASED: LeaseTable = LeaseTable::of("rows", "true");

async fn delete(tx: &SqlTx, ids: &[Uuid]) -> Result<(), JobError> {
    let mut sql = database::Sql::of(&**tx);
    let ids = sql.ids(ids);
    sql.run(&**tx, &format!("DELETE FROM rows WHERE id {ids}")).await.map(drop).map_err(JobError::failed)
}

/// Deletes rows that are due, with an event for each if asked to.
pub(crate) struct Burn {
    pub(crate) with_events: bool,
    pub(crate) done: Arc<AtomicU64>,
    /// Hears which rows are acted on, and when.
    pub(crate) started: Option<UnboundedSender<(Uuid, Instant)>>,
}

/// What is said of a row that was dealt with.
pub(crate) fn said(row: Uuid, due_at: Option<scheduler::Instant>, now: scheduler::Instant) -> Event {
    let (title, slug) = ("A post".to_owned(), "a-post".to_owned());
    let post = PostScheduledPublished { post_id: row, title, slug, scheduled_at: due_at, published_at: now };
    Event::of(&post, 1, now, None)
}

#[async_trait]
impl Claim<SqlTx> for Burn {
    type Row = Row;

    fn id(&self, row: &Row) -> Uuid {
        row.id
    }

    fn due_at(&self, row: &Row) -> Option<scheduler::Instant> {
        row.due_at
    }

    fn wakes_when_due(&self) -> bool {
        true
    }

    async fn next_due(&self, tx: &mut SqlTx) -> Result<Option<scheduler::Instant>, JobError> {
        ROWS.next_due(tx, "burn").await
    }

    async fn take(&self, tx: &mut SqlTx, take: &Take) -> Result<Vec<Row>, JobError> {
        ROWS.take(tx, take).await
    }

    async fn act(&self, tx: &mut SqlTx, rows: Vec<Row>, run: &Run) -> Result<(), JobError> {
        if let Some(started) = &self.started {
            let now = Instant::now();
            for row in &rows {
                started.send((row.id, now)).expect("somebody listens");
            }
        }
        if self.with_events {
            let event = |row: &Row| said(row.id, row.due_at, run.now);
            outbox::record(tx, &rows.iter().map(event).collect::<Vec<_>>()).await.map_err(JobError::failed)?;
        }
        self.done.fetch_add(rows.len() as u64, Ordering::Relaxed);
        delete(tx, &rows.iter().map(|row| row.id).collect::<Vec<_>>()).await
    }
}

/// The same by lease: asks nothing, and deletes what is still held.
struct Ask {
    done: Arc<AtomicU64>,
}

#[async_trait]
impl Lease<SqlTx> for Ask {
    type Row = Row;
    type Answer = ();

    async fn claim(&self, tx: &mut SqlTx, take: &LeaseTake) -> Result<Vec<Leased<Row>>, JobError> {
        LEASED.claim(tx, take).await
    }

    async fn ask(&self, _row: &Leased<Row>, _run: &Run) -> Result<(), JobError> {
        Ok(())
    }

    async fn lock(&self, tx: &mut SqlTx, held: &[Held]) -> Result<Vec<Held>, JobError> {
        LEASED.lock(tx, held).await
    }

    async fn settle(
        &self,
        tx: &mut SqlTx,
        answers: &[(Leased<Row>, Result<(), JobError>)],
        _run: &Run,
    ) -> Result<(), JobError> {
        self.done.fetch_add(answers.len() as u64, Ordering::Relaxed);
        delete(tx, &answers.iter().map(|(leased, _)| leased.held.id).collect::<Vec<_>>()).await
    }

    async fn renew(&self, tx: &mut SqlTx, held: &[Held], until: scheduler::Instant) -> Result<Vec<Held>, JobError> {
        LEASED.renew(tx, held, until).await
    }

    async fn release(&self, tx: &mut SqlTx, held: &[Held], now: scheduler::Instant) -> Result<(), JobError> {
        LEASED.release(tx, held, now).await
    }

    async fn next_due(&self, tx: &mut SqlTx) -> Result<Option<scheduler::Instant>, JobError> {
        LEASED.next_due(tx).await
    }

    fn slots(&self) -> usize {
        1_000
    }
}

/// A database of its own with so many due rows.
pub(crate) struct Filled {
    pub(crate) url: String,
    pub(crate) rows: PgConnection,
}

impl Filled {
    pub(crate) async fn with(count: i32) -> Self {
        let url = test_kit::database().await;
        let db = connected(&url).await;
        let tables = scheduler::tables::create(db.get_database_backend());
        for statement in tables.into_iter().chain(outbox::tables::create(db.get_database_backend())) {
            db.execute_unprepared(&statement).await.expect("a table can be made");
        }
        let mut rows = PgConnection::connect(&url).await.expect("the database answers");
        let create = "CREATE TABLE rows (id uuid PRIMARY KEY, due_at timestamptz, lease_owner text,
            lease_epoch bigint NOT NULL DEFAULT 0, attempt_count integer NOT NULL DEFAULT 0,
            lost_count integer NOT NULL DEFAULT 0)";
        rows.execute(create).await.expect("a table");
        rows.execute("CREATE INDEX rows_due ON rows (due_at, id) WHERE due_at IS NOT NULL").await.expect("an index");
        let fill = format!("INSERT INTO rows (id, due_at) SELECT {ID}, now() FROM generate_series(1, $1) n");
        sqlx::query(sqlx::AssertSqlSafe(fill)).bind(count).execute(&mut rows).await.expect("rows can be put in");
        rows.execute("VACUUM ANALYZE rows").await.expect("it can be analyzed");
        rows.execute("CHECKPOINT").await.expect("a checkpoint");
        Self { url, rows }
    }

    async fn left(&mut self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM rows").fetch_one(&mut self.rows).await.expect("a count")
    }
}

pub(crate) async fn connected(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    // As services have it: a connection is not tested each time it is lent.
    options.max_connections(8).test_before_acquire(false).sqlx_logging(false);
    Database::connect(options).await.expect("the database answers")
}

pub(crate) fn settings() -> JobSettings {
    let spec = Spec::every(Duration::from_secs(86_400));
    JobSettings { run_on_start: false, spec: spec.clone(), ..JobSettings::of(spec.schedule) }
}

/// How often sessions that wait for a lock are counted.
const SAMPLE: Duration = Duration::from_millis(50);

/// How many sessions of this database wait for a lock of another, each time they are counted.
async fn waiting_for_locks(url: &str, found: &mut Vec<f64>) {
    let mut connection = PgConnection::connect(url).await.expect("the database answers");
    let waiting = "SELECT count(*)::float8 FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'";
    loop {
        wait(SAMPLE).await;
        found.push(sqlx::query_scalar(waiting).fetch_one(&mut connection).await.expect("a count"));
    }
}

/// By runners that ship, as many as told, in this process; how many of their sessions waited for a lock, on average.
async fn replicas(count: i32, runners: usize) -> (Rate, f64) {
    let filled = Filled::with(count).await;
    let (url, mut found) = (filled.url.clone(), Vec::new());
    let rate = tokio::select! {
        rate = burned(filled, count, runners, claim) => rate,
        () = waiting_for_locks(&url, &mut found) => unreachable!("it goes on for ever"),
    };
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    (rate, found.iter().sum::<f64>() / found.len().max(1) as f64)
}

async fn one(count: i32, job: impl Fn(Arc<AtomicU64>) -> Job<SqlStore>) -> Rate {
    burned(Filled::with(count).await, count, 1, job).await
}

async fn burned(mut filled: Filled, count: i32, runners: usize, job: impl Fn(Arc<AtomicU64>) -> Job<SqlStore>) -> Rate {
    let done = Arc::new(AtomicU64::new(0));
    let mut running = Vec::new();
    let cpu = Cpu::of(&mut filled.rows).await;
    let began = Instant::now();
    for _ in 0..runners {
        let clock = DatabaseClock::new();
        let (control, work) = (connected(&filled.url).await, connected(&filled.url).await);
        let process = Arc::clone(&clock) as Arc<dyn Clock>;
        let store = SqlStore::new(control, work, "bench", Time::Database, process, None);
        running.push(Scheduler::new("bench", store, clock).job(job(Arc::clone(&done))).start());
    }
    // The last are being committed when the count is reached; then the table says it.
    while done.load(Ordering::Relaxed) < u64::from(count.unsigned_abs()) || filled.left().await > 0 {
        let _waited = tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = cpu.of_thousand(f64::from(count));
    for running in running {
        running.stop(Duration::from_secs(10)).await;
    }
    Rate { rate: f64::from(count) / seconds, cpu }
}

/// How plain SQL deals with a batch.
#[derive(Clone, Copy)]
enum Plain {
    /// Claims by an update, then completes by an update: two statements, each its own transaction.
    Update,
    /// Claims by an update, then deletes.
    Delete,
    /// Locks and deletes in one transaction, as [`Burn`] does.
    Locked,
}

async fn plain(count: i32, connections: usize, how: Plain) -> Rate {
    let mut filled = Filled::with(count).await;
    let cpu = Cpu::of(&mut filled.rows).await;
    let began = Instant::now();
    let mut workers = Vec::new();
    for _ in 0..connections {
        let connection = PgConnection::connect(&filled.url).await.expect("the database answers");
        workers.push(work(connection, how));
    }
    futures_util::future::join_all(workers).await;
    let seconds = began.elapsed().as_secs_f64();
    Rate { rate: f64::from(count) / seconds, cpu: cpu.of_thousand(f64::from(count)) }
}

async fn work(mut connection: PgConnection, how: Plain) {
    const DUE: &str = "SELECT id FROM rows WHERE due_at <= now() ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED";
    let claim = format!("UPDATE rows SET due_at = NULL, lease_owner = 'me' WHERE id = ANY (ARRAY({DUE})) RETURNING id");
    loop {
        match how {
            Plain::Locked => {
                let mut tx = connection.begin().await.expect("a transaction");
                let ids: Vec<Uuid> = sqlx::query_scalar(DUE).bind(BATCH).fetch_all(&mut *tx).await.expect("rows");
                let gone = sqlx::query("DELETE FROM rows WHERE id = ANY($1)").bind(&ids);
                gone.execute(&mut *tx).await.expect("a delete");
                tx.commit().await.expect("a commit");
                if ids.is_empty() {
                    return;
                }
            }
            Plain::Update | Plain::Delete => {
                let claim = sqlx::query_scalar(sqlx::AssertSqlSafe(claim.clone())).bind(BATCH);
                let ids: Vec<Uuid> = claim.fetch_all(&mut connection).await.expect("rows");
                let complete = if matches!(how, Plain::Update) {
                    "UPDATE rows SET lease_owner = NULL, attempt_count = attempt_count + 1 WHERE id = ANY($1)"
                } else {
                    "DELETE FROM rows WHERE id = ANY($1)"
                };
                sqlx::query(complete).bind(&ids).execute(&mut connection).await.expect("it completes");
                if ids.is_empty() {
                    return;
                }
            }
        }
    }
}

fn claim(done: Arc<AtomicU64>) -> Job<SqlStore> {
    Job::claim("burn", "", settings(), Burn { with_events: false, done, started: None })
}

fn lease(done: Arc<AtomicU64>) -> Job<SqlStore> {
    Job::lease("ask", "", settings(), Ask { done })
}

/// Rows a second that one replica deals with by `Claim`.
pub(crate) async fn capacity(size: Size) -> f64 {
    one(size.due, claim).await.rate
}

/// Our own figures in the rounds of the peers, and the limit they have in common.
pub(crate) async fn beside_peers(table: &mut Table, size: Size) {
    let limit = plain(size.due, 4, Plain::Delete).await.rate;
    let limit = Some((limit, "plain SQL, claim and delete, 4 connections"));
    table.rate("Belfry: due rows by Claim", ROWS_A_SECOND, one(size.due, claim).await, limit);
    table.rate("Belfry: due rows by Claim, 2 replicas", ROWS_A_SECOND, replicas(size.due, 2).await.0, limit);
    table.rate("Belfry: due rows by Lease", ROWS_A_SECOND, one(size.due, lease).await, limit);
}

pub(crate) async fn measure(table: &mut Table, size: Size) {
    let count = size.due;
    let plain_of = [
        ("plain SQL, claim and update, 1 connection", 1, Plain::Update),
        ("plain SQL, claim and update, 4 connections", 4, Plain::Update),
        ("plain SQL, claim and delete, 4 connections", 4, Plain::Delete),
        ("plain SQL, lock and delete, 1 connection", 1, Plain::Locked),
        ("plain SQL, lock and delete, 4 connections", 4, Plain::Locked),
    ];
    let mut limit = 0.0;
    for (name, connections, how) in plain_of {
        let burned = plain(count, connections, how).await;
        table.rate(name, ROWS_A_SECOND, burned, None);
        limit = burned.rate;
    }
    let limit = Some((limit, "plain SQL, lock and delete, 4 connections"));
    table.rate("due rows by Claim", ROWS_A_SECOND, one(count, claim).await, limit);
    table.rate("due rows by Lease", ROWS_A_SECOND, one(count, lease).await, limit);
    let told = |done| Job::claim("burn", "", settings(), Burn { with_events: true, done, started: None });
    table.rate("due rows by Claim, each with an event", ROWS_A_SECOND, one(count, told).await, limit);
}

/// The same work by more and more replicas; and four times as much of it, so that what their start costs weighs a quarter.
pub(crate) async fn scaled(table: &mut Table, size: Size) {
    for (times, of) in [(1, ""), (4, ", four times the rows")] {
        let mut best = 0.0_f64;
        for runners in [1, 2, 4, 8] {
            let (rate, waiting) = replicas(size.due * times, runners).await;
            best = best.max(rate.rate);
            let limit = Some((best, "the best of as many or fewer"));
            let of = format!("{runners} replica{}{of}", if runners == 1 { "" } else { "s" });
            table.rate(&format!("due rows by Claim, {of}"), ROWS_A_SECOND, rate, limit);
            table.put(&format!("sessions that wait for a lock, mean, {of}"), "sessions", waiting);
        }
    }
}
