//! Every operation of a store, on memory, SQLite and PostgreSQL alike.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use scheduler::{
    clock::ManualClock,
    kinds::Held,
    ledger::{Ending, Outcome, Pause, RunState, Wake},
    policy::{self, ResumeFrom},
    schedule::{Overlap, Spec},
    store::{Enqueued, QueueOf, Recovery, Retention, RunPage, Store, Window},
};
use serde_json::json;
use uuid::Uuid;

use crate::world::{LEASE, announcement, decision, on_all_stores, start};

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

mod whoever_lost_the_epoch_changes_nothing {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let zombie = running(&store, &clock, Overlap::Skip).await;
        clock.advance(LEASE + Duration::from_secs(1));
        let recovery = [Recovery { job: JOB.to_owned(), resume: true, superseded: false }];
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
        running(&store, &clock, Overlap::Skip).await;
        let recovery = |resume, superseded| [Recovery { job: JOB.to_owned(), resume, superseded }];
        for attempt in 2..4 {
            clock.advance(LEASE + Duration::from_secs(1));
            let recovered = store.recover(&recovery(true, false), &[], "b", LEASE).await.unwrap();
            assert_eq!(recovered.resumed[0].attempt, attempt);
        }
        clock.advance(LEASE + Duration::from_secs(1));
        let recovered = store.recover(&recovery(true, false), &[], "b", LEASE).await.unwrap();
        assert_eq!(recovered.ended[0].reason.as_deref(), Some("crashed its worker 3 times"));
        for (resume, superseded) in [(true, true), (false, false)] {
            clock.advance(Duration::from_secs(60));
            let held = running(&store, &clock, Overlap::Skip).await;
            clock.advance(LEASE + Duration::from_secs(1));
            let recovered = store.recover(&recovery(resume, superseded), &[], "b", LEASE).await.unwrap();
            assert_eq!(recovered.ended[0].outcome, Some(Outcome::Lost));
            assert!(recovered.ended[0].epoch > held.epoch, "the dead owner may only be asleep");
        }
    }
}

mod an_owner_without_a_sign_of_life_is_dead_whatever_the_clock_says {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let held = running(&store, &clock, Overlap::Skip).await;
        let recovery = [Recovery { job: JOB.to_owned(), resume: true, superseded: false }];
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

mod a_window_gathers_the_passes_of_a_replica {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, _clock: Arc<ManualClock>) {
        announced(&store).await;
        let run = Uuid::now_v7();
        for (items, lateness_ms) in [(500, 12), (300, 40), (1, 3)] {
            let (mut tx, now) = store.begin(LEASE).await.unwrap();
            let (job, owner) = (JOB.to_owned(), "a".to_owned());
            let window = Window { job, run, owner, wake: Wake::Due, started_at: now, items, lateness_ms };
            store.window(&mut tx, &window).await.unwrap();
            store.commit(tx).await.unwrap();
        }
        let row = store.run(run).await.unwrap().unwrap();
        assert_eq!((row.items, row.passes, row.lateness_ms), (801, 3, Some(40)));
        assert_eq!((row.outcome, row.wake_source, row.nominal_at), (Some(Outcome::Succeeded), Wake::Due, None));
    }
}

mod a_transaction_that_is_dropped_or_rolled_back_leaves_nothing {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        let held = running(&store, &clock, Overlap::Skip).await;
        for drop_it in [true, false] {
            let (mut tx, _) = store.begin(LEASE).await.unwrap();
            assert!(store.complete(&mut tx, held, &Ending::succeeded(9)).await.unwrap());
            if drop_it { drop(tx) } else { store.rollback(tx).await.unwrap() }
        }
        let row = store.run(held.id).await.unwrap().unwrap();
        assert_eq!((row.state, row.items), (RunState::Running, 0));
    }
}

mod rows_set_aside_come_back_later_and_later_and_are_given_up {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        let row = Uuid::now_v7();
        let mut waits = Vec::new();
        for _ in 0..5 {
            let now = store.now().await.unwrap();
            let failure = store.set_aside(JOB, row, "bad\u{1b}[2J").await.unwrap();
            waits.push(failure.next_attempt_at.map(|next| (next - now).num_seconds()));
            assert_eq!(failure.error, "bad\\u{1b}[2J", "hostile text is escaped");
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(waits, [Some(30), Some(120), Some(480), Some(1920), None]);
        let failures = store.failures(JOB, None, 10).await.unwrap();
        assert!(failures[0].given_up_at.is_some());
        assert_eq!(store.next_failure(JOB).await.unwrap(), None);
        assert!(store.retry_failure(JOB, row).await.unwrap());
        assert!(!store.retry_failure(JOB, Uuid::now_v7()).await.unwrap());
        assert!(store.next_failure(JOB).await.unwrap().is_some());
        let (mut tx, _) = store.begin(LEASE).await.unwrap();
        store.clear_failures(&mut tx, JOB, &[row]).await.unwrap();
        store.commit(tx).await.unwrap();
        assert!(store.failures(JOB, None, 10).await.unwrap().is_empty());
    }
}

