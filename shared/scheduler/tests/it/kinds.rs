//! An example of each kind of job, and the promise it gives.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::TimeDelta;
use scheduler::{
    Instant, Job, JobError,
    clock::Clock,
    kinds::{Held, Lease, LeaseTake, Leased, Local, Next, Run, Step, Steps, Tick},
    ledger::{Outcome, RunState},
    store::{
        Store,
        memory::{DueRow, MemoryStore, MemoryTx},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::{
    jobs::{ROWS, Replica, due_in, every, settle},
    world::{clock, memory},
};

/// Tick: a roll-up in bounded batches, with a cursor that survives its owner.
struct RollUp {
    pages: Arc<Mutex<Vec<i64>>>,
}

#[async_trait]
impl Tick<MemoryTx> for RollUp {
    async fn tick(&self, _tx: &mut MemoryTx, run: &Run) -> Result<Step, JobError> {
        let page = run.cursor.as_ref().and_then(serde_json::Value::as_i64).unwrap_or(0);
        self.pages.lock().unwrap().push(page);
        if page == 2 && run.attempt == 1 {
            run.stop.cancelled().await;
            return Err(JobError::failed("stopped in the middle"));
        }
        Ok(if page == 4 { Step::Done(10) } else { Step::More { items: 10, cursor: json!(page + 1) } })
    }
}

#[tokio::test]
async fn a_tick_goes_on_from_its_last_committed_batch_in_another_replica() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let pages = Arc::new(Mutex::new(Vec::new()));
    let job = || Job::tick("roll_up", "", every(60), RollUp { pages: Arc::clone(&pages) });
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dying = {
        let (store, clock, job) = (store.clone(), Arc::clone(&clock), job());
        other.spawn(async move { Replica::start(&store, &clock, [job]) }).await.unwrap()
    };
    crate::world::eventually("it announces itself", async || {
        dying.running.handle().job("roll_up").await.is_ok_and(|job| job.next_run_at.is_some())
    })
    .await;
    clock.advance(Duration::from_secs(60));
    crate::world::eventually("it is at page 2", async || pages.lock().unwrap().contains(&2)).await;
    other.shutdown_background();
    let heir = Replica::start(&store, &clock, [job()]);
    heir.pass(40).await;
    assert_eq!(*pages.lock().unwrap(), [0, 1, 2, 2, 3, 4]);
    let run = heir.runs("roll_up").await.remove(0);
    assert_eq!((run.outcome, run.items, run.attempt), (Some(Outcome::Succeeded), 50, 2));
}

/// Lease: the outside world is asked without a transaction, and only the holder may settle.
#[derive(Clone)]
struct Deliver {
    asked: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    /// How many answers the outside world still gives.
    answers: Arc<Semaphore>,
    answer: Arc<Mutex<Result<(), String>>>,
}

impl Deliver {
    fn new(answers: usize) -> Self {
        Self {
            asked: Arc::default(),
            most_at_once: Arc::default(),
            at_once: Arc::default(),
            answers: Arc::new(Semaphore::new(answers)),
            answer: Arc::new(Mutex::new(Ok(()))),
        }
    }

    fn job(&self) -> Job<MemoryStore> {
        Job::lease("deliver", "delivers", every(86_400), self.clone())
    }
}

#[async_trait]
impl Lease<MemoryTx> for Deliver {
    type Row = DueRow;
    type Answer = ();

    async fn claim(&self, tx: &mut MemoryTx, take: &LeaseTake) -> Result<Vec<Leased<DueRow>>, JobError> {
        Ok(ROWS.claim(tx, take))
    }

    async fn ask(&self, _row: &Leased<DueRow>, _run: &Run) -> Result<(), JobError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let answer = self.answers.acquire().await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        answer.unwrap().forget();
        self.answer.lock().unwrap().clone().map_err(JobError::failed)
    }

    async fn lock(&self, tx: &mut MemoryTx, held: &[Held]) -> Result<Vec<Held>, JobError> {
        Ok(ROWS.lock(tx, held))
    }

    async fn settle(
        &self,
        tx: &mut MemoryTx,
        answers: &[(Leased<DueRow>, Result<(), JobError>)],
        run: &Run,
    ) -> Result<(), JobError> {
        for (row, answer) in answers {
            let delivered = row.row.data["delivered"].as_i64().unwrap_or(0) + 1;
            match answer {
                Ok(()) => ROWS.settle(tx, row.held.id, None, json!({ "delivered": delivered }))?,
                Err(_) => ROWS.settle(tx, row.held.id, Some(run.now + TimeDelta::seconds(5)), row.row.data.clone())?,
            }
        }
        Ok(())
    }

    async fn renew(&self, tx: &mut MemoryTx, held: &[Held], until: Instant) -> Result<Vec<Held>, JobError> {
        Ok(ROWS.renew(tx, held, until))
    }

    async fn release(&self, tx: &mut MemoryTx, held: &[Held], now: Instant) -> Result<(), JobError> {
        ROWS.release(tx, held, now);
        Ok(())
    }

    async fn next_due(&self, tx: &mut MemoryTx) -> Result<Option<Instant>, JobError> {
        Ok(ROWS.next_due(tx, "deliver"))
    }

    fn slots(&self) -> usize {
        4
    }
}

