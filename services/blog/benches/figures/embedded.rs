//! What runs without servers: due rows on SQLite, and the embedded log, each beside plain SQL on a file that is kept as well.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use broker::{Broker, EmbeddedBroker, Position, Record, Topic};
use database::{Cells, Sql};
use scheduler::{
    Job, Scheduler,
    clock::{Clock, DatabaseClock},
    store::sql::{SqlStore, Time},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};
use sqlx::{Connection, Executor, QueryBuilder, Sqlite, SqliteConnection, sqlite};
use uuid::Uuid;

use crate::{
    Size,
    burn::{Burn, ROWS_A_SECOND, said, settings},
    cpu::Cpu,
    table::{Rate, Table},
    wait,
};

/// Rows a transaction of the limits has.
const BATCH: usize = 1_000;
/// Records an append has, as the relay sends them, and a poll brings at most.
const RECORDS: usize = 2_000;
/// Rows of one INSERT; SQLite takes 32,766 parameters.
const TOGETHER: usize = 1_000;
const BODY: usize = 600;
const TOPIC: &str = "blog.post.published";

/// A file with so many due rows.
async fn filled(file: &Path, count: usize) -> DatabaseConnection {
    let db = database::sqlite(file);
    let tables =
        scheduler::tables::create(DbBackend::Sqlite).into_iter().chain(outbox::tables::create(DbBackend::Sqlite));
    let own = [
        "CREATE TABLE rows (id blob PRIMARY KEY, due_at text)",
        "CREATE INDEX rows_due ON rows (due_at, id) WHERE due_at IS NOT NULL",
    ];
    for statement in tables.chain(own.map(str::to_owned)) {
        db.execute_unprepared(&statement).await.expect("a table can be made");
    }
    let due: scheduler::Instant = "2026-01-01T00:00:00Z".parse().expect("a time");
    for _ in 0..count / BATCH {
        let mut sql = Sql::of(&db);
        let ids = (0..BATCH).map(|_| Uuid::now_v7()).collect();
        let rows = sql.rows([("id", Cells::Uuid(ids)), ("due", Cells::Time(vec![due; BATCH]))]);
        sql.run(&db, &format!("INSERT INTO rows SELECT x.id, x.due FROM {rows} WHERE true")).await.expect("rows");
    }
    db.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await.expect("a checkpoint");
    db
}

fn rate(count: usize, took: Duration, cpu: &Cpu) -> Rate {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let count = count as f64;
    Rate { rate: count / took.as_secs_f64(), cpu: cpu.of_thousand(count) }
}

/// Due rows by the runner that ships.
async fn claimed(count: usize, with_events: bool) -> Rate {
    let folder = tempfile::tempdir().expect("a folder");
    let db = filled(&folder.path().join("rows.sqlite"), count).await;
    let done = Arc::new(AtomicU64::new(0));
    let clock = DatabaseClock::new();
    let process = Arc::clone(&clock) as Arc<dyn Clock>;
    let store = SqlStore::new(db.clone(), db.clone(), "bench", Time::Database, process, None);
    let burn = Burn { with_events, done: Arc::clone(&done), started: None };
    let (began, cpu) = (Instant::now(), Cpu::here());
    let running = Scheduler::new("bench", store, clock).job(Job::claim("burn", "", settings(), burn)).start();
    while done.load(Ordering::Relaxed) < count as u64 {
        wait(Duration::from_millis(1)).await;
    }
    // The last batch is being committed: whoever asks the one connection after it has waited for that.
    let left = Sql::of(&db).one(&db, "SELECT count(*) AS n FROM rows").await.expect("an answer").expect("a row");
    let rate = rate(count, began.elapsed(), &cpu);
    assert_eq!(left.try_get::<i64>("", "n").expect("a count"), 0, "all are dealt with");
    running.stop(Duration::from_secs(10)).await;
    rate
}

