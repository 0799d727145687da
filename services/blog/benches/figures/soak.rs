//! Half of the capacity for long, while an old snapshot keeps the server from clearing away what was deleted.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use scheduler::{
    Job, JobError, Scheduler,
    clock::{Clock, DatabaseClock},
    kinds::{Claim, Run, Take},
    store::sql::{SqlStore, SqlTx, Time},
};
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::{
    ID, Size,
    burn::{Burn, Filled, Row, capacity, connected, settings},
    percentiles,
    table::Table,
    wait,
};

/// Rows are put in so often.
const EVERY: Duration = Duration::from_millis(50);
/// Such a part of the whole is its beginning, and its end.
const PART: u32 = 10;

/// [`Burn`], and how long each claim took.
struct Timed {
    burn: Burn,
    claims: Arc<Mutex<Vec<f64>>>,
}

#[async_trait]
impl Claim<SqlTx> for Timed {
    type Row = Row;

    fn id(&self, row: &Row) -> Uuid {
        self.burn.id(row)
    }

    fn due_at(&self, row: &Row) -> Option<scheduler::Instant> {
        self.burn.due_at(row)
    }

    fn wakes_when_due(&self) -> bool {
        true
    }

    async fn next_due(&self, tx: &mut SqlTx) -> Result<Option<scheduler::Instant>, JobError> {
        self.burn.next_due(tx).await
    }

    async fn take(&self, tx: &mut SqlTx, take: &Take) -> Result<Vec<Row>, JobError> {
        let began = Instant::now();
        let rows = self.burn.take(tx, take).await;
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed().as_secs_f64() * 1_000.0);
        rows
    }

    async fn act(&self, tx: &mut SqlTx, rows: Vec<Row>, run: &Run) -> Result<(), JobError> {
        self.burn.act(tx, rows, run).await
    }
}

/// What a part of the time came to.
struct Part {
    rate: f64,
    claim_p99: f64,
}

pub(crate) async fn measure(table: &mut Table, size: Size) {
    let half = capacity(size).await / 2.0;
    let mut filled = Filled::with(0).await;
    let mut old = PgConnection::connect(&filled.url).await.expect("the database answers");
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM rows").await.expect("a snapshot");
    let (done, claims) = (Arc::new(AtomicU64::new(0)), Arc::default());
    let clock = DatabaseClock::new();
    let (control, work) = (connected(&filled.url).await, connected(&filled.url).await);
    let store = SqlStore::new(control, work, "bench", Time::Database, Arc::clone(&clock) as Arc<dyn Clock>, None);
    let burn = Burn { with_events: false, done: Arc::clone(&done), started: None };
    let job = Timed { burn, claims: Arc::clone(&claims) };
    let running = Scheduler::new("bench", store, clock).job(Job::claim("burn", "", settings(), job)).start();
    let (began, mut put, mut parts, mut dealt_with) = (Instant::now(), 0_i64, Vec::new(), 0);
    for part in 1..=PART {
        let since = Instant::now();
        while began.elapsed() < size.soak * part / PART {
            #[expect(clippy::cast_possible_truncation, reason = "so many rows by now")]
            let wanted = (began.elapsed().as_secs_f64() * half) as i64 - put;
            let insert =
                format!("INSERT INTO rows (id, due_at) SELECT {ID}, now() FROM generate_series(1, $1::bigint) n");
            sqlx::query(sqlx::AssertSqlSafe(insert))
                .bind(wanted)
                .execute(&mut filled.rows)
                .await
                .expect("rows can be put in");
            put += wanted;
            running.handle().changed();
            wait(EVERY).await;
        }
        let now = done.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = (now - dealt_with) as f64 / since.elapsed().as_secs_f64();
        dealt_with = now;
        let (_, claim_p99) = percentiles(std::mem::take(&mut *claims.lock().unwrap_or_else(PoisonError::into_inner)));
        eprintln!("  soak, part {part} of {PART}: {rate:.0} rows/s, a claim's p99 {claim_p99:.1} ms");
        parts.push(Part { rate, claim_p99 });
    }
    let size_of = "SELECT (pg_total_relation_size('rows') / 1048576.0)::float8";
    let mib: f64 = sqlx::query_scalar(size_of).fetch_one(&mut filled.rows).await.expect("a size");
    let ledger: i64 =
        sqlx::query_scalar("SELECT count(*) FROM job_runs").fetch_one(&mut filled.rows).await.expect("a count");
    running.stop(Duration::from_secs(10)).await;
    old.close().await.expect("the snapshot ends");
    let (first, last) = (&parts[0], &parts[parts.len() - 1]);
    table.put("rows put in while an old snapshot is held", "rows/s", half);
    table.put_beside("rows dealt with in the last tenth", "rows/s", last.rate, Some((first.rate, "the first tenth")));
    table.put_beside(
        "a claim in the last tenth, p99",
        "ms",
        last.claim_p99,
        Some((first.claim_p99, "the first tenth")),
    );
    table.put("the table afterwards, with what could not be cleared away", "MiB", mib);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    table.put("rows of the ledger afterwards", "rows", ledger as f64);
}
