//! Jobs that do what the seed says of each of their runs.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use scheduler::{
    Instant, JobError,
    clock::Clock,
    kinds::{Claim, Held, Lease, LeaseTake, Leased, Next, Run, Step, Steps, Take, Tick},
    store::memory::{DueRow, DueTable},
};
use serde_json::json;
use uuid::Uuid;

use crate::{checker::Written, store::SimTx, time::ReplicaClock};

/// Effects and the events that say them; one of each for a batch that was committed.
const EFFECTS: DueTable = DueTable("effects");
const EVENTS: DueTable = DueTable("events");
/// Rows of the Claim and of the Lease.
pub(crate) const DEALT: DueTable = DueTable("dealt");
pub(crate) const ASKED: DueTable = DueTable("asked");

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// So many batches, each of so long.
    Work {
        batches: u64,
        each: Duration,
    },
    Fail,
    Panic,
    /// Goes on until it is asked to stop.
    UntilStop,
    /// Does not react to anything.
    Deaf,
}

fn mix(seed: u64, id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    fastrand::Rng::with_seed(seed ^ high.rotate_left(17) ^ low).u64(..)
}

/// What the run does, from the seed and its id alone.
pub(crate) fn script(seed: u64, id: Uuid) -> Script {
    let mut rng = fastrand::Rng::with_seed(mix(seed, id));
    match rng.u8(0..100) {
        0..60 => Script::Work { batches: rng.u64(1..4), each: Duration::from_millis(rng.u64(0..400)) },
        60..75 => Script::Work { batches: rng.u64(1..4), each: Duration::from_secs(rng.u64(1..25)) },
        75..86 => Script::Fail,
        86..93 => Script::Panic,
        93..97 => Script::UntilStop,
        _ => Script::Deaf,
    }
}

/// The row that a batch of a run writes.
pub(crate) fn effect_of(run: Uuid, batch: u64) -> Uuid {
    let (high, low) = run.as_u64_pair();
    Uuid::from_u64_pair(high, low ^ ((batch + 1) << 56))
}

/// What every job of a replica knows.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) seed: u64,
    pub(crate) clock: Arc<ReplicaClock>,
}

impl Actor {
    async fn wait(&self, duration: Duration) {
        self.clock.sleep_until(self.clock.monotonic() + duration).await;
    }

    /// The effect of a batch and its event, in one transaction.
    fn act(tx: &mut SimTx, id: Uuid) {
        EFFECTS.put(&mut tx.inner, DueRow { id, ..DueRow::default() });
        EVENTS.put(&mut tx.inner, DueRow { id, ..DueRow::default() });
        tx.written.push(Written::Effect(id));
    }

