//! The memory store behind a network that fails: every operation may be late, refused, or done and reported as failed.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use scheduler::{
    Instant, StoreError,
    kinds::Held,
    ledger::{Ending, FailureRow, NewRun, Outcome, Pause, ReplicaRow, RunRow, ScheduleRow},
    policy::{Decision, Resume},
    store::{
        Announcement, Decided, Enqueued, Look, Nudge, QueueOf, Recovered, Recovery, Renewal, Retention, RunPage, Store,
        Window,
        memory::{MemoryStore, MemoryTx},
    },
};
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{
    checker::{Moment, Written},
    faults::World,
};

/// The store as one replica reaches it.
#[derive(Clone)]
pub(crate) struct SimStore {
    pub(crate) inner: MemoryStore,
    pub(crate) world: Arc<World>,
    pub(crate) replica: usize,
    pub(crate) name: String,
}

/// A work transaction and what it will have done.
pub(crate) struct SimTx {
    pub(crate) inner: MemoryTx,
    broken: bool,
    pub(crate) written: Vec<Written>,
}

/// An operation through the network; what it did is told to the checker in the moment of its effect.
macro_rules! through {
    ($self:ident, $call:expr $(, |$checker:ident, $moment:ident, $done:ident| $told:expr)?) => {{
        let after = $self.world.before($self.replica).await?;
        let done = $call.await?;
        $({
            let $moment = $self.moment();
            let mut state = $self.world.state();
            let ($checker, $done) = (&mut state.checker, &done);
            $told;
        })?
        $self.world.after($self.replica, after).await?;
        Ok(done)
    }};
}

/// A statement inside a transaction: when it fails, the transaction is broken.
macro_rules! statement {
    ($self:ident, $tx:ident, $call:expr, $written:expr) => {{
        let reached = match $self.world.before($self.replica).await {
            Ok(after) => $self.world.after($self.replica, after).await,
            Err(error) => Err(error),
        };
        if let Err(error) = reached {
            $tx.broken = true;
            return Err(error);
        }
        let done = $call.await?;
        $tx.written.push($written);
        Ok(done)
    }};
}

impl SimStore {
    fn moment(&self) -> Moment<'_> {
        Moment { at: self.world.time.now(), database: self.world.time.database(), replica: &self.name }
    }
}

#[async_trait]
impl Store for SimStore {
    type Tx = SimTx;

    async fn now(&self) -> Result<Instant, StoreError> {
        through!(self, self.inner.now())
    }

    async fn announce(&self, replica: &str, jobs: &[Announcement]) -> Result<Vec<ScheduleRow>, StoreError> {
        through!(self, self.inner.announce(replica, jobs), |checker, moment, rows| checker
            .announced(moment, jobs, rows))
    }

    async fn schedules(&self, jobs: &[String]) -> Result<Vec<ScheduleRow>, StoreError> {
        through!(self, self.inner.schedules(jobs))
    }

    async fn look(&self, jobs: &[String]) -> Result<Look, StoreError> {
        through!(self, self.inner.look(jobs))
    }

    async fn replicas(&self, job: &str) -> Result<Vec<ReplicaRow>, StoreError> {
        through!(self, self.inner.replicas(job))
    }

    async fn decide(&self, decisions: Vec<Decision>, owner: &str, lease: Duration) -> Result<Vec<Decided>, StoreError> {
        let asked = decisions.clone();
        through!(self, self.inner.decide(decisions, owner, lease), |checker, moment, decided| checker
            .decided(moment, &asked, decided))
    }

    async fn enqueue(&self, job: &str, run: NewRun, limit: u64) -> Result<Enqueued, StoreError> {
        through!(self, self.inner.enqueue(job, run.clone(), limit), |checker, moment, enqueued| checker
            .enqueued(moment, enqueued))
    }

    async fn take_queued(&self, jobs: &[QueueOf], owner: &str, lease: Duration) -> Result<Vec<RunRow>, StoreError> {
        through!(self, self.inner.take_queued(jobs, owner, lease), |checker, moment, taken| checker
            .took(moment, jobs, taken))
    }

    async fn running(&self, jobs: &[String]) -> Result<Vec<RunRow>, StoreError> {
        through!(self, self.inner.running(jobs))
    }

    async fn recover(
        &self,
        jobs: &[Recovery],
        stale: &[(Held, i64)],
        owner: &str,
        lease: Duration,
    ) -> Result<Recovered, StoreError> {
        through!(self, self.inner.recover(jobs, stale, owner, lease), |checker, moment, recovered| checker
            .recovered(moment, recovered))
    }

    async fn renew(&self, held: &[Held], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        through!(self, self.inner.renew(held, lease), |checker, moment, renewals| checker.renewed(moment, renewals))
    }

    async fn finish(&self, held: Held, ending: &Ending) -> Result<bool, StoreError> {
        through!(self, self.inner.finish(held, ending), |checker, moment, written| checker
            .finished(moment, held, ending, *written))
    }

    async fn note(&self, job: &str, run: Uuid, outcome: Outcome) -> Result<(), StoreError> {
        through!(self, self.inner.note(job, run, outcome))
    }

    async fn release(&self, held: Held) -> Result<bool, StoreError> {
        through!(self, self.inner.release(held), |checker, moment, given| checker.released(moment, held, *given))
    }

    async fn fenced(&self, held: Held) -> Result<(), StoreError> {
        through!(self, self.inner.fenced(held))
    }

