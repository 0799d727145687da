//! How late runs start with 1 to 1,000,000 schedules in one process, beside the timer of the runtime and the schedulers of others.
//!
//! Each size is a process of its own, this program as `- fires COUNT`, told what peers are told
//! (`shared/test-kit/peers/README.md`), so that its processor time and memory are its own.

use std::{
    path::Path,
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

use crate::{
    Size,
    peers::{Fired, fired, ready},
    percentiles,
    table::Table,
    wait,
};

/// Seconds over which fires are measured.
pub(crate) const WINDOW: u64 = 10;
/// Schedules beyond which they do not all fire each second,
const EACH_SECOND: usize = 100_000;
/// but so many of them; the others wait for tomorrow.
const OF_MORE: usize = 1_000;

struct Noting {
    spec: Spec,
    clock: Arc<DatabaseClock>,
    counting: Arc<Counting>,
}

/// Runs due within the window.
#[derive(Default)]
struct Counting {
    from: Mutex<Option<scheduler::Instant>>,
    late: Mutex<Vec<f64>>,
}

#[async_trait]
impl Local for Noting {
    async fn run(&self, run: &Run) -> Result<u64, JobError> {
        let from = *self.counting.from.lock().expect("nobody panics");
        if let (Some(nominal), Some(from)) = (run.nominal, from) {
            let due = self.spec.fire_at(&run.job, nominal, nominal);
            if due >= from && due < from + Duration::from_secs(WINDOW) {
                let late = (self.clock.now() - due).num_microseconds().unwrap_or(i64::MAX);
                #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
                self.counting.late.lock().expect("nobody panics").push(late as f64 / 1000.0);
            }
        }
        Ok(1)
    }
}

/// How many of so many fire each second.
fn each_second(schedules: usize) -> usize {
    if schedules > EACH_SECOND { OF_MORE } else { schedules }
}

/// Told as a peer is.
pub(crate) async fn as_peer(schedules: usize) {
    let (clock, counting) = (DatabaseClock::new(), Arc::new(Counting::default()));
    let jobs = (0..schedules).map(|number| {
        let often = number % (schedules / each_second(schedules)) == 0;
        let mut spec = Spec::every(Duration::from_secs(if often { 1 } else { 86_400 }));
        if schedules > 1 {
            // All of them are announced in one moment; spread over the second, as schedules of real life are.
            spec.jitter = Duration::from_secs(1);
        }
        let settings =
            JobSettings { run_on_start: false, spec: spec.clone(), ..JobSettings::of(spec.schedule.clone()) };
        let noting = Noting { spec: spec.clone(), clock: Arc::clone(&clock), counting: Arc::clone(&counting) };
        Job::local(&format!("job_{number}"), "", settings, noting)
    });
    let scheduler = Scheduler::new("bench", MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>), clock.clone());
    ready();
    let running = scheduler.jobs(jobs).start();
    // Each has fired once before those count.
    wait(Duration::from_secs(3) + Duration::from_millis(schedules as u64 / 20)).await;
    *counting.from.lock().expect("nobody panics") = Some(clock.now());
    println!("counting");
    wait(Duration::from_secs(WINDOW + 1)).await;
    let late = counting.late.lock().expect("nobody panics").clone();
    let (middle, end) = percentiles(late.clone());
    println!("{} {middle} {end}", late.len());
    ready();
    running.stop(Duration::from_secs(10)).await;
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

/// Schedules of ours, in a process of their own.
pub(crate) fn ours(schedules: usize) -> Fired {
    let this = std::env::current_exe().expect("this program has a path");
    fired(Path::new(&this), schedules)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn put(table: &mut Table, who: &str, schedules: usize, fired: &Fired, limit: Option<(f64, &'static str)>) {
    let often = each_second(schedules);
    let all = if often == schedules { "each".to_owned() } else { format!("{often} of them") };
    let name = format!("{who}: {schedules} schedules, {all} every second");
    let expected = (often as u64 * WINDOW) as f64;
    table.put(&format!("{name}: lateness of a run, p50"), "ms", fired.middle);
    table.put_beside(&format!("{name}: lateness of a run, p99"), "ms", fired.end, limit);
    table.put(&format!("{name}: did not run in time"), "%", (1.0 - fired.runs / expected) * 100.0);
    table.put(&format!("{name}: processor"), "% of a core", fired.processor);
    table.put(&format!("{name}: memory"), "MiB", fired.kib / 1024.0);
}

pub(crate) async fn measure(table: &mut Table, size: Size) {
    for &schedules in size.schedules {
        let limit = timer(schedules.min(1_000)).await;
        put(table, "Belfry", schedules, &ours(schedules), Some((limit, "tokio's timer, p99")));
    }
}
