//! Stories of due rows, on memory and by a clock driven by hand.

use std::{sync::atomic::Ordering, time::Duration};

use chrono::TimeDelta;
use scheduler::{Job, clock::Clock, config::JobSettings, ledger::Wake, policy::ResumeFrom, store::memory::MemoryStore};

use crate::{
    jobs::{Deal, ROWS, Replica, due_in, every, settle},
    world::{clock, memory},
};

fn deal(deal: &Deal) -> Job<MemoryStore> {
    Job::claim("deal", "deals with due rows", every(86_400), deal.clone())
}

#[tokio::test]
async fn a_row_is_dealt_with_at_its_moment_whatever_the_interval() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deal::default();
    let replica = Replica::start(&store, &clock, [deal(&job)]);
    settle().await;
    let ids = due_in(&store, &clock, 30, 1);
    replica.running.handle().changed();
    settle().await;
    clock.advance(Duration::from_millis(29_999));
    settle().await;
    assert_eq!(store.rows(ROWS)[0].due_at, Some(clock.now() + TimeDelta::milliseconds(1)));
    clock.advance(Duration::from_millis(2));
    settle().await;
    let row = store.rows(ROWS).remove(0);
    assert_eq!((row.id, row.due_at, row.data["times"].as_i64()), (ids[0], None, Some(1)));
    let runs = replica.runs("deal").await;
    assert_eq!(
        (runs[0].wake_source, runs[0].lateness_ms, runs[0].items),
        (Wake::Due, Some(1), 1),
        "the margin of the clock's estimate"
    );
}

#[tokio::test]
async fn without_any_hint_a_row_is_at_most_a_sweep_late() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deal::default();
    let replica = Replica::of(Replica::scheduler(&store, &clock).hints(false).job(deal(&job)), &clock);
    replica.pass(7).await;
    due_in(&store, &clock, 0, 3);
    replica.pass(5).await;
    assert!(store.rows(ROWS).iter().all(|row| row.due_at.is_none()));
    assert_eq!(replica.runs("deal").await[0].items, 3);
}

#[tokio::test]
async fn a_run_whose_process_is_ahead_deals_with_no_row_before_the_store_says_that_it_is_due() {
    let (of_the_store, ahead) = (clock(), clock());
    ahead.step(TimeDelta::seconds(5));
    let (store, _keep) = memory(&of_the_store);
    let job = Deal::default();
    let replica = Replica::start(&store, &ahead, [deal(&job)]);
    settle().await;
    let row = due_in(&store, &of_the_store, 2, 1)[0];
    let run = replica.running.handle().run("deal", None, None).await.unwrap();
    settle().await;
    assert!(store.rows(ROWS)[0].due_at.is_some(), "{row} is due in two seconds");
    assert_eq!(replica.runs("deal").await[0].id, run.id);
    of_the_store.advance(Duration::from_secs(2));
    replica.running.handle().run("deal", None, None).await.unwrap();
    settle().await;
    assert!(store.rows(ROWS)[0].due_at.is_none());
}

#[tokio::test]
async fn poison_rows_are_set_aside_and_the_others_go_through() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deal::default();
    let ids = due_in(&store, &clock, 5, 1_000);
    let bad = [ids[0], ids[499], ids[999]];
    job.poison.lock().unwrap().extend(bad);
    let replica = Replica::start(&store, &clock, [deal(&job)]);
    replica.pass(6).await;
    let left: Vec<_> = store.rows(ROWS).into_iter().filter(|row| row.due_at.is_some()).collect();
    assert_eq!(left.iter().map(|row| row.id).collect::<Vec<_>>(), bad);
    let acts = job.acts.load(Ordering::Relaxed);
    assert!(acts <= 2 + 3 * 2 * 10, "halving takes few batches: {acts}");
    let aside = replica.running.handle().failures("deal", None, 10).await.unwrap();
    assert_eq!(aside.len(), 3);
    assert!(aside[0].error.contains("is poison"));

    job.poison.lock().unwrap().clear();
    replica.running.handle().retry_failure("deal", bad[0]).await.unwrap();
    replica.pass(1).await;
    assert_eq!(store.rows(ROWS).iter().filter(|row| row.due_at.is_some()).count(), 2);
    replica.pass(40).await;
    assert_eq!(store.rows(ROWS).iter().filter(|row| row.due_at.is_some()).count(), 0, "after 30 s by themselves");
    assert!(replica.running.handle().failures("deal", None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_row_that_makes_the_job_panic_is_set_aside_and_the_others_go_through() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deal { panics: true, ..Deal::default() };
    let ids = due_in(&store, &clock, 5, 100);
    job.poison.lock().unwrap().push(ids[41]);
    let replica = Replica::start(&store, &clock, [deal(&job)]);
    replica.pass(6).await;
    let left: Vec<_> = store.rows(ROWS).into_iter().filter(|row| row.due_at.is_some()).map(|row| row.id).collect();
    assert_eq!(left, [ids[41]]);
    let aside = replica.running.handle().failures("deal", None, 10).await.unwrap();
    assert!(aside[0].error.contains("is too much"), "{aside:?}");
}

#[tokio::test]
async fn a_batch_that_takes_longer_than_the_timeout_is_halved_down_to_the_row_whose_fault_it_is() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deal { hangs: true, ..Deal::default() };
    let ids = due_in(&store, &clock, 5, 2);
    job.poison.lock().unwrap().push(ids[1]);
    let settings = JobSettings { timeout: Some(Duration::from_secs(10)), ..every(86_400) };
    let replica = Replica::start(&store, &clock, [Job::claim("deal", "deals with due rows", settings, job)]);
    // The batch, then the half with the row: each its timeout, and what a job is given to react.
    replica.pass(5 + 2 * (10 + 8)).await;
    let left: Vec<_> = store.rows(ROWS).into_iter().filter(|row| row.due_at.is_some()).map(|row| row.id).collect();
    assert_eq!(left, [ids[1]]);
    let aside = replica.running.handle().failures("deal", None, 10).await.unwrap();
    assert_eq!(aside.iter().map(|row| row.row_id).collect::<Vec<_>>(), [ids[1]]);
    assert!(aside[0].error.contains("took longer than 10s"), "{aside:?}");
}

