//! How late runs start, with 1, 1,000 and 100,000 schedules in one process, beside the timer of the runtime.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use scheduler::{
    Job, JobError, Scheduler,
    clock::{Clock, DatabaseClock},
    config::JobSettings,
    kinds::{Local, Run},
    schedule::Spec,
    store::memory::MemoryStore,
};

use crate::{Size, percentiles, table::Table};

/// Seconds over which fires are measured.
const WINDOW: u64 = 10;

struct Noting {
    spec: Spec,
    clock: Arc<DatabaseClock>,
    late: Arc<Mutex<Vec<f64>>>,
}

#[async_trait]
impl Local for Noting {
    async fn run(&self, run: &Run) -> Result<u64, JobError> {
        if let Some(nominal) = run.nominal {
            let due = self.spec.fire_at(&run.job, nominal, nominal);
            let late = (self.clock.now() - due).num_microseconds().unwrap_or(i64::MAX);
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            self.late.lock().expect("nobody panics").push(late as f64 / 1000.0);
        }
        Ok(1)
    }
}

/// A schedule's interval: a second, or as long as keeps the process at 1,000 runs a second.
fn interval(schedules: usize) -> Duration {
    Duration::from_secs((schedules as u64 / 1_000).max(1))
}

async fn scheduled(schedules: usize) -> Vec<f64> {
    let (clock, late) = (DatabaseClock::new(), Arc::new(Mutex::new(Vec::new())));
    let mut spec = Spec::every(interval(schedules));
    if schedules > 1 {
        // All of them are announced in one moment; spread over the interval, as schedules of real life are.
        spec.jitter = interval(schedules);
    }
    let jobs = (0..schedules).map(|number| {
        let settings =
            JobSettings { run_on_start: false, spec: spec.clone(), ..JobSettings::of(spec.schedule.clone()) };
        let noting = Noting { spec: spec.clone(), clock: Arc::clone(&clock), late: Arc::clone(&late) };
        Job::local(&format!("job_{number}"), "", settings, noting)
    });
    let scheduler = Scheduler::new("bench", MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>), clock.clone());
    let running = scheduler.jobs(jobs).start();
    wait(interval(schedules) + Duration::from_secs(WINDOW)).await;
    running.stop(Duration::from_secs(10)).await;
    late.lock().expect("nobody panics").clone()
}

/// The runtime's own timer: as many sleeps a second, each until a whole second has passed.
async fn timer(a_second: usize) -> f64 {
    let mut late = Vec::new();
    for _ in 0..5 {
        let until = tokio::time::Instant::now() + Duration::from_secs(1);
        let sleeps = (0..a_second).map(|_| async move {
            tokio::time::timeout_at(until, std::future::pending::<()>()).await.expect_err("it never ends");
            until.elapsed().as_secs_f64() * 1000.0
        });
        late.extend(futures_util::future::join_all(sleeps).await);
    }
    percentiles(late).1
}

async fn wait(duration: Duration) {
    tokio::time::timeout(duration, std::future::pending::<()>()).await.expect_err("it never ends");
}

pub(crate) async fn measure(table: &mut Table, size: Size) {
    for schedules in size.schedules {
        let (limit, late) = (timer(schedules.min(1_000)).await, scheduled(schedules).await);
        let seconds = interval(schedules).as_secs();
        let name = format!("lateness of a run, {schedules} schedules, each every {seconds} s");
        if late.is_empty() {
            table.put(&format!("{name}: none fired"), "ms", f64::NAN);
            continue;
        }
        let fired = late.len();
        let (middle, end) = percentiles(late);
        eprintln!("  {fired} runs");
        table.put(&format!("{name}, p50"), "ms", middle);
        table.put_beside(&format!("{name}, p99"), "ms", end, Some((limit, "tokio's timer, p99")));
    }
}
