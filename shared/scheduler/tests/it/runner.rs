//! Stories of the runner, on memory and by a clock driven by hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use scheduler::{
    Job, Refused, Stopped,
    clock::Clock,
    config::JobSettings,
    ledger::{Outcome, RunState, Wake},
    policy::ResumeFrom,
    schedule::Overlap,
    store::memory::MemoryStore,
};

use crate::{
    jobs::{Do, Replica, Told, every, pass, settle},
    world::{clock, memory},
};

pub(crate) fn told(told: &Told) -> Job<MemoryStore> {
    Job::tick("told", "does as told", every(60), told.clone())
}

/// Settings whose timeout does not come into play.
fn patient(seconds: u64) -> JobSettings {
    JobSettings { timeout: Some(Duration::from_secs(600)), ..every(seconds) }
}

fn outcomes(runs: &[scheduler::control::RunView]) -> Vec<Outcome> {
    runs.iter().filter_map(|run| run.outcome).collect()
}

#[tokio::test]
async fn each_instant_runs_once_among_three_replicas() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let replicas: Vec<Replica> = (0..3).map(|_| Replica::start(&store, &clock, [told(&job)])).collect();
    pass(&clock, 600).await;
    assert_eq!(job.count(), 10);
    let runs = replicas[0].runs("told").await;
    let nominal: Vec<_> = runs.iter().map(|run| run.nominal_at.unwrap()).collect();
    assert!(nominal.windows(2).all(|pair| pair[1] - pair[0] == TimeDelta::minutes(1)), "{nominal:?}");
    assert!(runs.iter().all(|run| run.outcome == Some(Outcome::Succeeded) && run.lateness_ms == Some(0)));
    let previous: Vec<_> = job.runs.lock().unwrap().iter().map(|run| run.previous).collect();
    assert_eq!(previous[0], None);
    assert_eq!(previous[1..], nominal[..9].iter().copied().map(Some).collect::<Vec<_>>(), "each knows the one before");
}

#[tokio::test]
async fn a_job_that_runs_on_start_does_so_once_for_the_whole_cluster() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let settings = || JobSettings { run_on_start: true, ..every(60) };
    let start = || Replica::start(&store, &clock, [Job::tick("told", "", settings(), job.clone())]);
    let replicas = [start(), start(), start()];
    settle().await;
    let runs = replicas[1].runs("told").await;
    assert_eq!((job.count(), runs[0].wake_source, runs[0].nominal_at), (1, Wake::Start, None));
}

#[tokio::test]
async fn a_failure_and_a_panic_are_outcomes_and_the_next_instant_comes() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Fail);
    let replica = Replica::start(&store, &clock, [told(&job)]);
    replica.pass(61).await;
    job.now(Do::Panic);
    replica.pass(60).await;
    job.now(Do::Succeed);
    replica.pass(60).await;
    let runs = replica.runs("told").await;
    assert_eq!(outcomes(&runs), [Outcome::Failed, Outcome::Panicked, Outcome::Succeeded]);
    assert_eq!(runs[0].error.as_deref(), Some("told to fail"));
    assert_eq!(runs[1].error.as_deref(), Some("told to panic"));
    let view = replica.running.handle().job("told").await.unwrap();
    assert_eq!(view.last_run.unwrap().id, runs[2].id);
}

#[tokio::test]
async fn a_run_that_does_not_come_back_times_out_and_later_ones_go_on() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::UntilStop);
    let settings = JobSettings { timeout: Some(Duration::from_secs(20)), ..every(60) };
    let replica = Replica::start(&store, &clock, [Job::tick("told", "", settings, job.clone())]);
    replica.pass(82).await;
    assert_eq!(outcomes(&replica.runs("told").await), [Outcome::TimedOut]);
    job.now(Do::Succeed);
    replica.pass(60).await;
    assert_eq!(outcomes(&replica.runs("told").await), [Outcome::TimedOut, Outcome::Succeeded]);
}

#[tokio::test]
async fn an_instant_that_meets_a_run_is_skipped_and_said_so() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::UntilStop);
    let replica = Replica::start(&store, &clock, [Job::tick("told", "", patient(60), job.clone())]);
    replica.pass(185).await;
    let runs = replica.runs("told").await;
    assert_eq!(outcomes(&runs), [Outcome::SkippedOverlap]);
    assert_eq!(runs.iter().find(|run| run.outcome.is_some()).unwrap().instants, 2);
    let why = replica.running.handle().why("told", clock.now() - TimeDelta::seconds(5)).await.unwrap();
    assert_eq!(serde_json::to_value(&why).unwrap()["outcome"], "skipped_overlap", "{why:?}");
}

#[tokio::test]
async fn a_newer_run_may_cancel_the_one_that_goes() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::UntilStop);
    let mut settings = patient(60);
    settings.spec.overlap = Overlap::CancelOther;
    let replica = Replica::start(&store, &clock, [Job::tick("told", "", settings, job.clone())]);
    replica.pass(61).await;
    job.now(Do::Succeed);
    replica.pass(60).await;
    assert_eq!(outcomes(&replica.runs("told").await), [Outcome::Cancelled, Outcome::Succeeded]);
}

