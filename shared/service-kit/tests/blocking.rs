//! Jobs that block every thread they have stop neither requests, nor operators, nor the renewal of leases.
//!
//! This program is the test and, when called with `serve`, the service under test: jobs like these belong nowhere else.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]
#![allow(clippy::print_stdout, reason = "without the usual harness it says itself how it went")]

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::routing::get;
use scheduler::{
    Job, JobError, Kind,
    kinds::{Next, Run, Steps},
    store::sql::SqlTx,
};
use service_kit::{Doors, JobDef, Service, Setup, service::Tables};
use test_kit::{Home, Process, eventually_within};
use utoipa_axum::router::OpenApiRouter;

const fn blocking(name: &'static str, prefix: &'static str) -> JobDef {
    let (description, every) = ("Blocks its thread for ever", Duration::from_secs(3_600));
    JobDef { name, prefix, description, every, kind: Kind::Steps }
}

/// As many as the work runtime has threads.
const JOBS: &[JobDef] = &[
    blocking("one", "BLOCK_ONE"),
    blocking("two", "BLOCK_TWO"),
    blocking("three", "BLOCK_THREE"),
    blocking("four", "BLOCK_FOUR"),
];

struct Block;

#[async_trait]
impl Steps<SqlTx> for Block {
    type Input = ();
    type Cursor = ();
    type Answer = ();

    async fn ask(&self, (): &(), (): &(), _run: &Run) -> Result<(), JobError> {
        loop {
            std::thread::park();
        }
    }

    async fn settle(&self, _tx: &mut SqlTx, (): (), (): (), _run: &Run) -> Result<Next<()>, JobError> {
        Ok(Next::Done { items: 0 })
    }
}

fn doors(setup: &Setup) -> Doors {
    let job = |def: &JobDef| Job::steps(def.name, def.description, setup.job(def.name), Block);
    let routes = OpenApiRouter::new().route("/api/blocking/hello", get(|| async { "hello" }));
    Doors { routes, jobs: JOBS.iter().map(job).collect(), listeners: Vec::new() }
}

fn service() -> Service {
    Service {
        name: "blocking",
        about: "Jobs that block their threads",
        port: 8_099,
        variables: &[],
        jobs: JOBS,
        // Any service's will do: the shared ones are among them.
        tables: Tables::of::<migrations::blog::Migrator>(),
        settings: |_| Ok(Arc::new(())),
        doors,
    }
}

async fn jobs_that_block_every_work_thread_stop_nothing_else() {
    let home = Home::servers().await;
    let this = std::env::current_exe().expect("this program");
    let process = Process::start(&this.to_string_lossy(), &home, &[]).ready().await;
    let running = async || {
        let jobs = process.admin.get("/admin/v1/jobs").await.expect(200).json;
        jobs["items"].as_array().map_or(0, |jobs| jobs.iter().filter(|job| job["running"] == true).count())
    };
    eventually_within(Duration::from_secs(10), "every thread is blocked", async || {
        (running().await == JOBS.len()).then_some(())
    })
    .await;
    let mut rows = home.rows("blocking").await;
    let renewals = "SELECT min(beat) FROM job_runs WHERE state = 'running'";
    eventually_within(Duration::from_secs(20), "every lease is renewed", async || {
        let began = Instant::now();
        process.api.get("/api/blocking/hello").await.expect(200);
        process.admin.get("/healthz").await.expect(200);
        process.admin.get("/readyz").await.expect(200);
        assert!(began.elapsed() < Duration::from_secs(2), "answers wait for jobs: {:?}", began.elapsed());
        let beat: Option<i64> = sqlx::query_scalar(renewals).fetch_one(&mut rows).await.expect("rows");
        (beat >= Some(2)).then_some(())
    })
    .await;
    assert_eq!(running().await, JOBS.len(), "nobody has taken them over");
}

fn main() -> ExitCode {
    let first = std::env::args().nth(1);
    if first.as_deref() == Some("serve") {
        return service_kit::main(service());
    }
    if first.as_deref() == Some("--list") {
        println!("jobs_that_block_every_work_thread_stop_nothing_else: test");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(jobs_that_block_every_work_thread_stop_nothing_else());
    println!("test jobs_that_block_every_work_thread_stop_nothing_else ... ok");
    ExitCode::SUCCESS
}