#[tokio::test]
async fn leased_rows_are_asked_about_in_slots_and_each_is_settled_once() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deliver::new(0);
    due_in(&store, &clock, 1, 20);
    let replica = Replica::start(&store, &clock, [job.job()]);
    replica.pass(2).await;
    assert_eq!(job.asked.load(Ordering::SeqCst), 4, "as many as there are slots");
    job.answers.add_permits(20);
    replica.pass(2).await;
    let rows = store.rows(ROWS);
    assert!(rows.iter().all(|row| row.due_at.is_none() && row.data["delivered"] == 1 && row.attempt_count == 1));
    assert_eq!((job.asked.load(Ordering::SeqCst), job.most_at_once.load(Ordering::SeqCst)), (20, 4));
}

#[tokio::test]
async fn a_failed_answer_is_asked_for_again_at_its_next_due_time() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deliver::new(100);
    *job.answer.lock().unwrap() = Err("503".to_owned());
    due_in(&store, &clock, 1, 1);
    let replica = Replica::start(&store, &clock, [job.job()]);
    replica.pass(13).await;
    *job.answer.lock().unwrap() = Ok(());
    replica.pass(6).await;
    let row = store.rows(ROWS).remove(0);
    assert_eq!((row.attempt_count, row.lost_count, row.due_at), (3, 0, None));
}

#[tokio::test]
async fn leases_are_renewed_while_the_answer_takes_long_and_no_other_replica_asks() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deliver::new(0);
    due_in(&store, &clock, 1, 1);
    let settings = || scheduler::config::JobSettings { timeout: Some(Duration::from_secs(600)), ..every(86_400) };
    let start = || Replica::start(&store, &clock, [Job::lease("deliver", "", settings(), job.clone())]);
    let replicas = [start(), start()];
    replicas[0].pass(120).await;
    assert_eq!(job.asked.load(Ordering::SeqCst), 1);
    job.answers.add_permits(1);
    replicas[0].pass(1).await;
    assert_eq!(store.rows(ROWS)[0].data["delivered"], 1);
}

#[tokio::test]
async fn an_owner_that_sleeps_through_its_lease_settles_nothing() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let (sleepy, awake) = (Deliver::new(0), Deliver::new(10));
    due_in(&store, &clock, 1, 1);
    // A replica on a runtime that stops turning is one that sleeps.
    let asleep = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, thread) = std::thread::scope(|scope| {
        let (store, clock, job) = (&store, &clock, &sleepy);
        scope
            .spawn(move || {
                let first = asleep.block_on(async move {
                    let replica = Replica::start(store, clock, [job.job()]);
                    replica.pass(2).await;
                    replica
                });
                (first, asleep)
            })
            .join()
            .unwrap()
    });
    assert_eq!(sleepy.asked.load(Ordering::SeqCst), 1);
    clock.advance(Duration::from_secs(31));
    let second = Replica::start(&store, &clock, [awake.job()]);
    second.pass(6).await;
    let row = store.rows(ROWS).remove(0);
    assert_eq!((row.due_at, row.lost_count, row.attempt_count), (None, 1, 1), "taken over: the attempt is the same");
    sleepy.answers.add_permits(10);
    std::thread::spawn(move || {
        thread.block_on(settle());
        drop(first);
        thread.shutdown_background();
    })
    .join()
    .unwrap();
    assert_eq!(store.rows(ROWS)[0].data["delivered"], 1, "the sleeper's answer came too late");
}

