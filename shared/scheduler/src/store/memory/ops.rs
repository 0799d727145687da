//! The store's operations in memory.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{MemoryStore, MemoryTx, Stored, effects::Effect};
use crate::{
    Instant, StoreError,
    kinds::Held,
    ledger::{Ending, FailureRow, NewRun, Outcome, Pause, ReplicaRow, RunRow, RunState, ScheduleRow},
    policy::{Decision, Resume},
    store::{
        Announcement, Decided, Enqueued, Look, Nudge, QueueOf, Recovered, Recovery, Renewal, Retention, RunPage, Store,
        Window, rules,
    },
};

/// Decisions for which the store is locked in one go.
const TOGETHER: usize = 50;

#[async_trait]
impl Store for MemoryStore {
    type Tx = MemoryTx;

    async fn now(&self) -> Result<Instant, StoreError> {
        Ok(self.clock.now())
    }

    async fn announce(&self, replica: &str, jobs: &[Announcement]) -> Result<Vec<ScheduleRow>, StoreError> {
        Ok(self.atomically(|tx| {
            let rows = jobs.iter().filter_map(|said| tx.announce(replica, said)).collect();
            tx.forget_replicas();
            rows
        }))
    }

    async fn schedules(&self, jobs: &[String]) -> Result<Vec<ScheduleRow>, StoreError> {
        let tx = self.lock();
        if jobs.is_empty() {
            let mut all: Vec<ScheduleRow> = tx.state.schedules.values().cloned().collect();
            all.sort_by(|one, other| one.job.cmp(&other.job));
            return Ok(all);
        }
        Ok(jobs.iter().filter_map(|job| tx.state.schedules.get(job)).cloned().collect())
    }

    async fn look(&self, jobs: &[String]) -> Result<Look, StoreError> {
        let schedules = self.schedules(jobs).await?;
        let tx = self.lock();
        let any =
            |state| schedules.iter().any(|row| tx.state.open_of(&row.job).any(|stored| stored.row.state == state));
        let (queued, running) = (any(RunState::Queued), any(RunState::Running));
        Ok(Look { schedules, queued, running })
    }

    async fn replicas(&self, job: &str) -> Result<Vec<ReplicaRow>, StoreError> {
        let tx = self.lock();
        let from = tx.state.replicas.range((job.to_owned(), String::new())..);
        Ok(from.take_while(|((of, _), _)| of == job).map(|(_, row)| row.clone()).collect())
    }

    async fn decide(&self, decisions: Vec<Decision>, owner: &str, lease: Duration) -> Result<Vec<Decided>, StoreError> {
        let mut decided = Vec::with_capacity(decisions.len());
        let mut decisions = decisions.into_iter();
        while decisions.len() > 0 {
            // Each is atomic. The runs that go on meanwhile need not wait for all, nor be woken after each.
            let some = decisions.by_ref().take(TOGETHER);
            self.atomically(|tx| decided.extend(some.map(|decision| tx.decide(decision, owner, lease))));
        }
        Ok(decided)
    }

    async fn enqueue(&self, job: &str, run: NewRun, limit: u64) -> Result<Enqueued, StoreError> {
        Ok(self.atomically(|tx| tx.enqueue(job, run, limit)))
    }

    async fn take_queued(&self, jobs: &[QueueOf], owner: &str, lease: Duration) -> Result<Vec<RunRow>, StoreError> {
        Ok(self.atomically(|tx| jobs.iter().flat_map(|queue| tx.take_queued(queue, owner, lease)).collect()))
    }

    async fn running(&self, jobs: &[String]) -> Result<Vec<RunRow>, StoreError> {
        let tx = self.lock();
        let open = jobs.iter().flat_map(|job| tx.state.open_of(job)).map(|stored| &stored.row);
        Ok(open.filter(|row| row.state == RunState::Running).cloned().collect())
    }

    async fn recover(
        &self,
        jobs: &[Recovery],
        stale: &[(Held, i64)],
        owner: &str,
        lease: Duration,
    ) -> Result<Recovered, StoreError> {
        Ok(self.atomically(|tx| {
            let mut recovered = Recovered::default();
            for recovery in jobs {
                tx.recover(recovery, stale, owner, lease, &mut recovered);
            }
            recovered
        }))
    }

