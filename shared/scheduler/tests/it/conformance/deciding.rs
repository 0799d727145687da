//! Schedules, decisions, pauses, overlap.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use scheduler::{
    clock::ManualClock,
    kinds::Held,
    ledger::{Ending, NewRun, Outcome, Pause, RunState, Wake},
    policy::{self, ResumeFrom},
    schedule::{Overlap, Spec},
    store::{QueueOf, RunPage, Store},
};
use uuid::Uuid;

use crate::world::{LEASE, announcement, decision, on_all_stores};

use super::{JOB, announced, minute, running};

mod a_first_announcement_makes_the_row_and_a_changed_spec_is_written_by_the_last_that_starts {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        let rows = store.announce("a", &[announcement(JOB, &minute())]).await.unwrap();
        let now = store.now().await.unwrap();
        assert_eq!((rows[0].anchor_at, rows[0].next_at), (now, Some(now + TimeDelta::minutes(1))));
        clock.advance(Duration::from_secs(10));
        let hour = Spec::every(Duration::from_secs(3600));
        let mut seen = announcement(JOB, &hour);
        seen.starting = false;
        let rows = store.announce("b", &[seen.clone()]).await.unwrap();
        assert_eq!(rows[0].spec, minute(), "saying that one lives changes nothing");
        seen.starting = true;
        seen.enabled = false;
        assert_eq!(
            store.announce("b", &[seen.clone()]).await.unwrap()[0].spec,
            minute(),
            "nor does one that is disabled"
        );
        seen.enabled = true;
        let after = store.announce("b", &[seen]).await.unwrap().remove(0);
        assert_eq!((after.spec.clone(), after.spec_by.as_str(), after.epoch), (hour, "b", rows[0].epoch + 1));
        assert_eq!(after.next_at, rows[0].next_at, "the instant that was next still comes");
        let replicas = store.replicas(JOB).await.unwrap();
        assert_eq!(replicas.len(), 2);
        assert!(replicas[0].spec_hash != replicas[1].spec_hash, "drift can be seen");
        clock.advance(Duration::from_secs(90_000));
        store.announce("c", &[announcement(JOB, &minute())]).await.unwrap();
        assert_eq!(store.replicas(JOB).await.unwrap().len(), 1, "the dead are forgotten after a day");
    }
}

mod of_many_who_decide_the_same_one_wins {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        for round in 0..5 {
            clock.advance(Duration::from_secs(60));
            let nominal = store.now().await.unwrap();
            let wanted = decision(&store, JOB, Overlap::AllowAll, nominal).await;
            let racing = (0..8).map(|replica| {
                let (store, mut wanted) = (store.clone(), wanted.clone());
                wanted.starts[0].id = Uuid::now_v7();
                async move { store.decide(vec![wanted], &format!("r{replica}"), LEASE).await.unwrap().remove(0) }
            });
            let decided = futures_util::future::join_all(racing).await;
            let won: Vec<_> = decided.iter().filter(|decided| decided.won).collect();
            assert_eq!(won.len(), 1, "round {round}");
            assert_eq!(won[0].started.len(), 1);
        }
        assert_eq!(store.running(&[JOB.to_owned()]).await.unwrap().len(), 5);
    }
}

mod a_decision_moves_the_row_and_writes_its_ledger {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        clock.advance(Duration::from_secs(3600));
        let row = store.schedules(&[]).await.unwrap().remove(0);
        let now = store.now().await.unwrap();
        let decided = policy::decide(&row, now, &mut Uuid::now_v7).unwrap();
        let result = store.decide(vec![decided.clone()], "a", LEASE).await.unwrap().remove(0);
        let run = &result.started[0];
        assert_eq!((run.state, run.owner.as_deref(), run.lateness_ms), (RunState::Running, Some("a"), Some(0)));
        let after = store.schedules(&[JOB.to_owned()]).await.unwrap().remove(0);
        assert_eq!((after.next_at, after.epoch), (decided.next_at, row.epoch + 1));
        let missed = store.run_at(JOB, now - TimeDelta::minutes(30)).await.unwrap().unwrap();
        assert_eq!((missed.outcome, missed.instants), (Some(Outcome::Missed), 58));
        let within_grace = store.run_at(JOB, now - TimeDelta::minutes(1)).await.unwrap().unwrap();
        assert_eq!((within_grace.outcome, within_grace.into_run), (Some(Outcome::Coalesced), Some(run.id)));
        let latest = store.run_at(JOB, now).await.unwrap().unwrap();
        assert_eq!(latest.id, run.id);
        assert_eq!(store.run_at(JOB, row.anchor_at).await.unwrap(), None);
    }
}

