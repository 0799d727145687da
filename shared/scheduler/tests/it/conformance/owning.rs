//! Runs and who may end them: epochs, losses, queues.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use scheduler::{
    clock::{Clock, ManualClock},
    kinds::Held,
    ledger::{Ending, Outcome, RunState, Wake},
    schedule::Overlap,
    store::{Enqueued, QueueOf, Recovery, Store, memory::DueRow},
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    jobs::ROWS,
    world::{LEASE, clock, memory, on_all_stores, start},
};

use super::{JOB, announced, running};

mod whoever_lost_the_epoch_changes_nothing {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let zombie = running(&store, &clock, Overlap::Skip).await;
        clock.advance(LEASE + Duration::from_secs(1));
        let recovery = [Recovery { job: JOB.to_owned(), resume: true, runs: vec![(zombie.id, None)] }];
        let recovered = store.recover(&recovery, &[], "b", LEASE).await.unwrap();
        let heir = Held { id: recovered.resumed[0].id, epoch: recovered.resumed[0].epoch };
        assert!(heir.id == zombie.id && heir.epoch > zombie.epoch);
        assert_eq!(recovered.resumed[0].attempt, 2);

        let ending = Ending::succeeded(5);
        assert!(!store.renew(&[zombie], LEASE).await.unwrap()[0].alive);
        assert!(!store.finish(zombie, &ending).await.unwrap());
        assert!(!store.release(zombie).await.unwrap());
        let (mut tx, now) = store.begin(LEASE).await.unwrap();
        assert!(!store.complete(&mut tx, zombie, &ending).await.unwrap());
        assert!(!store.checkpoint(&mut tx, zombie, 1, Some(&json!(1))).await.unwrap());
        assert!(!store.wait(&mut tx, zombie, 1, &json!(1), now).await.unwrap());
        store.rollback(tx).await.unwrap();
        store.fenced(zombie).await.unwrap();
        let row = store.run(heir.id).await.unwrap().unwrap();
        assert_eq!((row.state, row.items, row.cursor.clone()), (RunState::Running, 0, None));
        assert_eq!(row.attempts.iter().map(|attempt| attempt.outcome).collect::<Vec<_>>(), [Outcome::Fenced]);

        let (mut tx, _) = store.begin(LEASE).await.unwrap();
        assert!(store.checkpoint(&mut tx, heir, 2, Some(&json!({ "page": 3 }))).await.unwrap());
        assert!(store.complete(&mut tx, heir, &ending).await.unwrap());
        store.commit(tx).await.unwrap();
        let row = store.run(heir.id).await.unwrap().unwrap();
        assert_eq!((row.outcome, row.items, row.passes), (Some(Outcome::Succeeded), 7, 1));
        assert_eq!(row.cursor, Some(json!({ "page": 3 })));
        assert!(!store.finish(heir, &ending).await.unwrap(), "a run ends once");
    }
}