#[tokio::test]
async fn a_stop_gives_rows_back_without_counting_the_attempt() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deliver::new(0);
    due_in(&store, &clock, 1, 3);
    let replica = Replica::start(&store, &clock, [job.job()]);
    replica.pass(2).await;
    assert_eq!(replica.stop().await, scheduler::Stopped::Cleanly);
    let rows = store.rows(ROWS);
    assert!(rows.iter().all(|row| row.lease_owner.is_none() && row.attempt_count == 0), "{rows:?}");
    assert!(rows.iter().all(|row| row.due_at.is_some_and(|due| due <= clock.now())), "due at once for the next");
}

/// Steps: a long run over pages of an outside world, with a pause it asks for.
struct Sync {
    cursors: Arc<Mutex<Vec<u32>>>,
}

#[derive(Serialize, Deserialize, Default)]
struct Wish {
    pages: Option<u32>,
}

#[async_trait]
impl<T: Send> Steps<T> for Sync {
    type Input = Wish;
    type Cursor = u32;
    type Answer = u32;

    async fn ask(&self, input: &Wish, cursor: &u32, _run: &Run) -> Result<u32, JobError> {
        self.cursors.lock().unwrap().push(*cursor);
        Ok(input.pages.unwrap_or(3))
    }

    async fn settle(&self, _tx: &mut T, cursor: u32, pages: u32, run: &Run) -> Result<Next<u32>, JobError> {
        Ok(match cursor + 1 {
            done if done == pages => Next::Done { items: 1 },
            2 => Next::Wait { cursor: 2, until: run.now + TimeDelta::seconds(30), items: 1 },
            cursor => Next::Continue { cursor, items: 1 },
        })
    }
}

#[tokio::test]
async fn steps_wait_without_a_worker_and_take_an_operators_input() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let cursors = Arc::new(Mutex::new(Vec::new()));
    let job = || Job::steps("sync", "", every(3600), Sync { cursors: Arc::clone(&cursors) });
    let [one, two] = [(); 2].map(|()| Replica::start(&store, &clock, [job()]));
    settle().await;
    let asked = one.running.handle().run("sync", None, Some(json!({ "pages": 5 }))).await.unwrap();
    one.pass(10).await;
    let row = store.run(asked.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.owner, row.items), (RunState::Queued, None, 2), "nobody holds it while it waits");
    assert_eq!(one.stop().await, scheduler::Stopped::Cleanly);
    two.pass(30).await;
    let row = store.run(asked.id).await.unwrap().unwrap();
    assert_eq!((row.outcome, row.items, row.attempt), (Some(Outcome::Succeeded), 5, 1));
    assert_eq!(*cursors.lock().unwrap(), [0, 1, 2, 3, 4]);
    let refused = two.running.handle().run("sync", None, Some(json!({ "pages": "many" }))).await.unwrap();
    two.pass(1).await;
    let row = store.run(refused.id).await.unwrap().unwrap();
    assert_eq!(row.outcome, Some(Outcome::Failed));
    assert!(row.error.unwrap().contains("input"), "what cannot be read is said");
}

/// Local: memory of one replica.
struct Sweep(Arc<AtomicUsize>);

#[async_trait]
impl Local for Sweep {
    async fn run(&self, _run: &Run) -> Result<u64, JobError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(1)
    }
}

#[tokio::test]
async fn a_local_job_runs_on_every_replica_and_is_in_no_shared_ledger() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let count = Arc::new(AtomicUsize::new(0));
    let start = || Replica::start(&store, &clock, [Job::local("sweep", "", every(10), Sweep(Arc::clone(&count)))]);
    let replicas = [start(), start(), start()];
    replicas[0].pass(30).await;
    assert_eq!(count.load(Ordering::SeqCst), 9);
    assert_eq!(replicas[0].runs("sweep").await.len(), 3, "each replica knows its own");
    assert!(store.schedules(&[]).await.unwrap().is_empty());
    let view = replicas[0].running.handle().job("sweep").await.unwrap();
    assert_eq!(view.scope, "replica");
}