    /// A batch as the script has it; whether it was the last.
    async fn batch(&self, run: &Run, at: u64) -> Result<bool, JobError> {
        match script(self.seed, run.id) {
            Script::Work { batches, each } => {
                self.wait(each).await;
                Ok(at + 1 >= batches)
            }
            Script::Fail => Err(JobError::failed("told to fail")),
            Script::Panic => panic!("told to panic"),
            Script::UntilStop => {
                run.stop.cancelled().await;
                Err(JobError::failed("stopped"))
            }
            Script::Deaf => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Tick<SimTx> for Actor {
    async fn tick(&self, tx: &mut SimTx, run: &Run) -> Result<Step, JobError> {
        let at = run.cursor.as_ref().and_then(serde_json::Value::as_u64).unwrap_or(0);
        let last = self.batch(run, at).await?;
        Self::act(tx, effect_of(run.id, at));
        Ok(if last { Step::Done(1) } else { Step::More { items: 1, cursor: json!(at + 1) } })
    }
}

#[async_trait]
impl Steps<SimTx> for Actor {
    type Input = ();
    type Cursor = u64;
    type Answer = bool;

    async fn ask(&self, (): &(), cursor: &u64, run: &Run) -> Result<bool, JobError> {
        self.batch(run, *cursor).await
    }

    async fn settle(&self, tx: &mut SimTx, cursor: u64, last: bool, run: &Run) -> Result<Next<u64>, JobError> {
        Self::act(tx, effect_of(run.id, cursor));
        if last {
            Ok(Next::Done { items: 1 })
        } else if cursor.is_multiple_of(2) {
            Ok(Next::Continue { cursor: cursor + 1, items: 1 })
        } else {
            Ok(Next::Wait { cursor: cursor + 1, until: run.now + chrono::TimeDelta::seconds(20), items: 1 })
        }
    }
}

/// Whether the row makes every batch fail that holds it.
pub(crate) fn poison(id: Uuid) -> bool {
    id.as_u128() % 16 == 7
}

#[async_trait]
impl Claim<SimTx> for Actor {
    type Row = DueRow;

    fn id(&self, row: &DueRow) -> Uuid {
        row.id
    }

    fn due_at(&self, row: &DueRow) -> Option<Instant> {
        row.due_at
    }

    async fn take(&self, tx: &mut SimTx, take: &Take) -> Result<Vec<DueRow>, JobError> {
        Ok(DEALT.take(&tx.inner, take))
    }

    async fn act(&self, tx: &mut SimTx, rows: Vec<DueRow>, _run: &Run) -> Result<(), JobError> {
        self.wait(Duration::from_millis(1)).await;
        for row in rows {
            if poison(row.id) {
                return Err(JobError::failed("poison"));
            }
            Actor::act(tx, row.id);
            tx.written.push(Written::Dealt(row.id, row.due_at));
            DEALT.put(&mut tx.inner, DueRow { due_at: None, ..row });
        }
        Ok(())
    }

    fn wakes_when_due(&self) -> bool {
        true
    }

    async fn next_due(&self, tx: &mut SimTx) -> Result<Option<Instant>, JobError> {
        Ok(DEALT.next_due(&tx.inner, "dealt"))
    }
}

#[async_trait]
impl Lease<SimTx> for Actor {
    type Row = DueRow;
    type Answer = ();

    async fn claim(&self, tx: &mut SimTx, take: &LeaseTake) -> Result<Vec<Leased<DueRow>>, JobError> {
        let leased = ASKED.claim(&mut tx.inner, take);
        tx.written.extend(leased.iter().map(|row| Written::Leased(row.held)));
        Ok(leased)
    }

    async fn ask(&self, row: &Leased<DueRow>, _run: &Run) -> Result<(), JobError> {
        let nth = u64::try_from(row.attempt).unwrap_or(0);
        let mut rng = fastrand::Rng::with_seed(mix(self.seed ^ nth, row.held.id));
        self.wait(Duration::from_millis(rng.u64(1..2_000))).await;
        match rng.u8(0..10) {
            0 | 1 => Err(JobError::failed("refused")),
            2 => panic!("told to panic"),
            _ => Ok(()),
        }
    }

    async fn lock(&self, tx: &mut SimTx, held: &[Held]) -> Result<Vec<Held>, JobError> {
        Ok(ASKED.lock(&tx.inner, held))
    }

    async fn settle(
        &self,
        tx: &mut SimTx,
        answers: &[(Leased<DueRow>, Result<(), JobError>)],
        run: &Run,
    ) -> Result<(), JobError> {
        for (row, answer) in answers {
            let again = answer.is_err().then(|| run.now + chrono::TimeDelta::seconds(60));
            ASKED.settle(&mut tx.inner, row.held.id, again, serde_json::Value::Null)?;
            tx.written.push(Written::Settled(row.held));
            if again.is_none() {
                Self::act(tx, row.held.id);
            }
        }
        Ok(())
    }

    async fn renew(&self, tx: &mut SimTx, held: &[Held], until: Instant) -> Result<Vec<Held>, JobError> {
        Ok(ASKED.renew(&mut tx.inner, held, until))
    }

    async fn release(&self, tx: &mut SimTx, held: &[Held], now: Instant) -> Result<(), JobError> {
        ASKED.release(&mut tx.inner, held, now);
        Ok(())
    }

    async fn next_due(&self, tx: &mut SimTx) -> Result<Option<Instant>, JobError> {
        Ok(ASKED.next_due(&tx.inner, "asked"))
    }
}