mod a_paused_row_is_not_decided {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        clock.advance(Duration::from_secs(60));
        let now = store.now().await.unwrap();
        let wanted = decision(&store, JOB, Overlap::Skip, now).await;
        let pause = Pause { at: now, by: "op".to_owned(), reason: "calm".to_owned(), until: None };
        let row = store.pause(JOB, &pause).await.unwrap().unwrap();
        assert_eq!(row.pause.as_ref(), Some(&pause));
        assert!(!store.decide(vec![wanted.clone()], "a", LEASE).await.unwrap()[0].won);
        let mut fresh = wanted;
        fresh.seen_epoch = row.epoch;
        assert!(!store.decide(vec![fresh], "a", LEASE).await.unwrap()[0].won, "not even by its present epoch");
        clock.advance(Duration::from_secs(600));
        let left = policy::resume(&row, store.now().await.unwrap(), ResumeFrom::CatchUp, &mut Uuid::now_v7);
        let mut stale = left.clone();
        stale.seen_epoch -= 1;
        assert!(!store.resume(JOB, &stale).await.unwrap());
        assert!(store.resume(JOB, &left).await.unwrap());
        let after = store.schedules(&[JOB.to_owned()]).await.unwrap().remove(0);
        assert_eq!((after.pause, after.next_at), (None, left.next_at));
        let queue = [QueueOf { job: JOB.to_owned(), exclusive: true }];
        let taken = store.take_queued(&queue, "a", LEASE).await.unwrap();
        assert_eq!((taken.len(), taken[0].wake_source), (1, Wake::CatchUp));
        assert_eq!(store.pause("nobody", &pause).await.unwrap(), None);
    }
}

mod overlap_is_decided_by_the_ledger {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let first = running(&store, &clock, Overlap::Skip).await;
        for _ in 0..3 {
            clock.advance(Duration::from_secs(60));
            let now = store.now().await.unwrap();
            let decided =
                store.decide(vec![decision(&store, JOB, Overlap::Skip, now).await], "b", LEASE).await.unwrap();
            assert!(decided[0].won && decided[0].started.is_empty());
        }
        let skipped = store.run_at(JOB, store.now().await.unwrap()).await.unwrap().unwrap();
        assert_eq!((skipped.outcome, skipped.instants), (Some(Outcome::SkippedOverlap), 3), "one row for neighbours");

        for (expected, overlap) in [(RunState::Queued, Overlap::BufferOne), (RunState::Done, Overlap::BufferOne)] {
            clock.advance(Duration::from_secs(60));
            let now = store.now().await.unwrap();
            store.decide(vec![decision(&store, JOB, overlap, now).await], "b", LEASE).await.unwrap();
            let row = store.run_at(JOB, now).await.unwrap().unwrap();
            assert_eq!(row.state, expected, "{:?}", row.reason);
        }
        clock.advance(Duration::from_secs(60));
        let now = store.now().await.unwrap();
        let decided =
            store.decide(vec![decision(&store, JOB, Overlap::CancelOther, now).await], "b", LEASE).await.unwrap();
        assert_eq!(decided[0].disturbed, [first]);
        assert!(store.renew(&[first], LEASE).await.unwrap()[0].cancel, "its owner hears of it");

