//! awa does no-op jobs: `URL burn COUNT` or `URL latency COUNT`.
//! Settings: the default engine (queue storage), made by a client that starts and stops before any job is put in. For the burn-down those of its
//! own throughput benchmark: 100 workers, a poll of 50 ms, no deadline; defaults but for a short poll for the time to start.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use awa::{Client, InsertOpts, InsertParams, JobArgs, JobResult, QueueConfig};
use peers::{Done, asked, ready, until_none};
use serde::{Deserialize, Serialize};
use sqlx_of_awa::{self as sqlx, postgres::PgPoolOptions};
use tokio::sync::mpsc;

const INSERTED: usize = 5_000;

#[derive(Serialize, Deserialize, JobArgs)]
struct Noop {}

#[tokio::main]
async fn main() -> Done {
    let (url, mode, count) = asked()?;
    let pool = PgPoolOptions::new().max_connections(20).connect(&url).await?;
    awa::migrations::run(&pool).await?;
    let burning = mode == "burn";
    let config = if burning {
        let (poll_interval, deadline_duration) = (Duration::from_millis(50), Duration::ZERO);
        QueueConfig { max_workers: 100, poll_interval, deadline_duration, ..Default::default() }
    } else {
        QueueConfig { poll_interval: Duration::from_millis(5), ..Default::default() }
    };
    let made = Client::builder(pool.clone())
        .queue("bench", config.clone())
        .register::<Noop, _, _>(|_, _| async { Ok(JobResult::Completed) })
        .build()?;
    made.start().await?;
    made.shutdown(Duration::from_secs(5)).await;
    let done = Arc::new(AtomicUsize::new(0));
    let (send, mut started) = mpsc::unbounded_channel();
    let counted = Arc::clone(&done);
    let client = Client::builder(pool.clone())
        .queue("bench", config)
        .register::<Noop, _, _>(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            let started = (!burning).then(|| send.clone());
            async move {
                if let Some(started) = started {
                    let _nobody_listens = started.send(Instant::now());
                }
                Ok(JobResult::Completed)
            }
        })
        .build()?;
    let opts = || InsertOpts { queue: "bench".into(), ..Default::default() };
    if burning {
        for put in (0..count).step_by(INSERTED) {
            let job = || InsertParams { kind: "noop".into(), args: serde_json::json!({}), opts: opts() };
            let jobs: Vec<_> = (0..INSERTED.min(count - put)).map(|_| job()).collect();
            awa::insert_many_copy_from_pool(&pool, &jobs).await?;
        }
        sqlx::query("VACUUM ANALYZE").execute(&pool).await?;
        ready()?;
        let began = Instant::now();
        client.start().await?;
        // Its view of all jobs takes minutes to say that none is left, so the clock stops when the last has run: a little
        // before its completion is durable.
        let left = async || -> Done<bool> { Ok(done.load(Ordering::Relaxed) < count) };
        println!("{}", until_none(began, &left).await?);
    } else {
        client.start().await?;
        ready()?;
        for _ in 0..count {
            let asked = Instant::now();
            awa::insert_with(&pool, &Noop {}, opts()).await?;
            let start = started.recv().await.ok_or("the worker has ended")?;
            println!("{}", start.saturating_duration_since(asked).as_secs_f64() * 1_000.0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    client.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