#[tokio::test]
async fn a_job_that_leaves_its_rows_due_does_not_spin() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deal { forgets: true, ..Deal::default() };
    due_in(&store, &clock, 1, 3);
    let replica = Replica::start(&store, &clock, [deal(&job)]);
    replica.pass(4).await;
    assert!(job.acts.load(Ordering::Relaxed) < 20, "{job:?}", job = job.acts);
    let aside = replica.running.handle().failures("deal", None, 10).await.unwrap();
    assert!(aside[0].error.contains("still due"), "{aside:?}");
}

#[tokio::test]
async fn a_pass_whose_batches_go_on_behind_each_other_looks_from_the_beginning_before_it_ends() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deal { forgets: true, ..Deal::default() };
    due_in(&store, &clock, 1, 2_000);
    let replica = Replica::start(&store, &clock, [deal(&job)]);
    replica.pass(2).await;
    let aside = replica.running.handle().failures("deal", None, 10).await.unwrap();
    assert!(aside[0].error.contains("still due"), "{aside:?}");
}

#[tokio::test]
async fn a_pass_begins_at_the_first_due_row_and_reads_nothing_of_what_was_dealt_with_before_it() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deal::default();
    let replica = Replica::start(&store, &clock, [deal(&job)]);
    let first = clock.now() + TimeDelta::seconds(2);
    due_in(&store, &clock, 2, 3);
    replica.running.handle().changed();
    replica.pass(3).await;
    assert_eq!(store.rows(ROWS).iter().filter(|row| row.due_at.is_some()).count(), 0);
    let begins = job.behind.lock().unwrap().first().copied().flatten().map(|(due, _)| first - due);
    assert_eq!(begins, Some(TimeDelta::microseconds(1)));
}

#[tokio::test]
async fn a_row_whose_next_try_has_come_is_dealt_with_though_the_first_that_was_read_falls_due_later() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deal::default();
    let bad = due_in(&store, &clock, 1, 1)[0];
    job.poison.lock().unwrap().push(bad);
    let replica = Replica::start(&store, &clock, [deal(&job)]);
    replica.pass(2).await;
    assert_eq!(replica.running.handle().failures("deal", None, 10).await.unwrap().len(), 1);
    job.poison.lock().unwrap().clear();
    due_in(&store, &clock, 100, 1);
    replica.running.handle().changed();
    job.behind.lock().unwrap().clear();
    replica.pass(31).await;
    assert_eq!(job.behind.lock().unwrap().first(), Some(&None), "from before all rows");
    let left = store.rows(ROWS).into_iter().filter(|row| row.id == bad && row.due_at.is_some()).count();
    assert_eq!(left, 0, "its next try was after 30 s");
}

#[tokio::test]
async fn a_paused_job_leaves_due_rows_alone_and_resuming_makes_a_pass_at_once() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Deal::default();
    let replica = Replica::start(&store, &clock, [deal(&job)]);
    settle().await;
    replica.running.handle().pause("deal", "an operator", "calm", None).await.unwrap();
    due_in(&store, &clock, 1, 3);
    replica.pass(20).await;
    assert_eq!(job.acts.load(Ordering::Relaxed), 0);
    replica.running.handle().resume("deal", ResumeFrom::Now).await.unwrap();
    settle().await;
    assert_eq!(store.rows(ROWS).iter().filter(|row| row.due_at.is_some()).count(), 0);
}