    async fn pause(&self, job: &str, pause: &Pause) -> Result<Option<ScheduleRow>, StoreError> {
        through!(self, self.inner.pause(job, pause), |checker, moment, row| checker.paused(moment, job, row.is_some()))
    }

    async fn resume(&self, job: &str, resume: &Resume) -> Result<bool, StoreError> {
        through!(self, self.inner.resume(job, resume), |checker, moment, done| checker
            .resumed(moment, job, resume, *done))
    }

    async fn set_override(
        &self,
        job: &str,
        seen_epoch: i64,
        overrides: Option<Value>,
        next: (Instant, Option<Instant>),
    ) -> Result<bool, StoreError> {
        self.inner.set_override(job, seen_epoch, overrides, next).await
    }

    async fn run(&self, id: Uuid) -> Result<Option<RunRow>, StoreError> {
        through!(self, self.inner.run(id))
    }

    async fn runs(&self, page: &RunPage) -> Result<Vec<RunRow>, StoreError> {
        through!(self, self.inner.runs(page))
    }

    async fn run_at(&self, job: &str, at: Instant) -> Result<Option<RunRow>, StoreError> {
        through!(self, self.inner.run_at(job, at))
    }

    async fn previous_success(&self, job: &str) -> Result<Option<Instant>, StoreError> {
        through!(self, self.inner.previous_success(job))
    }

    async fn set_aside(&self, job: &str, row_id: Uuid, error: &str) -> Result<FailureRow, StoreError> {
        // Told before the effect: the pass says it whether or not the store could be reached.
        self.world.state().checker.blamed(self.moment(), error);
        through!(self, self.inner.set_aside(job, row_id, error))
    }

    async fn failures(&self, job: &str, after: Option<Uuid>, limit: u64) -> Result<Vec<FailureRow>, StoreError> {
        through!(self, self.inner.failures(job, after, limit))
    }

    async fn retry_failure(&self, job: &str, row_id: Uuid) -> Result<bool, StoreError> {
        through!(self, self.inner.retry_failure(job, row_id))
    }

    async fn next_failure(&self, job: &str) -> Result<Option<Instant>, StoreError> {
        through!(self, self.inner.next_failure(job))
    }

    async fn prune(&self, job: &str, keep: Retention) -> Result<u64, StoreError> {
        through!(self, self.inner.prune(job, keep), |checker, moment, gone| checker.pruned(moment, *gone))
    }

    async fn begin(&self, limit: Duration) -> Result<(SimTx, Instant), StoreError> {
        let after = self.world.before(self.replica).await?;
        let (inner, now) = self.inner.begin(limit).await?;
        let tx = SimTx { inner, broken: false, written: Vec::new() };
        self.world.after(self.replica, after).await?;
        Ok((tx, now))
    }

    async fn begin_read(&self) -> Result<SimTx, StoreError> {
        let after = self.world.before(self.replica).await?;
        let tx = SimTx { inner: self.inner.begin_read().await?, broken: false, written: Vec::new() };
        self.world.after(self.replica, after).await?;
        Ok(tx)
    }

    async fn commit(&self, tx: SimTx) -> Result<(), StoreError> {
        if tx.broken {
            return Err(StoreError::Unavailable("the transaction is broken".to_owned()));
        }
        let written = tx.written;
        through!(self, self.inner.commit(tx.inner), |checker, moment, _done| checker.committed(moment, &written))
    }

    async fn rollback(&self, tx: SimTx) -> Result<(), StoreError> {
        drop(tx);
        Ok(())
    }

    fn session(&self, _tx: &SimTx) -> Option<i64> {
        None
    }

    async fn kill(&self, _session: i64) -> Result<(), StoreError> {
        Ok(())
    }

    async fn complete(&self, tx: &mut SimTx, held: Held, ending: &Ending) -> Result<bool, StoreError> {
        statement!(self, tx, self.inner.complete(&mut tx.inner, held, ending), Written::End(held, ending.clone()))
    }

    async fn checkpoint(
        &self,
        tx: &mut SimTx,
        held: Held,
        items: i64,
        cursor: Option<&Value>,
    ) -> Result<bool, StoreError> {
        statement!(self, tx, self.inner.checkpoint(&mut tx.inner, held, items, cursor), Written::Checkpoint(held))
    }

    async fn wait(
        &self,
        tx: &mut SimTx,
        held: Held,
        items: i64,
        cursor: &Value,
        until: Instant,
    ) -> Result<bool, StoreError> {
        statement!(self, tx, self.inner.wait(&mut tx.inner, held, items, cursor, until), Written::Wait(held, until))
    }

    async fn window(&self, tx: &mut SimTx, window: &Window) -> Result<(), StoreError> {
        statement!(self, tx, self.inner.window(&mut tx.inner, window), Written::Window)
    }

    async fn clear_failures(&self, tx: &mut SimTx, job: &str, rows: &[Uuid]) -> Result<(), StoreError> {
        self.inner.clear_failures(&mut tx.inner, job, rows).await
    }

    async fn record(&self, job: &str, owner: &str, run: NewRun, ending: &Ending) -> Result<(), StoreError> {
        through!(self, self.inner.record(job, owner, run.clone(), ending))
    }

    async fn nudge(&self, nudge: &Nudge) -> Result<(), StoreError> {
        let lost = {
            let mut state = self.world.state();
            state.nudged = true;
            state.rng.u32(0..100) < state.nudges_lost
        };
        if lost {
            return Ok(());
        }
        through!(self, self.inner.nudge(nudge))
    }

    fn nudges(&self) -> broadcast::Receiver<Nudge> {
        self.inner.nudges()
    }
}
