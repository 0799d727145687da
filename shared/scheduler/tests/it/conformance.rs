//! Every operation of a store, on memory, SQLite and PostgreSQL alike.

mod deciding;
mod keeping;
mod owning;

use std::time::Duration;

use scheduler::{
    clock::ManualClock,
    kinds::Held,
    schedule::{Overlap, Spec},
    store::Store,
};

use crate::world::{LEASE, announcement, decision};

const JOB: &str = "job";

fn minute() -> Spec {
    Spec::every(Duration::from_secs(60))
}

async fn announced<S: Store>(store: &S) {
    store.announce("a", &[announcement(JOB, &minute())]).await.unwrap();
}

/// A run that is ours and goes on.
async fn running<S: Store>(store: &S, clock: &ManualClock, overlap: Overlap) -> Held {
    let nominal = scheduler::clock::Clock::now(clock);
    let decided = store.decide(vec![decision(store, JOB, overlap, nominal).await], "a", LEASE).await.unwrap();
    let run = decided[0].started.first().expect("it starts");
    Held { id: run.id, epoch: run.epoch }
}
