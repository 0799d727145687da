//! Stores to test on, each with a clock that is driven by hand.

use std::sync::Arc;

use scheduler::{
    Instant,
    clock::{Clock, ManualClock},
    ledger::{NewRun, Wake},
    policy::Decision,
    schedule::{Overlap, Spec},
    store::{
        Announcement, Store,
        memory::MemoryStore,
        sql::{SqlStore, Time},
    },
};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, Statement};
use uuid::Uuid;

/// How long a lease lasts in these tests.
pub(crate) const LEASE: std::time::Duration = std::time::Duration::from_secs(30);

pub(crate) fn clock() -> Arc<ManualClock> {
    ManualClock::at("2026-06-01T00:00:00Z".parse().unwrap())
}

/// Something that must live as long as the store.
#[derive(Default)]
pub(crate) struct Keep {
    _folder: Option<tempfile::TempDir>,
    schema: Option<(String, String)>,
}

impl Drop for Keep {
    fn drop(&mut self) {
        let Some((url, schema)) = self.schema.take() else { return };
        // A thread and a connection of its own: those of the test belong to a runtime that waits here.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let db = Database::connect(url).await.unwrap();
                // A transaction that a failed test left open waits for this thread: do not wait for it in turn.
                let sql = format!("SET lock_timeout = '2s'; DROP SCHEMA IF EXISTS {schema} CASCADE");
                drop(db.execute_unprepared(&sql).await);
            });
        });
        drop(dropping.join());
    }
}

async fn create(db: &DatabaseConnection) {
    for statement in scheduler::tables::create(db.get_database_backend()) {
        db.execute_unprepared(&statement).await.unwrap();
    }
    let (uuid, time) = match db.get_database_backend() {
        sea_orm::DbBackend::Sqlite => ("blob", "text"),
        _ => ("uuid", "timestamptz"),
    };
    let rows = format!(
        "CREATE TABLE things (id {uuid} PRIMARY KEY, due_at {time}, done integer NOT NULL DEFAULT 0, lease_owner text,
             lease_epoch bigint NOT NULL DEFAULT 0, attempt_count integer NOT NULL DEFAULT 0,
             lost_count integer NOT NULL DEFAULT 0)"
    );
    db.execute_unprepared(&rows).await.unwrap();
    db.execute_unprepared("CREATE INDEX things_due ON things (due_at, id) WHERE due_at IS NOT NULL").await.unwrap();
}

pub(crate) fn memory(clock: &Arc<ManualClock>) -> (MemoryStore, Keep) {
    (MemoryStore::new(Arc::clone(clock) as Arc<dyn Clock>), Keep::default())
}

/// A SQLite file of this test's own.
pub(crate) async fn sqlite_db() -> (DatabaseConnection, Keep) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("test.sqlite").display());
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    let db = Database::connect(options).await.unwrap();
    create(&db).await;
    (db, Keep { _folder: Some(folder), schema: None })
}

/// A schema of this test's own in the PostgreSQL of the test run, with so many connections.
#[expect(clippy::disallowed_methods, reason = "the server of the test run is told by the environment")]
pub(crate) async fn postgres_db(connections: u32) -> (DatabaseConnection, Keep) {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL: run the tests with `make test`");
    let schema = format!("t_{}", Uuid::now_v7().simple());
    let mut options = ConnectOptions::new(url.clone());
    options.max_connections(1).sqlx_logging(false);
    let outside = Database::connect(options).await.unwrap();
    outside.execute_unprepared(&format!("CREATE SCHEMA {schema}")).await.unwrap();
    outside.close().await.unwrap();
    let mut options = ConnectOptions::new(url.clone());
    options.max_connections(connections).sqlx_logging(false).set_schema_search_path(schema.clone());
    let db = Database::connect(options).await.unwrap();
    create(&db).await;
    (db, Keep { _folder: None, schema: Some((url, schema)) })
}

/// What a question for one whole number finds.
pub(crate) async fn number(db: &DatabaseConnection, question: &str) -> i64 {
    let question = Statement::from_string(db.get_database_backend(), question);
    db.query_one_raw(question).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// A connection beside those of `db`, to the same schema.
#[expect(clippy::disallowed_methods, reason = "the server of the test run is told by the environment")]
pub(crate) async fn another(db: &DatabaseConnection) -> DatabaseConnection {
    let schema = Statement::from_string(db.get_database_backend(), "SELECT current_schema()::text");
    let schema: String = db.query_one_raw(schema).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    let mut options = ConnectOptions::new(std::env::var("DATABASE_URL").unwrap());
    options.max_connections(1).sqlx_logging(false).set_schema_search_path(schema);
    Database::connect(options).await.unwrap()
}

pub(crate) fn sql(db: &DatabaseConnection, clock: &Arc<ManualClock>) -> SqlStore {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    SqlStore::new(db.clone(), db.clone(), "test", Time::Clock(Arc::clone(&clock)), clock, None)
}

/// Runs a story on all three stores.
macro_rules! on_all_stores {
    ($story:ident) => {
        #[tokio::test]
        async fn $story() {
            let clock = crate::world::clock();
            let (store, _keep) = crate::world::memory(&clock);
            super::$story::story(store, clock).await;
            let clock = crate::world::clock();
            let (db, _keep) = crate::world::sqlite_db().await;
            super::$story::story(crate::world::sql(&db, &clock), clock).await;
            let clock = crate::world::clock();
            let (db, _keep) = crate::world::postgres_db(8).await;
            super::$story::story(crate::world::sql(&db, &clock), clock).await;
        }
    };
}
pub(crate) use on_all_stores;

pub(crate) fn announcement(job: &str, spec: &Spec) -> Announcement {
    Announcement { job: job.to_owned(), enabled: true, spec: spec.clone(), starting: true }
}

/// A run that should start.
pub(crate) fn start(key: &str, nominal: Option<Instant>, now: Instant) -> NewRun {
    NewRun {
        id: Uuid::now_v7(),
        run_key: key.to_owned(),
        wake: Wake::Tick,
        nominal_at: nominal,
        nominal_until: None,
        instants: 1,
        fire_at: nominal.unwrap_or(now),
        outcome: None,
        reason: None,
        into_run: None,
        input: None,
    }
}

/// A decision to start one run.
pub(crate) async fn decision<S: Store>(store: &S, job: &str, overlap: Overlap, nominal: Instant) -> Decision {
    let row = store.schedules(&[job.to_owned()]).await.unwrap().remove(0);
    let now = store.now().await.unwrap();
    Decision {
        job: job.to_owned(),
        seen_epoch: row.epoch,
        next_at: Some(nominal + chrono::TimeDelta::minutes(1)),
        stamp_start: false,
        ledger: Vec::new(),
        starts: vec![start(&format!("tick:{nominal}"), Some(nominal), now)],
        overlap,
        now,
    }
}

/// Waits until something holds that other threads bring about; panics after 10 s.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds().await {
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "not within 10 s: {what}");
        tokio::task::yield_now().await;
    }
}
