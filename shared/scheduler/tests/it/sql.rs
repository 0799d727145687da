//! What only a database can break: statements, indexes, sessions, notifications.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use scheduler::{
    JobError, StoreError,
    clock::{Clock, DatabaseClock},
    kinds::{Held, LeaseTake, Take},
    ledger::Ending,
    schedule::{Overlap, Spec},
    store::{
        Decided, Nudge, Store,
        sql::{Due, LeaseTable, SqlStore, Time, notify::Notifications},
    },
};
use sea_orm::{ConnectionTrait, DatabaseConnection, FromQueryResult, Statement, TransactionTrait};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::{self, LEASE};

#[derive(FromQueryResult, Debug, Clone, PartialEq)]
struct Thing {
    id: Uuid,
}

const THINGS: Due<Thing> = Due::of("things", "id");
const LEASED: LeaseTable = LeaseTable::of("things", "true");

async fn put(db: &DatabaseConnection, count: usize, due_at: Option<scheduler::Instant>) -> Vec<Uuid> {
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    for id in &ids {
        let (sql, values) = ("INSERT INTO things (id, due_at) VALUES ($1, $2)", [(*id).into(), due_at.into()]);
        db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await.unwrap();
    }
    ids
}

fn take(store_now: scheduler::Instant, limit: u64) -> Take {
    Take { job: "job".to_owned(), now: store_now, limit, only: None, after: None }
}

/// Claims, set-aside rows and the next due time, alike on both databases.
async fn due_rows(db: DatabaseConnection) {
    let clock = world::clock();
    let store = world::sql(&db, &clock);
    let now = clock.now();
    let late = put(&db, 2, Some(now - TimeDelta::minutes(5))).await;
    let due = put(&db, 2, Some(now)).await;
    put(&db, 1, None).await;
    let ahead = now + TimeDelta::minutes(5);
    put(&db, 1, Some(ahead)).await;
    store.set_aside("job", late[0], "bad").await.unwrap();
    let (tx, _) = store.begin(LEASE).await.unwrap();
    let rows = THINGS.take(&tx, &take(now, 10)).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [late[1], due[0], due[1]], "oldest first");
    let only = Take { only: Some(vec![due[1]]), ..take(now, 10) };
    assert_eq!(THINGS.take(&tx, &only).await.unwrap(), [Thing { id: due[1] }]);
    assert_eq!(THINGS.take(&tx, &take(now, 1)).await.unwrap().len(), 1);
    assert_eq!(THINGS.next_due(&tx, "job").await.unwrap(), Some(now - TimeDelta::minutes(5)));
    store.rollback(tx).await.unwrap();
}

#[tokio::test]
async fn due_rows_are_taken_oldest_first_without_those_set_aside() {
    let (db, _keep) = world::sqlite_db().await;
    due_rows(db).await;
    let (db, _keep) = world::postgres_db(4).await;
    due_rows(db).await;
}

async fn leased_rows(db: DatabaseConnection) {
    let clock = world::clock();
    let store = world::sql(&db, &clock);
    put(&db, 3, Some(clock.now())).await;
    let claim = async |owner: &str| {
        let (tx, now) = store.begin(LEASE).await.unwrap();
        let take =
            LeaseTake { now, until: now + TimeDelta::seconds(30), owner: owner.to_owned(), limit: 2, after: None };
        let rows = LEASED.claim::<Thing>(&tx, &take).await.unwrap();
        store.commit(tx).await.unwrap();
        rows
    };
    let first = claim("a").await;
    assert_eq!(first.iter().map(|row| (row.attempt, row.lost, row.held.epoch)).collect::<Vec<_>>(), [(1, 0, 1); 2]);
    assert_eq!(claim("b").await.len(), 1, "what is leased is not due");
    let held: Vec<Held> = first.iter().map(|row| row.held).collect();
    clock.advance(Duration::from_secs(20));
    let (tx, now) = store.begin(LEASE).await.unwrap();
    assert_eq!(LEASED.renew(&tx, &held, now + TimeDelta::seconds(30)).await.unwrap().len(), 2);
    store.commit(tx).await.unwrap();
    clock.advance(Duration::from_secs(31));
    let heirs = claim("c").await;
    assert_eq!(heirs.iter().map(|row| (row.attempt, row.lost)).collect::<Vec<_>>(), [(1, 1); 2], "the same attempt");
    let (tx, now) = store.begin(LEASE).await.unwrap();
    let lost: Vec<Held> = LEASED.lock(&tx, &held).await.unwrap();
    let still: Vec<Held> =
        heirs.iter().map(|row| row.held).filter(|heir| held.iter().any(|held| held.id == heir.id)).collect();
    assert!(lost.len() + still.len() == 2 || lost.is_empty(), "an old epoch locks nothing that was taken over");
    assert!(lost.iter().all(|lost| !heirs.iter().any(|heir| heir.held.id == lost.id)));
    let heir = heirs[0].held;
    LEASED.settle(&tx, &[(heir.id, None)]).await.unwrap();
    LEASED.release(&tx, &[heirs[1].held], now).await.unwrap();
    assert!(LEASED.lock(&tx, &[heir]).await.unwrap().is_empty(), "what is settled is held no more");
    store.commit(tx).await.unwrap();
    let (tx, _) = store.begin(LEASE).await.unwrap();
    assert!(LEASED.next_due(&tx).await.unwrap().is_some());
    store.rollback(tx).await.unwrap();
}

