//! graphile_worker does no-op jobs: `URL burn COUNT` or `URL latency COUNT`.
//! Settings: those of its own benchmark (perf_test), that is concurrency 500, poll and completion batches of 5 ms, a local queue of 5,000;
//! defaults for the time to start.

use std::{sync::Arc, time::Duration, time::Instant};

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext, WorkerOptions,
};
use peers::{Done, asked, ready, until_none};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const INSERTED: usize = 5_000;

#[derive(Clone, Serialize, Deserialize)]
struct Noop {}

#[derive(Clone, Debug)]
struct Started(mpsc::UnboundedSender<Instant>);

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        if let Some(started) = context.get_ext::<Started>() {
            let _nobody_listens = started.0.send(Instant::now());
        }
        Ok::<(), String>(())
    }
}

#[tokio::main]
async fn main() -> Done {
    let (url, mode, count) = asked()?;
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(20).connect(&url).await?;
    let options = WorkerOptions::default().database(pool.clone()).schema("graphile_worker").define_job::<Noop>();
    if mode == "burn" {
        let options = options
            .concurrency(500)
            .poll_interval(Duration::from_millis(5))
            .complete_job_batch_delay(Duration::from_millis(5))
            .local_queue(LocalQueueConfig::default().with_size(5_000));
        let worker = Arc::new(options.init().await?);
        let utils = worker.create_utils();
        for done in (0..count).step_by(INSERTED) {
            let job =
                || RawJobSpec { identifier: "noop".into(), payload: serde_json::json!({}), spec: JobSpec::default() };
            let jobs: Vec<_> = (0..INSERTED.min(count - done)).map(|_| job()).collect();
            utils.add_raw_jobs(&jobs).await?;
        }
        sqlx::query("VACUUM ANALYZE graphile_worker._private_jobs").execute(&pool).await?;
        ready()?;
        let (began, running) = (Instant::now(), Arc::clone(&worker));
        let running = tokio::spawn(async move { running.run().await });
        let left = async || -> Done<bool> {
            let question = "SELECT EXISTS (SELECT 1 FROM graphile_worker._private_jobs)";
            Ok(sqlx::query_scalar(question).fetch_one(&pool).await?)
        };
        println!("{}", until_none(began, &left).await?);
        worker.request_shutdown();
        running.await??;
    } else {
        let (send, mut started) = mpsc::unbounded_channel();
        let worker = Arc::new(options.add_extension(Started(send)).init().await?);
        let (utils, running) = (worker.create_utils(), Arc::clone(&worker));
        let running = tokio::spawn(async move { running.run().await });
        ready()?;
        for _ in 0..count {
            let asked = Instant::now();
            utils.add_job(Noop {}, JobSpec::default()).await?;
            let start = started.recv().await.ok_or("the worker has ended")?;
            println!("{}", start.saturating_duration_since(asked).as_secs_f64() * 1_000.0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        worker.request_shutdown();
        running.await??;
    }
    Ok(())
}