        clock.advance(Duration::from_secs(60));
        let now = store.now().await.unwrap();
        let decided =
            store.decide(vec![decision(&store, JOB, Overlap::TerminateOther, now).await], "b", LEASE).await.unwrap();
        assert_eq!((decided[0].disturbed.as_slice(), decided[0].started.len()), (&[first][..], 1));
        let closed = store.run(first.id).await.unwrap().unwrap();
        assert_eq!(closed.outcome, Some(Outcome::Terminated));
        assert!(!store.finish(first, &Ending::succeeded(1)).await.unwrap(), "the closed run's end is refused");
    }
}

mod an_instant_that_has_a_row_gets_no_second {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let held = running(&store, &clock, Overlap::Skip).await;
        store.finish(held, &Ending::succeeded(0)).await.unwrap();
        let nominal = store.now().await.unwrap();
        let again = store.decide(vec![decision(&store, JOB, Overlap::Skip, nominal).await], "b", LEASE).await.unwrap();
        assert!(again[0].won && again[0].started.is_empty());
        let page = RunPage { job: JOB.to_owned(), before: None, outcomes: Vec::new(), limit: 10 };
        assert_eq!(store.runs(&page).await.unwrap().len(), 1);
    }
}

mod a_buffer_of_all_holds_a_hundred_and_then_says_that_it_is_full {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let first = running(&store, &clock, Overlap::BufferAll).await;
        for _ in 0..102 {
            clock.advance(Duration::from_secs(60));
            let now = store.now().await.unwrap();
            store.renew(&[first], Duration::from_secs(3600)).await.unwrap();
            store.decide(vec![decision(&store, JOB, Overlap::BufferAll, now).await], "b", LEASE).await.unwrap();
        }
        let last = store.run_at(JOB, store.now().await.unwrap()).await.unwrap().unwrap();
        assert_eq!((last.outcome, last.reason.as_deref()), (Some(Outcome::SkippedOverlap), Some("buffer full")));
        store.finish(first, &Ending::succeeded(0)).await.unwrap();
        let queue = [QueueOf { job: JOB.to_owned(), exclusive: true }];
        let (mut nominal, mut taken) = (Vec::new(), 0);
        while let Some(run) = store.take_queued(&queue, "b", LEASE).await.unwrap().pop() {
            nominal.push(run.nominal_at);
            taken += 1;
            store.finish(Held { id: run.id, epoch: run.epoch }, &Ending::succeeded(0)).await.unwrap();
        }
        assert_eq!(taken, 100);
        assert!(nominal.windows(2).all(|pair| pair[0] < pair[1]), "in the order of their instants");
    }
}

mod a_long_queue_of_one_job_keeps_no_other_waiting {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        running(&store, &clock, Overlap::Skip).await;
        let now = store.now().await.unwrap();
        for number in 0..250 {
            let key = format!("manual:{number}");
            let run = crate::world::start(&key, None, now);
            store.enqueue(JOB, NewRun { wake: Wake::Manual, ..run }, 1_000).await.unwrap();
        }
        store.announce("a", &[announcement("other", &minute())]).await.unwrap();
        let later = crate::world::start("manual:other", None, now + TimeDelta::milliseconds(1));
        store.enqueue("other", NewRun { wake: Wake::Manual, ..later }, 10).await.unwrap();
        let queues = [JOB, "other"].map(|job| QueueOf { job: job.to_owned(), exclusive: true });
        let taken = store.take_queued(&queues, "a", LEASE).await.unwrap();
        assert_eq!(taken.iter().map(|run| run.job.as_str()).collect::<Vec<_>>(), ["other"]);
    }
}

mod tests {
    use super::on_all_stores;

    on_all_stores!(a_first_announcement_makes_the_row_and_a_changed_spec_is_written_by_the_last_that_starts);
    on_all_stores!(of_many_who_decide_the_same_one_wins);
    on_all_stores!(a_decision_moves_the_row_and_writes_its_ledger);
    on_all_stores!(a_paused_row_is_not_decided);
    on_all_stores!(overlap_is_decided_by_the_ledger);
    on_all_stores!(a_buffer_of_all_holds_a_hundred_and_then_says_that_it_is_full);
    on_all_stores!(an_instant_that_has_a_row_gets_no_second);
    on_all_stores!(a_long_queue_of_one_job_keeps_no_other_waiting);
}