#[tokio::test]
async fn leases_are_claimed_renewed_taken_over_settled_and_given_back() {
    let (db, _keep) = world::sqlite_db().await;
    leased_rows(db).await;
    let (db, _keep) = world::postgres_db(4).await;
    leased_rows(db).await;
}

#[tokio::test]
async fn rows_that_another_has_locked_are_left_out_and_nobody_waits() {
    let (db, _keep) = world::postgres_db(4).await;
    let clock = world::clock();
    let store = world::sql(&db, &clock);
    put(&db, 10, Some(clock.now())).await;
    let (one, now) = store.begin(LEASE).await.unwrap();
    let (two, _) = store.begin(LEASE).await.unwrap();
    let first = THINGS.take(&one, &take(now, 6)).await.unwrap();
    let second = THINGS.take(&two, &take(now, 6)).await.unwrap();
    assert_eq!((first.len(), second.len()), (6, 4));
    assert!(first.iter().all(|row| !second.contains(row)));
    store.rollback(one).await.unwrap();
    store.rollback(two).await.unwrap();
}

#[tokio::test]
async fn rows_behind_another_are_taken_without_it() {
    let (db, _keep) = world::postgres_db(4).await;
    let clock = world::clock();
    let store = world::sql(&db, &clock);
    put(&db, 10, Some(clock.now())).await;
    let (tx, now) = store.begin(LEASE).await.unwrap();
    let all = THINGS.take(&tx, &take(now, 10)).await.unwrap();
    let behind = Take { after: Some((clock.now(), all[6].id)), ..take(now, 10) };
    assert_eq!(THINGS.take(&tx, &behind).await.unwrap(), all[7..]);
    store.rollback(tx).await.unwrap();
}

#[tokio::test]
async fn rows_are_looked_up_and_no_table_is_read_for_what_is_held() {
    let (db, _keep) = world::postgres_db(4).await;
    let store = world::sql(&db, &world::clock());
    let many = "INSERT INTO things (id, due_at) SELECT gen_random_uuid(), '2020-01-01' FROM generate_series(1, 20000)";
    db.execute_unprepared(many).await.unwrap();
    db.execute_unprepared("ANALYZE things").await.unwrap();
    let (tx, now) = store.begin(LEASE).await.unwrap();
    let (until, owner) = (now + TimeDelta::seconds(30), "one".to_owned());
    // What this connection has counted so far is of other transactions too.
    let scans = async || {
        let count = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'things'::regclass";
        let row = tx.query_one_raw(Statement::from_string(db.get_database_backend(), count)).await.unwrap().unwrap();
        row.try_get::<i64>("", "seq_scan").unwrap()
    };
    let before = scans().await;
    let looked_up = async |to: &str| assert_eq!(scans().await, before, "the whole table was read to {to}");
    let leased = LEASED.claim::<Thing>(&tx, &LeaseTake { now, until, owner, limit: 1_000, after: None }).await.unwrap();
    looked_up("claim").await;
    let held: Vec<Held> = leased.iter().map(|row| row.held).collect();
    assert_eq!(LEASED.lock(&tx, &held).await.unwrap().len(), 1_000);
    looked_up("lock").await;
    assert_eq!(LEASED.renew(&tx, &held, until).await.unwrap().len(), 1_000);
    looked_up("renew").await;
    LEASED.settle(&tx, &held[..500].iter().map(|held| (held.id, Some(until))).collect::<Vec<_>>()).await.unwrap();
    looked_up("settle").await;
    LEASED.release(&tx, &held[500..], now).await.unwrap();
    looked_up("give back").await;
    store.rollback(tx).await.unwrap();
}