/// A connection whose commits are on the disk.
async fn plain(file: &Path) -> SqliteConnection {
    let options = sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let options = options.journal_mode(sqlite::SqliteJournalMode::Wal).synchronous(sqlite::SqliteSynchronous::Full);
    SqliteConnection::connect_with(&options).await.expect("a file")
}

/// Headers as they are kept: a list of names and values, as JSON.
fn kept_headers(headers: &[(String, Vec<u8>)]) -> String {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
    serde_json::json!(headers).to_string()
}

/// The same by plain SQL: select and delete a batch, with an event of as many bytes for each if asked to, encoded before.
async fn deleted(count: usize, with_events: bool) -> Rate {
    let now: scheduler::Instant = "2026-01-01T00:00:00Z".parse().expect("a time");
    let event = said(Uuid::now_v7(), Some(now), now);
    let (body, headers) = (event.to_json(), kept_headers(&event.headers()));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rows.sqlite");
    filled(&file, count).await.close().await.expect("it can be closed");
    let mut db = plain(&file).await;
    let (began, cpu) = (Instant::now(), Cpu::here());
    loop {
        let mut tx = db.begin_with("BEGIN IMMEDIATE").await.expect("a transaction");
        let due = "SELECT id FROM rows WHERE due_at <= '2026-06-01' ORDER BY due_at, id LIMIT 1000";
        let ids: Vec<Uuid> = sqlx::query_scalar(due).fetch_all(&mut *tx).await.expect("rows");
        if ids.is_empty() {
            break;
        }
        if with_events {
            let mut insert = QueryBuilder::<Sqlite>::new(
                "INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at) ",
            );
            insert.push_values(&ids, |mut row, id| {
                row.push_bind(Uuid::now_v7()).push_bind("blog.post.scheduled.published").push_bind(id.to_string());
                row.push_bind(1).push_bind(&body[..]).push_bind(&headers).push_bind("2026-01-01T00:00:00.000000Z");
            });
            insert.build().execute(&mut *tx).await.expect("events");
            let wait = "INSERT INTO outbox_waiting SELECT position, key FROM outbox ORDER BY position DESC LIMIT $1";
            sqlx::query(wait)
                .bind(i64::try_from(ids.len()).expect("a count"))
                .execute(&mut *tx)
                .await
                .expect("they wait");
        }
        let mut delete = QueryBuilder::<Sqlite>::new("DELETE FROM rows WHERE id IN (");
        let mut list = delete.separated(", ");
        for id in &ids {
            list.push_bind(id);
        }
        delete.push(")");
        delete.build().execute(&mut *tx).await.expect("a delete");
        tx.commit().await.expect("a commit");
    }
    rate(count, began.elapsed(), &cpu)
}

fn record(number: usize) -> Record {
    let (topic, key) = (TOPIC.to_owned(), (number % 5_000).to_string());
    let headers = vec![("event_type".to_owned(), TOPIC.as_bytes().to_vec())];
    Record { id: Uuid::now_v7(), topic, key, body: vec![b'x'; BODY].into(), headers }
}

/// Records appended to the embedded log a second, and read by a member of a group.
async fn logged(count: usize) -> (Rate, Rate) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = EmbeddedBroker::open(&folder.path().join("log.sqlite")).await.expect("a log");
    let (producer, topic) = (log.producer(), Topic::from(events::by_name(TOPIC).expect("a type")));
    producer.ensure_topics(&[topic]).await.expect("a topic");
    let (mut appended, cpu) = (Duration::ZERO, Cpu::here());
    for batch in 0..count / RECORDS {
        let records: Vec<Record> = (0..RECORDS).map(|number| record(batch * RECORDS + number)).collect();
        let began = Instant::now();
        assert!(producer.send(records).await.iter().all(Result::is_ok), "they are kept");
        appended += began.elapsed();
    }
    let mut member = log.consumer("bench", &[TOPIC]).await.expect("a member");
    let append = rate(count, appended, &cpu);
    let (began, cpu, mut read) = (Instant::now(), Cpu::here(), 0);
    while read < count {
        let messages = member.poll(RECORDS, Duration::from_secs(1)).await.expect("records");
        read += messages.len();
        let last = messages.last().expect("there are more");
        let last = Position { topic: TOPIC.to_owned(), partition: last.partition, offset: last.offset };
        member.commit(&[last]).await.expect("a commit");
    }
    (append, rate(count, began.elapsed(), &cpu))
}