    async fn renew(&self, held: &[Held], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        Ok(self.atomically(|tx| {
            let until = tx.now + rules::delta(lease);
            let renew = |held: &Held| {
                let mut cancel = false;
                let alive = tx.change(*held, |row| {
                    row.beat += 1;
                    row.lease_until = Some(until);
                    cancel = row.cancel_at.is_some();
                });
                Renewal { held: *held, alive, cancel }
            };
            held.iter().map(renew).collect()
        }))
    }

    async fn finish(&self, held: Held, ending: &Ending) -> Result<bool, StoreError> {
        Ok(self.atomically(|tx| tx.end(held, ending)))
    }

    async fn note(&self, job: &str, run: Uuid, outcome: Outcome) -> Result<(), StoreError> {
        self.atomically(|tx| tx.note(job, run, outcome));
        Ok(())
    }

    async fn release(&self, held: Held) -> Result<bool, StoreError> {
        Ok(self.atomically(|tx| {
            let now = tx.now;
            tx.change(held, |row| rules::release(row, now))
        }))
    }

    async fn fenced(&self, held: Held) -> Result<(), StoreError> {
        self.atomically(|tx| tx.state.runs.get_mut(&held.id).map(|stored| rules::fence(&mut stored.row, held)));
        Ok(())
    }

    async fn pause(&self, job: &str, pause: &Pause) -> Result<Option<ScheduleRow>, StoreError> {
        Ok(self.atomically(|tx| {
            let mut row = tx.state.schedules.get(job).cloned()?;
            row.pause = Some(pause.clone());
            row.epoch += 1;
            tx.put_schedule(row.clone());
            Some(row)
        }))
    }

    async fn resume(&self, job: &str, resume: &Resume) -> Result<bool, StoreError> {
        Ok(self.atomically(|tx| tx.resume(job, resume)))
    }

    async fn set_override(
        &self,
        job: &str,
        seen_epoch: i64,
        overrides: Option<Value>,
        next: (Instant, Option<Instant>),
    ) -> Result<bool, StoreError> {
        Ok(self.atomically(|tx| {
            let Some(mut row) = tx.state.schedules.get(job).filter(|row| row.epoch == seen_epoch).cloned() else {
                return false;
            };
            row.epoch += 1;
            row.overrides = overrides;
            (row.anchor_at, row.next_at) = next;
            tx.put_schedule(row);
            true
        }))
    }

    async fn run(&self, id: Uuid) -> Result<Option<RunRow>, StoreError> {
        Ok(self.lock().state.runs.get(&id).map(|stored| stored.row.clone()))
    }

    async fn runs(&self, page: &RunPage) -> Result<Vec<RunRow>, StoreError> {
        let tx = self.lock();
        let rows = tx.state.runs_of(&page.job).rev().map(|stored| &stored.row);
        let wanted = |row: &&RunRow| {
            page.before.is_none_or(|before| row.id < before)
                && (page.outcomes.is_empty() || row.outcome.is_some_and(|outcome| page.outcomes.contains(&outcome)))
        };
        Ok(rows.filter(wanted).take(usize::try_from(page.limit).unwrap_or(usize::MAX)).cloned().collect())
    }

    async fn run_at(&self, job: &str, at: Instant) -> Result<Option<RunRow>, StoreError> {
        let tx = self.lock();
        let rows = tx.state.runs_of(job).map(|stored| &stored.row);
        let covers = |row: &&RunRow| row.nominal_at.is_some_and(|nominal| nominal <= at);
        Ok(rows.filter(covers).max_by_key(|row| (row.nominal_at, row.id)).cloned())
    }

    async fn previous_success(&self, job: &str) -> Result<Option<Instant>, StoreError> {
        let tx = self.lock();
        Ok(tx.state.of_job.get(job).and_then(|runs| runs.good.0.last()).map(|(nominal, _)| *nominal))
    }

    async fn set_aside(&self, job: &str, row_id: Uuid, error: &str) -> Result<FailureRow, StoreError> {
        Ok(self.atomically(|tx| {
            let before = tx.state.failures.get(&(job.to_owned(), row_id)).cloned();
            let row = rules::set_aside(before, job, row_id, error, tx.now);
            tx.put_failure(row.clone());
            row
        }))
    }

