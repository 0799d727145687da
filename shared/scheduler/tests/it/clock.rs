//! Clocks that step, and next instants that lie too far ahead, by a clock driven by hand.

use chrono::TimeDelta;
use scheduler::store::Store;

use crate::{
    jobs::{Do, Replica, Told},
    runner::told,
    world::{clock, memory},
};

#[tokio::test]
async fn a_clock_that_steps_back_neither_repeats_nor_stops_the_schedule() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let replica = Replica::start(&store, &clock, [told(&job)]);
    replica.pass(130).await;
    clock.step(-TimeDelta::hours(5));
    replica.pass(190).await;
    let runs = replica.runs("told").await;
    let mut nominal: Vec<_> = runs.iter().filter_map(|run| run.nominal_at).collect();
    nominal.sort();
    nominal.dedup();
    assert_eq!(nominal.len(), runs.len(), "no instant twice");
    assert!(runs.len() >= 4, "it goes on within minutes, not after five hours: {}", runs.len());
}

#[tokio::test]
async fn a_next_instant_that_somebody_else_put_too_far_ahead_is_set_back() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let replica = Replica::start(&store, &clock, [told(&job)]);
    replica.pass(130).await;
    let before = job.count();
    // As a replica would whose clock is hours ahead.
    let row = store.schedules(&["told".to_owned()]).await.unwrap().remove(0);
    let ahead = (row.anchor_at, row.next_at.map(|next| next + TimeDelta::hours(5)));
    assert!(store.set_override("told", row.epoch, None, ahead).await.unwrap());
    replica.pass(190).await;
    assert_eq!(job.count() - before, 3, "it goes on within a sweep, not after five hours");
}