mod the_third_loss_is_final_and_so_is_one_whose_next_instant_came {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let mut owner = running(&store, &clock, Overlap::Skip).await;
        let recovery = |resume, runs| [Recovery { job: JOB.to_owned(), resume, runs }];
        for attempt in 2..4 {
            clock.advance(LEASE + Duration::from_secs(1));
            let recovered = store.recover(&recovery(true, vec![(owner.id, None)]), &[], "b", LEASE).await.unwrap();
            assert_eq!(recovered.resumed[0].attempt, attempt);
            store.fenced(owner).await.unwrap(); // it only slept: the loss counts all the same
            owner = Held { id: owner.id, epoch: recovered.resumed[0].epoch };
        }
        clock.advance(LEASE + Duration::from_secs(1));
        let recovered = store.recover(&recovery(true, vec![(owner.id, None)]), &[], "b", LEASE).await.unwrap();
        assert_eq!(recovered.ended[0].reason.as_deref(), Some("crashed its worker 3 times"));
        for (resume, is_superseded) in [(true, true), (false, false)] {
            clock.advance(Duration::from_secs(60));
            let held = running(&store, &clock, Overlap::Skip).await;
            clock.advance(LEASE + Duration::from_secs(1));
            let next = is_superseded.then(|| clock.now());
            let recovered = store.recover(&recovery(resume, vec![(held.id, next)]), &[], "b", LEASE).await.unwrap();
            assert_eq!(recovered.ended[0].outcome, Some(Outcome::Lost));
            assert!(recovered.ended[0].epoch > held.epoch, "the dead owner may only be asleep");
        }
        let mut three = Vec::new();
        for _ in 0..3 {
            clock.advance(Duration::from_secs(60));
            three.push(running(&store, &clock, Overlap::AllowAll).await.id);
        }
        clock.advance(LEASE + Duration::from_secs(1));
        // One instant is due by the store's clock, the other a moment later.
        let (due, ahead) = (clock.now(), clock.now() + Duration::from_micros(1));
        let runs = vec![(three[0], Some(due)), (three[1], Some(ahead))];
        let recovered = store.recover(&recovery(true, runs), &[], "b", LEASE).await.unwrap();
        let ids = |rows: &[scheduler::ledger::RunRow]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(
            (ids(&recovered.ended), ids(&recovered.resumed)),
            (vec![three[0]], vec![three[1]]),
            "each by itself"
        );
        let left = store.run(three[2]).await.unwrap().unwrap();
        assert_eq!(
            (left.state, left.attempt),
            (RunState::Running, 1),
            "nobody said when the instant after its own is due"
        );
    }
}

mod an_owner_without_a_sign_of_life_is_dead_whatever_the_clock_says {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let held = running(&store, &clock, Overlap::Skip).await;
        let recovery = [Recovery { job: JOB.to_owned(), resume: true, runs: vec![(held.id, None)] }];
        clock.step(TimeDelta::hours(-1));
        assert!(store.recover(&recovery, &[], "b", LEASE).await.unwrap().resumed.is_empty());
        assert!(store.recover(&recovery, &[(held, 1)], "b", LEASE).await.unwrap().resumed.is_empty(), "another beat");
        assert_eq!(store.recover(&recovery, &[(held, 0)], "b", LEASE).await.unwrap().resumed.len(), 1);
    }
}

mod a_stop_gives_a_run_back_without_counting_the_attempt {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let held = running(&store, &clock, Overlap::Skip).await;
        assert!(store.release(held).await.unwrap());
        let queue = [QueueOf { job: JOB.to_owned(), exclusive: true }];
        let taken = store.take_queued(&queue, "b", LEASE).await.unwrap().remove(0);
        assert_eq!((taken.id, taken.attempt, taken.owner.as_deref()), (held.id, 1, Some("b")));
        assert!(taken.epoch > held.epoch);
        assert_eq!(taken.attempts[0].outcome, Outcome::Interrupted);
        assert!(!store.finish(held, &Ending::succeeded(1)).await.unwrap());
    }
}

mod a_step_that_waits_is_taken_when_its_time_has_come {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let held = running(&store, &clock, Overlap::Skip).await;
        let (mut tx, now) = store.begin(LEASE).await.unwrap();
        assert!(store.wait(&mut tx, held, 3, &json!("batch-7"), now + TimeDelta::minutes(10)).await.unwrap());
        store.commit(tx).await.unwrap();
        let queue = [QueueOf { job: JOB.to_owned(), exclusive: true }];
        assert!(store.take_queued(&queue, "b", LEASE).await.unwrap().is_empty());
        clock.advance(Duration::from_secs(600));
        let taken = store.take_queued(&queue, "b", LEASE).await.unwrap().remove(0);
        assert_eq!((taken.cursor, taken.items), (Some(json!("batch-7")), 3));
    }
}