#[tokio::test]
async fn finding_due_rows_reads_the_partial_index_among_a_hundred_thousand_that_are_not() {
    let (db, _keep) = world::postgres_db(2).await;
    let many = "INSERT INTO things (id, due_at) SELECT gen_random_uuid(),
        CASE WHEN n % 100 = 0 THEN now() + n * interval '1 second' END FROM generate_series(1, 100000) n";
    db.execute_unprepared(many).await.unwrap();
    db.execute_unprepared("ANALYZE things").await.unwrap();
    let tx = db.begin().await.unwrap();
    // A prepared statement with a generic plan is what runs after five executions.
    tx.execute_unprepared("SET LOCAL plan_cache_mode = force_generic_plan").await.unwrap();
    tx.execute_unprepared(
        "PREPARE due(timestamptz, bigint) AS SELECT id FROM things WHERE due_at <= $1 AND NOT EXISTS
         (SELECT 1 FROM job_failures f WHERE f.job = 'job' AND f.row_id = things.id) ORDER BY due_at, id LIMIT $2
         FOR UPDATE SKIP LOCKED",
    )
    .await
    .unwrap();
    let explain = Statement::from_string(db.get_database_backend(), "EXPLAIN EXECUTE due(now(), 500)");
    let plan: Vec<String> =
        tx.query_all_raw(explain).await.unwrap().iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    tx.rollback().await.unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Scan using things_due"), "{plan}");
    assert!(!plan.contains("Seq Scan on things"), "{plan}");
}

#[tokio::test]
async fn a_future_dropped_inside_begin_or_commit_poisons_no_connection() {
    let (db, _keep) = world::postgres_db(1).await;
    let (other, clock) = (world::another(&db).await, world::clock());
    let store = world::sql(&db, &clock);
    let backend = db.get_database_backend();
    for round in 0..400 {
        let dropped = async {
            let (tx, _) = store.begin(LEASE).await?;
            store.commit(tx).await
        };
        let _timed_out = tokio::time::timeout(Duration::from_micros(round * 3), dropped).await;
        // Outside any transaction, on the one connection there is: if a BEGIN was left behind, nobody ever sees this.
        let (sql, id) = ("INSERT INTO things (id) VALUES ($1)", Uuid::now_v7());
        db.execute_raw(Statement::from_sql_and_values(backend, sql, [id.into()])).await.unwrap();
        let sql = "SELECT 1 FROM things WHERE id = $1";
        let found = other.query_one_raw(Statement::from_sql_and_values(backend, sql, [id.into()])).await.unwrap();
        assert!(found.is_some(), "a statement after a drop at {} µs is not inside somebody's transaction", round * 3);
    }
}

#[tokio::test]
async fn statements_locks_and_idle_transactions_end_by_the_servers_clock() {
    let (db, _keep) = world::postgres_db(2).await;
    let store = world::sql(&db, &world::clock());
    let (tx, _) = store.begin(Duration::from_millis(50)).await.unwrap();
    let slow = tx.execute_unprepared("SELECT pg_sleep(20)").await.unwrap_err();
    let error = JobError::from(StoreError::from(slow));
    assert!(error.is_transient(), "a timeout counts against no row: {error}");
    drop(tx);
    let limits = "SELECT current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')";
    let (tx, _) = store.begin(LEASE).await.unwrap();
    let row = tx.query_one_raw(Statement::from_string(db.get_database_backend(), limits)).await.unwrap().unwrap();
    let [lock, idle]: [String; 2] = [0, 1].map(|at| row.try_get_by_index(at).unwrap());
    assert_eq!((lock.as_str(), idle.as_str()), ("5s", "10s"));
    store.rollback(tx).await.unwrap();
}

#[tokio::test]
async fn a_session_whose_owner_does_not_react_can_be_ended() {
    let (db, _keep) = world::postgres_db(2).await;
    let store = world::sql(&db, &world::clock());
    put(&db, 1, None).await;
    let (tx, _) = store.begin(LEASE).await.unwrap();
    tx.execute_unprepared("UPDATE things SET done = 1").await.unwrap();
    let session = store.session(&tx).expect("PostgreSQL names its sessions");
    store.kill(session).await.unwrap();
    assert!(store.commit(tx).await.is_err());
    let done = Statement::from_string(db.get_database_backend(), "SELECT 1 FROM things WHERE done = 1");
    assert!(db.query_one_raw(done).await.unwrap().is_none());
}