#[tokio::test]
async fn a_pause_holds_every_replica_and_what_it_held_back_is_accounted_for() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let [one, two] = [(); 2].map(|()| Replica::start(&store, &clock, [told(&job)]));
    one.pass(61).await;
    let paused = one.running.handle().pause("told", "an operator", "calm", None).await.unwrap();
    assert!(paused.paused && paused.next_run_at.is_none());
    one.pass(200).await;
    assert_eq!(job.count(), 1);
    two.running.handle().resume("told", ResumeFrom::Now).await.unwrap();
    one.pass(60).await;
    let runs = two.runs("told").await;
    assert_eq!(outcomes(&runs), [Outcome::Succeeded, Outcome::Paused, Outcome::Succeeded]);
    assert_eq!(runs[1].instants, 3);
}

#[tokio::test]
async fn a_pause_with_an_end_ends_by_itself() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let replica = Replica::start(&store, &clock, [told(&job)]);
    settle().await;
    let until = Some(clock.now() + TimeDelta::seconds(150));
    replica.running.handle().pause("told", "an operator", "calm", until).await.unwrap();
    replica.pass(240).await;
    assert_eq!(job.count(), 2, "at 180 s and 240 s");
}

#[tokio::test]
async fn an_operator_runs_a_job_once_for_a_key_whichever_replica_is_asked() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let [one, two] = [(); 2].map(|()| Replica::start(&store, &clock, [told(&job)]));
    settle().await;
    let first = one.running.handle().run("told", Some("once"), None).await.unwrap();
    settle().await;
    let second = two.running.handle().run("told", Some("once"), None).await.unwrap();
    settle().await;
    assert_eq!((first.id, job.count()), (second.id, 1));
    assert_eq!(second.outcome, Some(Outcome::Succeeded));
    let refused = one.running.handle().run("told", None, Some(serde_json::json!({}))).await;
    assert!(matches!(refused, Err(Refused::Invalid { field: "input", .. })));
    assert!(matches!(one.running.handle().run("nobody", None, None).await, Err(Refused::UnknownJob(_))));
}

#[tokio::test]
async fn a_backfill_runs_a_range_again_an_instant_at_a_time() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let replica = Replica::start(&store, &clock, [told(&job)]);
    replica.pass(300).await;
    let from = clock.now() - TimeDelta::seconds(120);
    let queued = replica.running.handle().backfill("told", from, clock.now()).await.unwrap();
    assert_eq!(queued.len(), 3);
    replica.pass(10).await;
    assert_eq!(job.count(), 8);
    let wakes = job.runs.lock().unwrap().iter().filter(|run| run.wake == Wake::Backfill).count();
    assert_eq!(wakes, 3);
}

#[tokio::test]
async fn a_dead_owners_run_is_taken_over_with_its_cursor() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::UntilStop);
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dying = {
        let (store, clock, job) = (store.clone(), Arc::clone(&clock), job.clone());
        other.spawn(async move { Replica::start(&store, &clock, [told(&job)]) }).await.unwrap()
    };
    crate::world::eventually("it announces itself", async || {
        dying.running.handle().job("told").await.is_ok_and(|job| job.next_run_at.is_some())
    })
    .await;
    clock.advance(Duration::from_secs(60));
    crate::world::eventually("it runs", async || job.count() == 1).await;
    other.shutdown_background();
    job.now(Do::Succeed);
    let heir = Replica::start(&store, &clock, [told(&job)]);
    heir.pass(40).await;
    let runs = heir.runs("told").await;
    assert_eq!((job.count(), runs.len()), (2, 1));
    assert_eq!((runs[0].outcome, runs[0].attempt), (Some(Outcome::Succeeded), 2));
    assert_eq!(runs[0].attempts[0].outcome, Outcome::Lost);
    drop(dying);
}

#[tokio::test]
async fn a_stop_gives_runs_back_and_the_next_replica_goes_on() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::UntilStop);
    let first = Replica::start(&store, &clock, [told(&job)]);
    first.pass(61).await;
    assert_eq!(first.stop().await, Stopped::Cleanly);
    job.now(Do::Succeed);
    let second = Replica::start(&store, &clock, [told(&job)]);
    second.pass(6).await;
    let runs = second.runs("told").await;
    assert_eq!((runs[0].outcome, runs[0].attempt), (Some(Outcome::Succeeded), 1), "the attempt does not count");
    let last = job.runs.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.cursor, Some(serde_json::json!("half")), "it goes on where it was");
}

#[tokio::test]
async fn a_disabled_job_is_listed_and_never_run() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let settings = JobSettings { enabled: false, run_on_start: true, ..every(60) };
    let replica = Replica::start(&store, &clock, [Job::tick("told", "", settings, job.clone())]);
    replica.pass(180).await;
    let view = replica.running.handle().job("told").await.unwrap();
    assert!(!view.enabled && view.next_run_at.is_none());
    assert_eq!((job.count(), view.enabled_replicas.as_str()), (0, "0/1"));
    assert!(matches!(replica.running.handle().run("told", None, None).await, Err(Refused::Conflict(_))));
}