mod old_runs_go_in_batches_and_the_ledger_says_from_when_it_tells {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, clock: Arc<ManualClock>) {
        announced(&store).await;
        for number in 0..30 {
            let held = running(&store, &clock, Overlap::Skip).await;
            let ending = if number == 3 { Ending::error(Outcome::Failed, "no") } else { Ending::succeeded(1) };
            store.finish(held, &ending).await.unwrap();
            store.note(JOB, held.id, ending.outcome).await.unwrap();
            clock.advance(Duration::from_secs(60));
        }
        let keep = Retention { age: Duration::from_secs(3600), rows: 10, batch: 15 };
        assert_eq!(store.prune(JOB, keep).await.unwrap(), 15);
        assert_eq!(store.prune(JOB, keep).await.unwrap(), 4, "the failed one stays for the whole age");
        let page = RunPage { job: JOB.to_owned(), before: None, outcomes: Vec::new(), limit: 100 };
        let left = store.runs(&page).await.unwrap();
        assert_eq!(left.len(), 11);
        assert!(left.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
        let row = store.schedules(&[JOB.to_owned()]).await.unwrap().remove(0);
        assert!(row.ledger_from > row.anchor_at);
        assert_eq!(row.last_run_id, Some(left[0].id));
        let second = RunPage { before: Some(left[4].id), limit: 3, ..page.clone() };
        assert_eq!(
            store.runs(&second).await.unwrap().iter().map(|run| run.id).collect::<Vec<_>>(),
            left[5..8].iter().map(|run| run.id).collect::<Vec<_>>()
        );
        let failed = RunPage { outcomes: vec![Outcome::Failed], ..page };
        assert_eq!(store.runs(&failed).await.unwrap().len(), 1);
        assert!(store.previous_success(JOB).await.unwrap().is_some());
        clock.advance(Duration::from_secs(7200));
        while store.prune(JOB, keep).await.unwrap() > 0 {}
        assert!(store.runs(&failed).await.unwrap().is_empty());
    }
}

mod a_nudge_reaches_whoever_listens {
    use super::*;

    pub(super) async fn story<S: Store>(store: S, _clock: Arc<ManualClock>) {
        let mut nudges = store.clone().nudges();
        let nudge =
            scheduler::store::Nudge { job: JOB.to_owned(), due: Some(store.now().await.unwrap()), by: "a".to_owned() };
        store.nudge(&nudge).await.unwrap();
        assert_eq!(nudges.recv().await.unwrap(), nudge);
    }
}

mod tests {
    use super::on_all_stores;

    on_all_stores!(a_first_announcement_makes_the_row_and_a_changed_spec_is_written_by_the_last_that_starts);
    on_all_stores!(of_many_who_decide_the_same_one_wins);
    on_all_stores!(a_decision_moves_the_row_and_writes_its_ledger);
    on_all_stores!(a_paused_row_is_not_decided);
    on_all_stores!(overlap_is_decided_by_the_ledger);
    on_all_stores!(an_instant_that_has_a_row_gets_no_second);
    on_all_stores!(whoever_lost_the_epoch_changes_nothing);
    on_all_stores!(the_third_loss_is_final_and_so_is_one_whose_next_instant_came);
    on_all_stores!(an_owner_without_a_sign_of_life_is_dead_whatever_the_clock_says);
    on_all_stores!(a_stop_gives_a_run_back_without_counting_the_attempt);
    on_all_stores!(a_step_that_waits_is_taken_when_its_time_has_come);
    on_all_stores!(an_operators_run_waits_and_its_key_is_remembered_for_a_day);
    on_all_stores!(queued_runs_are_taken_by_one_replica_each);
    on_all_stores!(a_window_gathers_the_passes_of_a_replica);
    on_all_stores!(a_transaction_that_is_dropped_or_rolled_back_leaves_nothing);
    on_all_stores!(rows_set_aside_come_back_later_and_later_and_are_given_up);
    on_all_stores!(old_runs_go_in_batches_and_the_ledger_says_from_when_it_tells);
    on_all_stores!(a_nudge_reaches_whoever_listens);
}
