//! What the runner needs of a job, whatever its kind: one trait, implemented once a kind.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Instant, JobError, StoreError,
    clock::Clock,
    kinds::{Held, Run},
    ledger::{Ending, Outcome, Wake},
    store::Store,
};

/// Which trait a job implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`crate::kinds::Tick`]
    Tick,
    /// [`crate::kinds::Claim`]
    Claim,
    /// [`crate::kinds::Lease`]
    Lease,
    /// [`crate::kinds::Steps`]
    Steps,
    /// [`crate::kinds::Local`]
    Local,
}

/// What every part of the runner is given.
pub(crate) struct Env<S> {
    pub(crate) store: S,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) service: Arc<str>,
    pub(crate) replica: String,
    pub(crate) ids: Arc<dyn Fn() -> Uuid + Send + Sync>,
    pub(crate) work: tokio::runtime::Handle,
    /// Cancelled at a stop: no new work.
    pub(crate) stop: CancellationToken,
    /// The store is this process's alone: nobody else writes to it, so there is nothing to look for.
    pub(crate) private: bool,
    /// Called after each commit of a job's work (to wake whoever carries its events on).
    pub(crate) on_effect: Arc<dyn Fn() + Send + Sync>,
    /// Cancelled when asks that are still in flight at a stop must be given back.
    pub(crate) give_back: CancellationToken,
}

impl<S: Store> Env<S> {
    /// Begins a work transaction and tells the clock what the database said.
    pub(crate) async fn begin(&self, limit: Duration) -> Result<(S::Tx, Instant), StoreError> {
        let before = self.clock.monotonic();
        let (tx, now) = self.store.begin(limit).await?;
        self.clock.measured(now, before, self.clock.monotonic());
        Ok((tx, now))
    }

    /// The same for a batch of the job's due rows. When it is not this replica's turn it waits a little, then claims all
    /// the same: a turn is a courtesy, and whoever has it may be slow.
    pub(crate) async fn begin_in_turn(&self, job: &str, limit: Duration) -> Result<(S::Tx, Instant), StoreError> {
        for patience in PATIENCE {
            if let Some(begun) = self.begin_if_turn(job, limit).await? {
                return Ok(begun);
            }
            self.sleep(patience).await;
        }
        self.begin(limit).await
    }

    /// The same, but only while a turn is free.
    pub(crate) async fn begin_if_turn(
        &self,
        job: &str,
        limit: Duration,
    ) -> Result<Option<(S::Tx, Instant)>, StoreError> {
        let before = self.clock.monotonic();
        let (tx, now, turn) = self.store.begin_in_turn(job, limit).await?;
        self.clock.measured(now, before, self.clock.monotonic());
        if turn {
            return Ok(Some((tx, now)));
        }
        self.store.rollback(tx).await?;
        Ok(None)
    }

    /// Waits on the clock.
    pub(crate) async fn sleep(&self, duration: Duration) {
        self.clock.sleep_until(self.clock.monotonic() + duration).await;
    }
}

/// Waits for a turn: as long as a small batch takes, then longer.
const PATIENCE: [Duration; 6] = [
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
    Duration::from_millis(32),
    Duration::from_millis(64),
    Duration::from_millis(128),
];

/// Why a run was asked to come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Why {
    Nothing = 0,
    Stop = 1,
    Timeout = 2,
    Cancel = 3,
    Fenced = 4,
}

/// Seen by the job's attempt on the work runtime and by its supervisor on the keep runtime.
pub(crate) struct Watch {
    clock: Arc<dyn Clock>,
    why: AtomicU8,
    /// What the timeout applies to, each on its own: the run (Tick), a batch (Claim), a step (Steps). The oldest is first.
    units: Mutex<Vec<Unit>>,
    pub(crate) stop: CancellationToken,
}

struct Unit {
    number: u64,
    since: Duration,
    session: Option<i64>,
}

/// A unit that is going on; it is over when this is dropped.
pub(crate) struct Entered<'a> {
    watch: &'a Watch,
    number: u64,
    since: Duration,
}

impl Entered<'_> {
    /// It goes on in this session.
    pub(crate) fn session(&self, session: Option<i64>) {
        self.watch.with(|units| {
            units.iter_mut().filter(|unit| unit.number == self.number).for_each(|unit| unit.session = session);
        });
    }

    /// When it began.
    pub(crate) fn since(&self) -> Duration {
        self.since
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.watch.with(|units| units.retain(|unit| unit.number != self.number));
    }
}

