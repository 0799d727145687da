//! What passes and failures leave behind, transactions, pruning, nudges.

use std::{sync::Arc, time::Duration};

use scheduler::{
    clock::ManualClock,
    ledger::{Ending, Outcome, RunState, Wake},
    schedule::Overlap,
    store::{Retention, RunPage, Store, Window},
};
use uuid::Uuid;

use crate::world::{LEASE, on_all_stores};

use super::{JOB, announced, running};

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
        assert_eq!(store.next_failure(JOB).await.unwrap(), None, "it was given up");
        let other = store.set_aside(JOB, Uuid::now_v7(), "bad").await.unwrap();
        assert_eq!(store.next_failure(JOB).await.unwrap(), other.next_attempt_at);
        clock.advance(Duration::from_secs(30));
        assert_eq!(store.next_failure(JOB).await.unwrap(), None, "its time has come: it is due, or it is not");
        let (mut tx, _) = store.begin(LEASE).await.unwrap();
        store.clear_failures(&mut tx, JOB, &[other.row_id]).await.unwrap();
        store.commit(tx).await.unwrap();
        assert_eq!(waits, [Some(30), Some(120), Some(480), Some(1920), None]);
        let failures = store.failures(JOB, None, 10).await.unwrap();
        assert!(failures[0].given_up_at.is_some());
        assert!(store.retry_failure(JOB, row).await.unwrap());
        assert!(!store.retry_failure(JOB, Uuid::now_v7()).await.unwrap());
        let claimable = store.failures(JOB, None, 10).await.unwrap()[0].clone();
        assert_eq!((claimable.next_attempt_at, claimable.given_up_at), (Some(store.now().await.unwrap()), None));
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

    on_all_stores!(a_window_gathers_the_passes_of_a_replica);
    on_all_stores!(a_transaction_that_is_dropped_or_rolled_back_leaves_nothing);
    on_all_stores!(rows_set_aside_come_back_later_and_later_and_are_given_up);
    on_all_stores!(old_runs_go_in_batches_and_the_ledger_says_from_when_it_tells);
    on_all_stores!(a_nudge_reaches_whoever_listens);
}