#[tokio::test]
async fn a_nudge_crosses_replicas_and_a_connection_that_is_lost_means_look_everywhere() {
    let (db, _keep) = world::postgres_db(2).await;
    let clock = DatabaseClock::new();
    let stop = CancellationToken::new();
    let options = sea_orm_url();
    let store = || {
        let heard = Notifications::listen(options.clone(), stop.clone());
        let process = Arc::clone(&clock) as Arc<dyn Clock>;
        SqlStore::new(db.clone(), db.clone(), "test_nudges", Time::Database, process, Some(heard))
    };
    let (here, there) = (store(), store());
    let (mut ours, mut theirs) = (here.nudges(), there.nudges());
    assert_eq!(theirs.recv().await.unwrap().job, "*", "it begins with a look everywhere");
    assert_eq!(ours.recv().await.unwrap().job, "*");
    let nudge = Nudge { job: "job".to_owned(), due: Some(here.now().await.unwrap()), by: "here".to_owned() };
    here.nudge(&nudge).await.unwrap();
    assert_eq!(theirs.recv().await.unwrap(), nudge);
    assert_eq!(ours.recv().await.unwrap(), nudge, "the runner knows its own by their name");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%belfry%'";
    db.execute_unprepared(cut).await.unwrap();
    assert_eq!(theirs.recv().await.unwrap().job, "*", "what was said meanwhile may be lost");
    stop.cancel();
}

#[expect(clippy::disallowed_methods, reason = "the server of the test run is told by the environment")]
fn sea_orm_url() -> sqlx::postgres::PgConnectOptions {
    std::env::var("DATABASE_URL").unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_store_without_tables_says_so_and_one_that_is_away_says_that() {
    let (db, _keep) = world::postgres_db(1).await;
    db.execute_unprepared("DROP TABLE job_schedules").await.unwrap();
    let store = world::sql(&db, &world::clock());
    assert!(matches!(store.schedules(&[]).await, Err(StoreError::NotMigrated(_))));
    db.close().await.unwrap();
    let error = store.schedules(&[]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_run_that_ends_while_a_newer_one_is_decided_is_not_asked_to_stop_and_the_newer_one_starts() {
    let (db, _keep) = world::postgres_db(4).await;
    let clock = world::clock();
    let store = world::sql(&db, &clock);
    let jobs = ["first", "second"];
    let announced = jobs.map(|job| world::announcement(job, &Spec::every(Duration::from_secs(60))));
    store.announce("a", &announced).await.unwrap();
    let at = |store: SqlStore, seconds| async move {
        let at = world::clock().now() + TimeDelta::seconds(seconds);
        let mut decisions = Vec::new();
        for job in jobs {
            decisions.push(world::decision(&store, job, Overlap::CancelOther, at).await);
        }
        store.decide(decisions, "a", LEASE).await.unwrap()
    };
    let held = |decided: &Decided| Held { id: decided.started[0].id, epoch: decided.started[0].epoch };
    let going = at(store.clone(), 0).await;
    // The decision waits at the first job's run, after its insert of both newer runs was refused.
    let lock = db.begin().await.unwrap();
    let text = "SELECT 1 FROM job_runs WHERE job = 'first' FOR UPDATE";
    lock.execute_unprepared(text).await.unwrap();
    let deciding = at(store.clone(), 1);
    let meanwhile = async {
        let waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%SET cancel_at%'
                     AND query NOT LIKE '%pg_stat_activity%'";
        let waits = Statement::from_string(db.get_database_backend(), waits);
        world::eventually("the decision waits", async || db.query_one_raw(waits.clone()).await.unwrap().is_some())
            .await;
        let ended = held(&going[1]);
        assert!(store.finish(ended, &Ending::succeeded(0)).await.unwrap());
        lock.commit().await.unwrap();
    };
    let (decided, ()) = tokio::join!(deciding, meanwhile);
    assert_eq!(decided[0].disturbed, [held(&going[0])]);
    assert!(decided[0].started.is_empty(), "the first waits for the run that was asked to stop");
    assert!(decided[1].disturbed.is_empty(), "the second had nobody to ask");
    assert_eq!(decided[1].started.len(), 1, "so it started");
}
