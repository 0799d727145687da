//! Of many that claim a job at once on PostgreSQL two have their turn; it is a courtesy and no lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusBuilder;
use scheduler::{
    Instant, Job, JobError, Scheduler,
    clock::{Clock, DatabaseClock},
    kinds::{Claim, Run, Take},
    store::{
        Store,
        sql::{Due, SqlStore, SqlTx, Time},
    },
};
use sea_orm::{ConnectionTrait, FromQueryResult};
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::{
    jobs::every,
    world::{self, LEASE},
};

#[tokio::test]
async fn of_many_two_have_their_turn_to_claim_a_job_and_it_ends_with_the_transaction() {
    let (db, _keep) = world::postgres_db(6).await;
    let store = world::sql(&db, &world::clock());
    let (one, _, first) = store.begin_in_turn("job", LEASE).await.unwrap();
    let (two, _, second) = store.begin_in_turn("job", LEASE).await.unwrap();
    let (three, _, third) = store.begin_in_turn("job", LEASE).await.unwrap();
    let (other, _, of_another) = store.begin_in_turn("another", LEASE).await.unwrap();
    assert_eq!((first, second, third, of_another), (true, true, false, true));
    store.rollback(one).await.unwrap();
    let (four, _, fourth) = store.begin_in_turn("job", LEASE).await.unwrap();
    assert!(fourth);
    for tx in [two, three, other, four] {
        store.rollback(tx).await.unwrap();
    }
}

/// Deals with its rows when they are due; the second and third full batch wait until as many are going on as the barrier
/// wants.
struct Beside {
    meet: Barrier,
    /// The third full batch, which the second lane has, fails once as when the store is away.
    fails: bool,
    full: AtomicUsize,
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl Beside {
    fn meeting(batches: usize, fails: bool) -> Arc<Self> {
        let (meet, full, inside, most) =
            (Barrier::new(batches), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { meet, fails, full, inside, most })
    }
}

#[derive(FromQueryResult)]
struct Late {
    id: Uuid,
    due_at: Instant,
}

const LATE: Due<Late> = Due::of("things", "id, due_at");

/// Rows of a full batch.
const FULL: usize = 1_000;

struct ByTwo(Arc<Beside>);

#[async_trait]
impl Claim<SqlTx> for ByTwo {
    type Row = Late;

    fn id(&self, late: &Late) -> Uuid {
        late.id
    }

    fn due_at(&self, late: &Late) -> Option<Instant> {
        Some(late.due_at)
    }

    async fn take(&self, tx: &mut SqlTx, take: &Take) -> Result<Vec<Late>, JobError> {
        LATE.take(tx, take).await
    }

    async fn act(&self, tx: &mut SqlTx, late: Vec<Late>, _run: &Run) -> Result<(), JobError> {
        let Self(beside) = self;
        beside.most.fetch_max(beside.inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let full = if late.len() == FULL { beside.full.fetch_add(1, Ordering::SeqCst) } else { 0 };
        if matches!(full, 1 | 2) {
            beside.meet.wait().await;
        }
        if full == 2 && beside.fails {
            beside.inside.fetch_sub(1, Ordering::SeqCst);
            return Err(JobError::Transient("the store is away".to_owned()));
        }
        let ids: Vec<String> = late.iter().map(|late| format!("'{}'", late.id)).collect();
        let done = format!("UPDATE things SET due_at = NULL, done = done + 1 WHERE id IN ({})", ids.join(", "));
        tx.execute_unprepared(&done).await.map_err(JobError::failed)?;
        beside.inside.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn wakes_when_due(&self) -> bool {
        true
    }

    async fn next_due(&self, tx: &mut SqlTx) -> Result<Option<Instant>, JobError> {
        LATE.next_due(tx, "things").await
    }
}

/// A replica with so many rows due; until all are dealt with. How often each was, at least and at most, how many batches
/// were going on at once at most, and what the ledger says of them.
async fn dealt_with(name: &str, rows: usize, beside: &Arc<Beside>, turns_taken: usize) -> (i64, i64, usize, i64) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    // Of this thread, on which all of the test's runtime is.
    let _counting = metrics::set_default_local_recorder(&recorder);
    let (db, _keep) = world::postgres_db(6).await;
    let clock = DatabaseClock::new();
    let process = Arc::clone(&clock) as Arc<dyn Clock>;
    let store = SqlStore::new(db.clone(), db.clone(), name, Time::Database, process, None);
    let mut taken = Vec::new();
    for _ in 0..turns_taken {
        let (tx, _, turn) = store.begin_in_turn(name, LEASE).await.unwrap();
        assert!(turn);
        taken.push(tx);
    }
    let insert = format!(
        "INSERT INTO things (id, due_at) SELECT gen_random_uuid(), now() - n * interval '1 ms'
         FROM generate_series(1, {rows}) n"
    );
    db.execute_unprepared(&insert).await.unwrap();
    let job = Job::claim(name, "", every(86_400), ByTwo(Arc::clone(beside)));
    let running = Scheduler::new(name, store.clone(), clock).job(job).start();
    let left = "SELECT count(*) FROM things WHERE due_at IS NOT NULL";
    world::eventually("all are dealt with", async || world::number(&db, left).await == 0).await;
    for tx in taken {
        store.rollback(tx).await.unwrap();
    }
    running.stop(Duration::from_secs(10)).await;
    let least = world::number(&db, "SELECT min(done)::bigint FROM things").await;
    let most = world::number(&db, "SELECT max(done)::bigint FROM things").await;
    let items = world::number(&db, "SELECT sum(items)::bigint FROM job_runs").await;
    assert_eq!(world::number(&db, "SELECT count(*) FROM job_runs WHERE outcome <> 'succeeded'").await, 0);
    let counted = counted.render();
    assert!(counted.contains("background_job_executions_total"), "{counted}");
    assert!(!counted.contains("background_job_failures_total"), "no pass failed either:\n{counted}");
    (least, most, beside.most.load(Ordering::SeqCst), items)
}

#[tokio::test]
async fn two_full_batches_of_a_replica_go_on_beside_each_other_and_each_row_is_dealt_with_once() {
    // Each full batch waits for the other: one after the other they would wait for ever.
    assert_eq!(dealt_with("by-two", 5 * FULL + 7, &Beside::meeting(2, false), 0).await, (1, 1, 2, 5_007));
}

#[tokio::test]
async fn a_batch_beside_another_is_begun_only_while_a_turn_is_free() {
    assert_eq!(dealt_with("by-one", 3 * FULL, &Beside::meeting(1, false), 1).await, (1, 1, 1, 3_000));
}

#[tokio::test]
async fn a_batch_beside_another_that_finds_the_store_away_is_dealt_with_once_and_blamed_for_nothing() {
    assert_eq!(dealt_with("by-two-away", 5 * FULL + 7, &Beside::meeting(2, true), 0).await, (1, 1, 2, 5_007));
}

#[tokio::test]
async fn who_never_has_a_turn_claims_all_the_same() {
    assert_eq!(dealt_with("without-a-turn", 1, &Beside::meeting(1, false), 2).await, (1, 1, 1, 1));
}