mod an_operators_run_waits_and_its_key_is_remembered_for_a_day {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let now = store.now().await.unwrap();
        let manual =
            |key: &str| scheduler::ledger::NewRun { wake: Wake::Manual, ..start(&format!("manual:{key}"), None, now) };
        let Enqueued::New(first) = store.enqueue(JOB, manual("k"), 2).await.unwrap() else { panic!("it is new") };
        let Enqueued::Existing(same) = store.enqueue(JOB, manual("k"), 2).await.unwrap() else { panic!("it is known") };
        assert_eq!(first.id, same.id);
        assert!(matches!(store.enqueue(JOB, manual("l"), 2).await.unwrap(), Enqueued::New(_)));
        assert!(matches!(store.enqueue(JOB, manual("m"), 2).await.unwrap(), Enqueued::Full));
        let queue = [QueueOf { job: JOB.to_owned(), exclusive: true }];
        let taken = store.take_queued(&queue, "a", LEASE).await.unwrap();
        assert_eq!(taken.len(), 1, "one at a time");
        assert!(store.take_queued(&queue, "b", LEASE).await.unwrap().is_empty());
        let held = Held { id: taken[0].id, epoch: taken[0].epoch };
        store.finish(held, &Ending::succeeded(0)).await.unwrap();
        assert_eq!(store.take_queued(&queue, "b", LEASE).await.unwrap().len(), 1, "then the next");
        clock.advance(Duration::from_secs(25 * 3600));
        assert!(matches!(store.enqueue(JOB, manual("k"), 2).await.unwrap(), Enqueued::New(_)), "a day later it is new");
    }
}

mod queued_runs_are_taken_by_one_replica_each {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, _clock: Arc<ManualClock>) {
        announced(&store).await;
        let now = store.now().await.unwrap();
        for number in 0..20 {
            store.enqueue(JOB, start(&format!("tick:{number}"), None, now), 100).await.unwrap();
        }
        let queue = [QueueOf { job: JOB.to_owned(), exclusive: false }];
        let racing = (0..8).map(|replica| {
            let (store, queue) = (store.clone(), queue.clone());
            async move { store.take_queued(&queue, &format!("r{replica}"), LEASE).await.unwrap() }
        });
        let taken: Vec<_> = futures_util::future::join_all(racing).await.into_iter().flatten().collect();
        let ids: std::collections::HashSet<Uuid> = taken.iter().map(|run| run.id).collect();
        assert_eq!((taken.len(), ids.len()), (20, 20));
    }
}

mod tests {
    use super::on_all_stores;

    on_all_stores!(whoever_lost_the_epoch_changes_nothing);
    on_all_stores!(the_third_loss_is_final_and_so_is_one_whose_next_instant_came);
    on_all_stores!(an_owner_without_a_sign_of_life_is_dead_whatever_the_clock_says);
    on_all_stores!(a_stop_gives_a_run_back_without_counting_the_attempt);
    on_all_stores!(a_step_that_waits_is_taken_when_its_time_has_come);
    on_all_stores!(an_operators_run_waits_and_its_key_is_remembered_for_a_day);
    on_all_stores!(queued_runs_are_taken_by_one_replica_each);
}

/// On memory alone: databases let nobody end a run that a transaction has completed.
#[tokio::test]
async fn a_transaction_whose_run_was_ended_by_another_writes_none_of_its_rows() {
    let clock = clock();
    let (store, _keep) = memory(&clock);
    announced(&store).await;
    let held = running(&store, &clock, Overlap::Skip).await;
    let (mut tx, _) = store.begin(LEASE).await.unwrap();
    ROWS.put(&mut tx, DueRow { id: Uuid::from_u128(1), ..DueRow::default() });
    assert!(store.complete(&mut tx, held, &Ending::succeeded(1)).await.unwrap());
    assert!(store.finish(held, &Ending::error(Outcome::Failed, "ended by another")).await.unwrap());
    assert!(store.commit(tx).await.is_err());
    assert!(store.rows(ROWS).is_empty());
    assert_eq!(store.run(held.id).await.unwrap().unwrap().outcome, Some(Outcome::Failed));
}
