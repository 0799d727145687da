//! Of many that claim a job at once on PostgreSQL two have their turn; it is a courtesy and no lock.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
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
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use uuid::Uuid;

use crate::{
    jobs::every,
    world::{self, LEASE},
};

#[derive(FromQueryResult)]
struct Thing {
    id: Uuid,
}

const THINGS: Due<Thing> = Due::of("things", "id");

/// Tells how many rows it dealt with.
struct Clear(UnboundedSender<usize>);

#[async_trait]
impl Claim<SqlTx> for Clear {
    type Row = Thing;

    fn id(&self, thing: &Thing) -> Uuid {
        thing.id
    }

    fn due_at(&self, _thing: &Thing) -> Option<Instant> {
        None
    }

    async fn take(&self, tx: &mut SqlTx, take: &Take) -> Result<Vec<Thing>, JobError> {
        THINGS.take(tx, take).await
    }

    async fn act(&self, tx: &mut SqlTx, things: Vec<Thing>, _run: &Run) -> Result<(), JobError> {
        tx.execute_unprepared("UPDATE things SET due_at = NULL").await.map_err(JobError::failed)?;
        self.0.send(things.len()).map_err(JobError::failed)
    }
}

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

#[tokio::test]
async fn who_never_has_a_turn_claims_all_the_same() {
    let (db, _keep) = world::postgres_db(6).await;
    let clock = DatabaseClock::new();
    let process = Arc::clone(&clock) as Arc<dyn Clock>;
    let store = SqlStore::new(db.clone(), db.clone(), "test", Time::Database, process, None);
    db.execute_unprepared("INSERT INTO things (id, due_at) VALUES (gen_random_uuid(), now())").await.unwrap();
    let mut slow = Vec::new();
    for _ in 0..2 {
        let (tx, _, turn) = store.begin_in_turn("clear", LEASE).await.unwrap();
        assert!(turn);
        slow.push(tx);
    }
    let (told, mut tells) = unbounded_channel();
    let job = Job::claim("clear", "", every(86_400), Clear(told));
    let running = Scheduler::new("test", store.clone(), clock).job(job).start();
    running.handle().run("clear", None, None).await.unwrap();
    let cleared = tokio::time::timeout(Duration::from_secs(10), tells.recv()).await;
    assert_eq!(cleared.expect("it does not wait for those that are slow"), Some(1));
    for tx in slow {
        store.rollback(tx).await.unwrap();
    }
    running.stop(Duration::from_secs(10)).await;
}