    async fn failures(&self, job: &str, after: Option<Uuid>, limit: u64) -> Result<Vec<FailureRow>, StoreError> {
        let tx = self.lock();
        let rows = tx.state.failures.values().rev();
        let wanted = |row: &&FailureRow| row.job == job && after.is_none_or(|after| row.row_id < after);
        Ok(rows.filter(wanted).take(usize::try_from(limit).unwrap_or(usize::MAX)).cloned().collect())
    }

    async fn retry_failure(&self, job: &str, row_id: Uuid) -> Result<bool, StoreError> {
        Ok(self.atomically(|tx| {
            let Some(mut row) = tx.state.failures.get(&(job.to_owned(), row_id)).cloned() else { return false };
            row.given_up_at = None;
            row.next_attempt_at = Some(tx.now);
            tx.put_failure(row);
            true
        }))
    }

    async fn next_failure(&self, job: &str) -> Result<Option<Instant>, StoreError> {
        let tx = self.lock();
        let rows = tx.state.failures.values().filter(|row| row.job == job && row.given_up_at.is_none());
        Ok(rows.filter_map(|row| row.next_attempt_at).filter(|next| *next > tx.now).min())
    }

    async fn prune(&self, job: &str, keep: Retention) -> Result<u64, StoreError> {
        Ok(self.atomically(|tx| tx.prune(job, keep)))
    }

    async fn begin(&self, _limit: Duration) -> Result<(MemoryTx, Instant), StoreError> {
        let tx = self.begin_tx();
        let now = tx.now;
        Ok((tx, now))
    }

    async fn begin_read(&self) -> Result<MemoryTx, StoreError> {
        Ok(self.begin_tx())
    }

    async fn commit(&self, tx: MemoryTx) -> Result<(), StoreError> {
        tx.commit()
    }

    async fn rollback(&self, tx: MemoryTx) -> Result<(), StoreError> {
        drop(tx);
        Ok(())
    }

    fn session(&self, _tx: &MemoryTx) -> Option<i64> {
        None
    }

    async fn kill(&self, _session: i64) -> Result<(), StoreError> {
        Ok(())
    }

    async fn complete(&self, tx: &mut MemoryTx, held: Held, ending: &Ending) -> Result<bool, StoreError> {
        Ok(tx.later(Effect::End(held, ending.clone())))
    }

    async fn checkpoint(
        &self,
        tx: &mut MemoryTx,
        held: Held,
        items: i64,
        cursor: Option<&Value>,
    ) -> Result<bool, StoreError> {
        Ok(tx.later(Effect::Checkpoint(held, items, cursor.cloned())))
    }

    async fn wait(
        &self,
        tx: &mut MemoryTx,
        held: Held,
        items: i64,
        cursor: &Value,
        until: Instant,
    ) -> Result<bool, StoreError> {
        Ok(tx.later(Effect::Wait(held, items, cursor.clone(), until)))
    }

    async fn window(&self, tx: &mut MemoryTx, window: &Window) -> Result<(), StoreError> {
        tx.later(Effect::Window(window.clone()));
        Ok(())
    }

    async fn clear_failures(&self, tx: &mut MemoryTx, job: &str, rows: &[Uuid]) -> Result<(), StoreError> {
        tx.later(Effect::Clear(job.to_owned(), rows.to_vec()));
        Ok(())
    }

    async fn record(&self, job: &str, owner: &str, run: NewRun, ending: &Ending) -> Result<(), StoreError> {
        self.atomically(|tx| {
            let now = tx.now;
            let mut row = rules::row(job, run, now);
            row.owner = Some(owner.to_owned());
            row.started_at = Some(row.fire_at);
            row.queued_at = None;
            rules::end(&mut row, ending, now);
            tx.put_run(Stored { row, exclusive: false });
        });
        Ok(())
    }

    async fn nudge(&self, nudge: &Nudge) -> Result<(), StoreError> {
        // Nobody listening is fine: a nudge is only a hint.
        self.nudges.send(nudge.clone()).map(drop).or(Ok(()))
    }

    fn nudges(&self) -> broadcast::Receiver<Nudge> {
        self.nudges.subscribe()
    }
}