impl Watch {
    pub(crate) fn new(clock: Arc<dyn Clock>, parent: &CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            clock,
            why: AtomicU8::new(Why::Nothing as u8),
            units: Mutex::default(),
            stop: parent.child_token(),
        })
    }

    /// Asks the run to end; the first reason stays.
    pub(crate) fn end(&self, why: Why) {
        let _first = self.why.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
        self.stop.cancel();
    }

    /// Why the run should end. A stop of the whole process cancels the token only.
    pub(crate) fn why(&self) -> Why {
        match self.why.load(Ordering::Acquire) {
            1 => Why::Stop,
            2 => Why::Timeout,
            3 => Why::Cancel,
            4 => Why::Fenced,
            _ if self.stop.is_cancelled() => Why::Stop,
            _ => Why::Nothing,
        }
    }

    fn with<T>(&self, with: impl FnOnce(&mut Vec<Unit>) -> T) -> T {
        with(&mut self.units.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A unit that the timeout applies to begins.
    pub(crate) fn enter(&self) -> Entered<'_> {
        let since = self.clock.monotonic();
        let number = self.with(|units| {
            let number = units.last().map_or(0, |unit| unit.number + 1);
            units.push(Unit { number, since, session: None });
            number
        });
        Entered { watch: self, number, since }
    }

    /// Since when the oldest unit goes on; `None` between units.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.with(|units| units.first().map(|unit| unit.since))
    }

    /// The sessions of units that began at or before `since`.
    pub(crate) fn sessions(&self, since: Duration) -> Vec<i64> {
        self.with(|units| units.iter().filter(|unit| unit.since <= since).filter_map(|unit| unit.session).collect())
    }
}

/// How an attempt of a ledger run came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The ledger was written in the effect transaction.
    Completed { items: i64 },
    /// The ledger is still to be written.
    With(Ending),
    /// It stopped because it was asked to; the supervisor knows why.
    Asked,
    /// It waits in the queue for its next step.
    Waiting,
    /// Its writes were refused: somebody else owns the run.
    Fenced,
}

/// What a due or hint pass did.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// Rows handled.
    pub(crate) items: i64,
    /// Largest lateness of a row, in milliseconds.
    pub(crate) lateness_ms: i64,
    /// Rows may still be due: pass again at once.
    pub(crate) more: bool,
    /// What went wrong; the pass as a whole or single rows.
    pub(crate) error: Option<(Outcome, String)>,
    /// The store was away: try again after a back-off.
    pub(crate) transient: bool,
    /// The due time behind which it would have gone on, when there is more.
    pub(crate) last: Option<Instant>,
}

impl Passed {
    /// What a part of the pass did.
    pub(crate) fn add(&mut self, part: Self) {
        self.items += part.items;
        self.lateness_ms = self.lateness_ms.max(part.lateness_ms);
        self.transient |= part.transient;
        self.error = self.error.take().or(part.error);
    }

    /// A part of it failed; the first error is the one to tell of.
    pub(crate) fn failed(&mut self, error: &JobError) {
        self.transient |= error.is_transient();
        self.error.get_or_insert((Outcome::Failed, error.to_string()));
    }
}

/// A job, whatever its kind.
#[async_trait]
pub(crate) trait Body<S: Store>: Send + Sync + 'static {
    fn kind(&self) -> Kind;

    fn wakes_when_due(&self) -> bool {
        false
    }

    async fn next_due(&self, _env: &Env<S>) -> Result<Option<Instant>, JobError> {
        Ok(None)
    }

    /// One attempt of a run that is ours and running in the ledger. On the work runtime.
    async fn attempt(&self, env: &Env<S>, run: Run, held: Held, watch: &Watch) -> Ended;

    /// A pass over due rows, woken by `wake`, from the `first` of them where that is known. On the work runtime.
    async fn pass(&self, _env: &Env<S>, _wake: Wake, _first: Option<Instant>, _watch: &Watch) -> Passed {
        Passed::default()
    }

    /// Extends the leases of rows in hand. On the keep runtime.
    async fn renew(&self, _env: &Env<S>) {}
}

/// The payload of a panic in words.
fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

/// What user code did: its answer, or a panic in words.
pub(crate) enum Caught<T> {
    Answer(Result<T, JobError>),
    Panicked(String),
}

/// Runs user code; a panic stays inside it.
pub(crate) async fn caught<T>(work: impl Future<Output = Result<T, JobError>> + Send) -> Caught<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(answer) => Caught::Answer(answer),
        Err(payload) => Caught::Panicked(panic_text(payload.as_ref())),
    }
}

/// Back-off between tries when the store is away: 100 ms doubling to 5 s.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(Duration::from_millis(100))
    }

    pub(crate) fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (self.0 * 2).min(Duration::from_secs(5));
        now
    }
}