/// The same by plain SQL on a table of as many columns: inserted by batches, and read by batches with a position kept.
async fn kept(count: usize) -> (Rate, Rate) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut db = plain(&folder.path().join("log.sqlite")).await;
    let table = "CREATE TABLE events (topic text NOT NULL, offset integer NOT NULL, id blob NOT NULL, key text NOT NULL,
        body blob NOT NULL, headers text NOT NULL, at text NOT NULL, PRIMARY KEY (topic, offset), UNIQUE (id)) WITHOUT ROWID";
    db.execute(table).await.expect("a table");
    db.execute("CREATE TABLE groups (name text PRIMARY KEY, next integer NOT NULL)").await.expect("a table");
    let headers = kept_headers(&record(0).headers);
    let (mut appended, cpu) = (Duration::ZERO, Cpu::here());
    for batch in 0..count / RECORDS {
        let records: Vec<(usize, Record)> =
            (batch * RECORDS..(batch + 1) * RECORDS).map(|number| (number, record(number))).collect();
        let began = Instant::now();
        let mut tx = db.begin_with("BEGIN IMMEDIATE").await.expect("a transaction");
        for records in records.chunks(TOGETHER) {
            let mut insert =
                QueryBuilder::<Sqlite>::new("INSERT INTO events (topic, offset, id, key, body, headers, at) ");
            insert.push_values(records, |mut row, (number, record)| {
                row.push_bind(&record.topic).push_bind(i64::try_from(*number).expect("a number")).push_bind(record.id);
                row.push_bind(&record.key).push_bind(&record.body[..]);
                row.push_bind(&headers).push_bind("2026-01-01T00:00:00.000000Z");
            });
            insert.build().execute(&mut *tx).await.expect("records");
        }
        tx.commit().await.expect("a commit");
        appended += began.elapsed();
    }
    let append = rate(count, appended, &cpu);
    let (began, cpu, mut next) = (Instant::now(), Cpu::here(), 0);
    while next < count {
        let select = "SELECT topic, offset, key, body, headers, at FROM events WHERE topic = $1 AND offset >= $2 ORDER BY offset LIMIT $3";
        let at = |number: usize| i64::try_from(number).expect("a number");
        let rows = sqlx::query(select).bind(TOPIC).bind(at(next)).bind(at(RECORDS)).fetch_all(&mut db).await;
        next += rows.expect("records").len();
        let keep = "INSERT INTO groups VALUES ('bench', $1) ON CONFLICT (name) DO UPDATE SET next = excluded.next";
        sqlx::query(keep).bind(at(next)).execute(&mut db).await.expect("a position");
    }
    (append, rate(count, began.elapsed(), &cpu))
}

pub(crate) async fn measure(table: &mut Table, size: Size) {
    let count = usize::try_from(size.burst).expect("a count");
    for (what, with_events) in [("due rows by Claim", false), ("due rows by Claim, each with an event", true)] {
        let limit = deleted(count, with_events).await;
        let ours = claimed(count, with_events).await;
        table.rate(&format!("plain SQL on SQLite: {what}"), ROWS_A_SECOND, limit, None);
        table.rate(&format!("SQLite: {what}"), ROWS_A_SECOND, ours, Some((limit.rate, "plain SQL on SQLite")));
    }
    let (append, read) = kept(count * 2).await;
    let (appended, polled) = logged(count * 2).await;
    for (what, ours, limit) in [("appended", appended, append), ("read", polled, read)] {
        table.rate(&format!("plain SQL on SQLite: {what}"), "events/s", limit, None);
        table.rate(&format!("embedded log: {what}"), "events/s", ours, Some((limit.rate, "plain SQL on SQLite")));
    }
}