#[tokio::test]
async fn instants_while_only_disabled_replicas_lived_are_one_row_that_says_so() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let off = || JobSettings { enabled: false, ..every(60) };
    let first = Replica::start(&store, &clock, [told(&job)]);
    first.pass(60).await;
    assert_eq!(first.stop().await, Stopped::Cleanly);
    let disabled = Replica::start(&store, &clock, [Job::tick("told", "", off(), job.clone())]);
    disabled.pass(600).await;
    let again = Replica::start(&store, &clock, [told(&job)]);
    again.pass(61).await;
    let runs = again.runs("told").await;
    let told_disabled: Vec<i64> =
        runs.iter().filter(|run| run.outcome == Some(Outcome::Disabled)).map(|run| run.instants).collect();
    assert_eq!(told_disabled.len(), 1, "{runs:?}");
    assert!(told_disabled[0] >= 9, "{told_disabled:?}");
    assert_eq!(job.count(), 2, "none of them ran");
}

#[tokio::test]
async fn a_pause_of_a_job_of_one_replica_ends_by_itself_too() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let count = Arc::new(AtomicUsize::new(0));
    let job = Job::local("counts", "", every(10), Counting(Arc::clone(&count)));
    let replica = Replica::start(&store, &clock, [job]);
    replica.pass(11).await;
    let until = Some(clock.now() + TimeDelta::seconds(35));
    replica.running.handle().pause("counts", "an operator", "calm", until).await.unwrap();
    replica.pass(34).await;
    assert_eq!(count.load(Ordering::Relaxed), 1);
    replica.pass(20).await;
    assert!(count.load(Ordering::Relaxed) >= 2);
    replica.running.handle().run("counts", None, None).await.unwrap();
    let before = count.load(Ordering::Relaxed);
    settle().await;
    assert_eq!(count.load(Ordering::Relaxed), before + 1, "an operator's run comes at once");
}

/// A job of one replica that counts its runs.
struct Counting(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl scheduler::kinds::Local for Counting {
    async fn run(&self, _run: &scheduler::kinds::Run) -> Result<u64, scheduler::JobError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(1)
    }
}

#[tokio::test]
async fn after_an_outage_the_latest_instant_runs_and_the_others_are_accounted_for() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let job = Told::to(Do::Succeed);
    let first = Replica::start(&store, &clock, [told(&job)]);
    first.pass(60).await;
    assert_eq!(first.stop().await, Stopped::Cleanly);
    clock.advance(Duration::from_secs(3600));
    let second = Replica::start(&store, &clock, [told(&job)]);
    second.pass(1).await;
    let runs = second.runs("told").await;
    assert_eq!(runs.iter().map(|run| run.instants).sum::<i64>(), 61, "no instant is unexplained");
    assert_eq!(job.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_blocks_its_thread_stops_no_renewal_and_loses_its_run_to_nobody() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    let work = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (go, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let began = Arc::new(tokio::sync::Notify::new());
    let job = Blocking { blocked: Arc::clone(&blocked), began: Arc::clone(&began) };
    let replica = Replica::of(
        Replica::scheduler(&store, &clock)
            .work(work.handle().clone(), 1)
            .job(Job::local("blocks", "blocks its thread", patient(60), job))
            .job(Job::tick("told", "", every(3600), Told::to(Do::Succeed))),
        &clock,
    );
    let handle = replica.running.handle();
    crate::world::eventually("it announces itself", async || {
        handle.job("blocks").await.is_ok_and(|job| job.next_run_at.is_some())
    })
    .await;
    clock.advance(Duration::from_secs(60));
    began.notified().await;
    assert!(handle.jobs().await.unwrap().len() == 2, "operators are answered meanwhile");
    for _ in 0..12 {
        clock.advance(Duration::from_secs(5));
        settle().await;
    }
    let runs = handle.runs("blocks", None, Vec::new(), 10).await.unwrap();
    assert_eq!(runs.iter().filter(|run| run.state == RunState::Running).count(), 1, "{runs:?}");
    go.send(()).unwrap();
    crate::world::eventually("it ends", async || {
        let runs = handle.runs("blocks", None, Vec::new(), 10).await.unwrap();
        runs.iter().any(|run| run.outcome.is_some_and(Outcome::ran))
    })
    .await;
    drop(replica);
    work.shutdown_background();
}

/// A job that holds its thread until it is let go.
struct Blocking {
    blocked: Arc<std::sync::Mutex<std::sync::mpsc::Receiver<()>>>,
    began: Arc<tokio::sync::Notify>,
}

#[async_trait::async_trait]
impl scheduler::kinds::Local for Blocking {
    async fn run(&self, _run: &scheduler::kinds::Run) -> Result<u64, scheduler::JobError> {
        self.began.notify_one();
        self.blocked.lock().unwrap().recv().unwrap();
        Ok(1)
    }
}
