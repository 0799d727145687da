//! Storms: replicas and a consumer on real servers under load, while everything fails that can. Then the audit.
//!
//! The short form runs with all tests; `make storm` runs the long one (`STORM=long`). `STORM_SEED` repeats an order.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

mod clocks;
mod consumer;
mod crash_points;
mod faults;
mod full;
mod lessee;
mod load;
mod role;
mod world;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use test_kit::Home;

use self::{
    faults::{Fault, faults},
    world::World,
};

/// The program under test.
const BELFRY: &str = env!("CARGO_BIN_EXE_belfry");

#[expect(clippy::disallowed_methods, reason = "how long a storm is, is told by the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether the long form was asked for.
fn long() -> bool {
    variable("STORM").as_deref() == Some("long")
}

#[expect(clippy::print_stdout, reason = "whoever runs this by hand wants to know what was tried")]
fn tell(text: &str) {
    println!("{text}");
}

/// A storm has the machine to itself; crash points, which mostly wait, go on beside each other.
static ALONE: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// What the auditor says of a home, and whether it found nothing. Without `topics` it reads the rows alone: for homes that share
/// their topics with others.
fn audit(home: &Home, topics: bool) -> (bool, String) {
    let mut command = Command::new(BELFRY);
    command.args(["audit", "--data-dir"]).arg(home.folder()).env_clear();
    let vars = home.vars().iter().filter(|(name, _)| topics || name != "KAFKA_BROKERS").cloned();
    let output = command.envs(vars).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// Waits without looking at anything: a storm lasts.
async fn lasts(time: Duration) {
    let _never = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_of_kills_stops_and_failing_networks_nothing_is_missing_doubled_or_undone() {
    let _alone = ALONE.write().await;
    let seed = variable("STORM_SEED").map_or(1, |seed| seed.parse().expect("STORM_SEED: a number"));
    let mut world = World::new(seed).await;
    let (began, faults) = (Instant::now(), faults(seed, long()));
    tell(&format!("{} faults, seed {seed}", faults.len()));
    for (number, fault) in faults.iter().enumerate() {
        fault.strike(&mut world).await;
        if number % 100 == 99 {
            tell(&format!("{} of {} faults after {:?}", number + 1, faults.len(), began.elapsed()));
        }
    }
    world.calm().await;
    let load = world.stop_load().await;
    let audit = world.settled(&load).await;
    for (kind, count) in Fault::counts(&faults) {
        tell(&format!("{count:6}  {kind}"));
    }
    tell(&format!("{load}, {:?}\n{audit}", began.elapsed()));
    world.end();
}
