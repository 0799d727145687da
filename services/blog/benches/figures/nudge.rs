//! How soon a row that is put in is acted on: in the process, across replicas, and without any nudge.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use scheduler::{
    Job, Running, Scheduler,
    clock::{Clock, DatabaseClock},
    config::JobSettings,
    store::sql::{SqlStore, Time, notify::Notifications},
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    burn::{Burn, Filled, connected, settings},
    percentiles,
    table::Table,
    wait,
};

/// Rows put in one after another, for each path.
const ASKED: usize = 300;
/// Rows that only the sweep finds: each takes seconds.
const SWEPT: usize = 5;
/// The published bound of the sweep.
const SWEEP_MS: f64 = 5_000.0;

/// Whether the replica that acts hears of rows, and from where.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    Process,
    Replicas,
    Sweep,
}

type Told = UnboundedSender<(Uuid, Instant)>;

async fn replica(url: &str, name: &str, stop: &CancellationToken, started: Option<Told>) -> Running<SqlStore> {
    let clock = DatabaseClock::new();
    let (control, work) = (connected(url).await, connected(url).await);
    let heard = Notifications::listen(url.parse().expect("a URL"), stop.clone());
    let store =
        SqlStore::new(control, work, "bench", Time::Database, Arc::clone(&clock) as Arc<dyn Clock>, Some(heard));
    let settings = JobSettings { enabled: started.is_some(), ..settings() };
    let burn = Burn { with_events: false, done: Arc::default(), started };
    Scheduler::new("bench", store, clock).replica(name).job(Job::claim("burn", "", settings, burn)).start()
}

/// Milliseconds to the start of what is done with a row: from the call that puts it in, and from the nudge that follows its
/// commit.
struct Late {
    call: Vec<f64>,
    nudge: Vec<f64>,
}

async fn asked(path: Path, pause: Duration, count: usize) -> Late {
    let mut filled = Filled::with(0).await;
    let (stop, (send, mut started)) = (CancellationToken::new(), unbounded_channel());
    let acts = replica(&filled.url, "acts", &stop, Some(send)).await;
    let tells = match path {
        Path::Replicas => Some(replica(&filled.url, "tells", &stop, None).await),
        Path::Process | Path::Sweep => None,
    };
    let handle = tells.as_ref().unwrap_or(&acts).handle();
    wait(Duration::from_secs(1)).await;
    let mut put = HashMap::new();
    let mut every = tokio::time::interval(pause);
    for _ in 0..count {
        every.tick().await;
        let (id, now) = (Uuid::now_v7(), Instant::now());
        let insert = sqlx::query("INSERT INTO rows (id, due_at) VALUES ($1, now())").bind(id);
        insert.execute(&mut filled.rows).await.expect("a row can be put in");
        put.insert(id, (now, Instant::now()));
        if path != Path::Sweep {
            handle.changed();
        }
    }
    let mut late = Late { call: Vec::new(), nudge: Vec::new() };
    while late.call.len() < count {
        let (id, at) = started.recv().await.expect("the job lives");
        let (called, nudged) = put[&id];
        late.call.push((at - called).as_secs_f64() * 1_000.0);
        // A pass for the row before may have seen it between its commit and its nudge.
        late.nudge.push(at.saturating_duration_since(nudged).as_secs_f64() * 1_000.0);
    }
    for running in tells.into_iter().chain([acts]) {
        running.stop(Duration::from_secs(10)).await;
    }
    stop.cancel();
    late
}

/// The figure that peers have, and no more.
pub(crate) async fn beside_peers(table: &mut Table) {
    put(table, "Belfry", "in the process, idle", asked(Path::Process, Duration::from_millis(20), ASKED).await);
}

fn put(table: &mut Table, who: &str, how: &str, late: Late) {
    for (from, late) in [("putting a row in", late.call), ("its nudge", late.nudge)] {
        let (middle, end) = percentiles(late);
        table.put(&format!("{who}: from {from} to its start, {how}, p50"), "ms", middle);
        table.put(&format!("{who}: from {from} to its start, {how}, p99"), "ms", end);
    }
}

pub(crate) async fn measure(table: &mut Table) {
    let (idle, busy) = (Duration::from_millis(20), Duration::from_micros(3_333));
    put(table, "Claim", "in the process, idle", asked(Path::Process, idle, ASKED).await);
    put(table, "Claim", "in the process, 300/s", asked(Path::Process, busy, ASKED * 3).await);
    put(table, "Claim", "across replicas, idle", asked(Path::Replicas, idle, ASKED).await);
    put(table, "Claim", "across replicas, 300/s", asked(Path::Replicas, busy, ASKED * 3).await);
    let swept = asked(Path::Sweep, Duration::from_millis(5_300), SWEPT).await;
    let worst = swept.call.into_iter().fold(0.0, f64::max);
    table.put_beside(
        "Claim: from putting a row in to its start, swept, worst",
        "ms",
        worst,
        Some((SWEEP_MS, "the sweep's interval")),
    );
}
