//! How a [`Claim`] is run: batches of due rows, each a transaction; a batch that fails is halved down to the bad rows.

mod batch;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    Instant, JobError,
    behind::Behind,
    body::{Backoff, Body, Caught, Ended, Env, Kind, Passed, Watch, Why, caught},
    kinds::{Claim, Held, Run},
    ledger::{Ending, Outcome, Wake},
    store::Store,
    windows::Windows,
};

/// Rows a batch takes at most.
const BATCH: u64 = 1_000;
/// Where a single-writer store starts, so that a batch stays under [`WRITER_TIME`].
const BATCH_SINGLE_WRITER: u64 = 100;
/// How long a batch may hold the only writer.
const WRITER_TIME: Duration = Duration::from_millis(50);
/// A pass ends after so many batches,
const PASS_BATCHES: u32 = 100;
/// or after so long, whichever is first; the next begins at once.
const PASS_TIME: Duration = Duration::from_secs(10);

pub(crate) struct ClaimBody<S: Store, R> {
    pub(crate) name: String,
    pub(crate) job: Arc<dyn Claim<S::Tx, Row = R>>,
    pub(crate) timeout: Duration,
    pub(crate) batch: Mutex<u64>,
    pub(crate) windows: Windows,
    /// Batches that took longer than the timeout.
    suspects: Mutex<Vec<Vec<Uuid>>>,
}

impl<S: Store, R: Send + Sync + 'static> ClaimBody<S, R> {
    pub(crate) fn new(name: String, job: Arc<dyn Claim<S::Tx, Row = R>>, timeout: Duration) -> Self {
        Self {
            name,
            job,
            timeout,
            batch: Mutex::new(BATCH_SINGLE_WRITER),
            windows: Windows::default(),
            suspects: Mutex::default(),
        }
    }
}

/// Where a batch is written down.
#[derive(Clone, Copy)]
enum Book {
    /// In the run's own row, fenced.
    Run(Held),
    /// In the replica's window.
    Window(Wake),
}

/// What one batch came to.
enum Batch {
    /// So many rows, as late as this.
    Done {
        rows: u64,
        lateness_ms: i64,
    },
    /// There was nothing: from the beginning, or behind the batches before.
    Nothing {
        from_beginning: bool,
    },
    /// No turn was free for a batch beside another.
    NoTurn,
    /// The rows' fault: their ids, what went wrong.
    Bad(Vec<Uuid>, Outcome, String),
    Again(String),
    Fenced,
}

/// One pass in the making: what its lanes share.
struct Pass<'a> {
    run: Run,
    book: Book,
    watch: &'a Watch,
    /// Rows due at or before this; the store's time when `None`.
    until: Option<Instant>,
    progress: Mutex<Progress>,
}

/// How far a pass is.
#[derive(Default)]
struct Progress {
    handled: HashSet<Uuid>,
    behind: Behind,
    /// Whether rows of the job are set aside; not known before the first batch.
    aside: Option<bool>,
    batches: u32,
    /// Told when a second batch is full, so that there is work for a second lane: of one full batch alone it would find nothing.
    full: Option<oneshot::Sender<()>>,
    sum: Passed,
}

/// Batches that follow each other. A second lane has its batches beside those of the first: while the server writes, the
/// process makes up the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    First,
    /// Ends when no turn is free, for others are at it, or when the store is away.
    Beside,
}

#[async_trait]
impl<S: Store, R: Send + Sync + 'static> Body<S> for ClaimBody<S, R> {
    fn kind(&self) -> Kind {
        Kind::Claim
    }

    fn wakes_when_due(&self) -> bool {
        self.job.wakes_when_due()
    }

    async fn next_due(&self, env: &Env<S>) -> Result<Option<Instant>, JobError> {
        // Dropped, not awaited: its end goes to the server by itself, and the answer need not wait for that.
        let mut tx = env.store.begin_read().await?;
        match caught(self.job.next_due(&mut tx)).await {
            Caught::Answer(answer) => answer,
            Caught::Panicked(text) => Err(JobError::Failed(text)),
        }
    }

    async fn attempt(&self, env: &Env<S>, run: Run, held: Held, watch: &Watch) -> Ended {
        let until = run.now;
        let pass = Pass::new(run, Book::Run(held), watch, Some(until), Behind::default());
        loop {
            match self.sweep(env, &pass).await {
                Swept::Fenced => return Ended::Fenced,
                Swept::Asked => return Ended::Asked,
                Swept::Batches => {}
                Swept::Empty => break,
            }
        }
        match pass.summed().error {
            None => Ended::With(Ending::succeeded(0)),
            Some((outcome, error)) => Ended::With(Ending::error(outcome, error)),
        }
    }

    async fn pass(&self, env: &Env<S>, wake: Wake, first: Option<Instant>, watch: &Watch) -> Passed {
        let run = Run::of_pass(&self.name, wake, env.clock.now(), watch.stop.clone());
        let pass = Pass::new(run, Book::Window(wake), watch, None, Behind::starting_at(first));
        let more = matches!(self.sweep(env, &pass).await, Swept::Batches);
        let last = pass.with(|progress| progress.behind.row().map(|(due, _)| due).filter(|_| more));
        Passed { more, last, ..pass.summed() }
    }
}

impl<'a> Pass<'a> {
    fn new(run: Run, book: Book, watch: &'a Watch, until: Option<Instant>, behind: Behind) -> Self {
        let progress = Mutex::new(Progress { behind, ..Progress::default() });
        Self { run, book, watch, until, progress }
    }

    fn with<T>(&self, with: impl FnOnce(&mut Progress) -> T) -> T {
        with(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn summed(self) -> Passed {
        self.progress.into_inner().unwrap_or_else(PoisonError::into_inner).sum
    }

    fn note(&self, outcome: Outcome, error: String) {
        self.with(|progress| {
            progress.sum.error.get_or_insert((outcome, error));
        });
    }

    fn store_away(&self, error: String) {
        self.note(Outcome::Failed, error);
        self.with(|progress| progress.sum.transient = true);
    }

    /// The next batch is taken from the beginning.
    fn start_over(&self) {
        self.with(|progress| progress.behind.go_on(None));
    }
}

/// How a sweep or one of its lanes ended; of two lanes the greater holds.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Swept {
    /// Nothing is due any more.
    Empty,
    /// The pass is long enough; there may be more.
    Batches,
    Asked,
    Fenced,
}

impl<S: Store, R: Send + Sync + 'static> ClaimBody<S, R> {
    /// Batches until nothing is due, or the pass is long enough: one after the other, and where the store gives a second turn
    /// also beside each other, once two were full.
    async fn sweep(&self, env: &Env<S>, pass: &Pass<'_>) -> Swept {
        let until = env.clock.monotonic() + PASS_TIME;
        let (full, more) = oneshot::channel();
        pass.with(|progress| {
            progress.handled.clear();
            progress.behind.go_on(None);
            progress.aside = None;
            progress.batches = 0;
            progress.full = Some(full).filter(|_| env.store.turns() > 1);
        });
        if let Some(end) = self.suspects(env, pass).await {
            return end;
        }
        let first = async {
            let end = self.lane(env, pass, Lane::First, until).await;
            pass.with(|progress| progress.full = None);
            end
        };
        let beside = async {
            match more.await {
                Ok(()) => self.lane(env, pass, Lane::Beside, until).await,
                Err(_) => Swept::Empty,
            }
        };
        let (first, beside) = tokio::join!(first, beside);
        first.max(beside)
    }

    async fn lane(&self, env: &Env<S>, pass: &Pass<'_>, lane: Lane, until: Duration) -> Swept {
        let mut backoff = Backoff::new();
        while pass.with(|progress| progress.batches) < PASS_BATCHES && env.clock.monotonic() < until {
            if pass.watch.why() != Why::Nothing {
                return Swept::Asked;
            }
            match self.watched(env, pass, lane, self.batch_size(env), None).await {
                // Nothing more behind the batches before; what they left, or what came meanwhile, is at the beginning.
                Batch::Nothing { from_beginning: false } => pass.start_over(),
                Batch::Nothing { from_beginning: true } | Batch::NoTurn => return Swept::Empty,
                Batch::Done { .. } => pass.with(|progress| progress.batches += 1),
                Batch::Bad(ids, outcome, error) => {
                    pass.with(|progress| progress.batches += 1);
                    pass.start_over();
                    if ids.is_empty() {
                        pass.note(outcome, error);
                        return Swept::Empty;
                    }
                    if let Some(end) = self.halves(env, pass, ids, outcome, error).await {
                        return end;
                    }
                }
                Batch::Again(error) => {
                    // Its rows may be due still.
                    pass.start_over();
                    if lane == Lane::Beside {
                        // Nothing failed yet: the first lane, or the next sweep, looks again at what this one leaves.
                        tracing::debug!(job = %pass.run.job, error, "the store is away for a batch beside another");
                        return Swept::Batches;
                    }
                    if matches!(pass.book, Book::Window(_)) {
                        pass.store_away(error);
                        return Swept::Empty;
                    }
                    tracing::warn!(job = %pass.run.job, error, "the store is away; trying the batch again");
                    tokio::select! {
                        biased;
                        () = pass.watch.stop.cancelled() => return Swept::Asked,
                        () = env.sleep(backoff.next()) => {}
                    }
                }
                Batch::Fenced => return Swept::Fenced,
            }
        }
        Swept::Batches
    }

    /// Batches that took longer than the timeout are their rows' fault too: halved like those that fail.
    async fn suspects(&self, env: &Env<S>, pass: &Pass<'_>) -> Option<Swept> {
        let suspects = std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner));
        for ids in suspects {
            let error = format!("the batch took longer than {:?}", self.timeout);
            if let Some(end) = self.halves(env, pass, ids, Outcome::TimedOut, error).await {
                return Some(end);
            }
        }
        None
    }

    /// A failed batch again in halves, each a transaction of its own, down to the rows that are bad; those are set aside.
    async fn halves(
        &self,
        env: &Env<S>,
        pass: &Pass<'_>,
        ids: Vec<Uuid>,
        outcome: Outcome,
        error: String,
    ) -> Option<Swept> {
        let mut parts = vec![(ids, outcome, error)];
        while let Some((ids, outcome, error)) = parts.pop() {
            if pass.watch.why() != Why::Nothing {
                return Some(Swept::Asked);
            }
            if let [id] = ids[..] {
                pass.note(outcome, error.clone());
                pass.with(|progress| progress.aside = Some(true));
                if let Err(away) = env.store.set_aside(&pass.run.job, id, &error).await {
                    tracing::warn!(job = %pass.run.job, row = %id, error = %away, "could not set a bad row aside");
                    return Some(Swept::Empty);
                }
                continue;
            }
            let (left, right) = ids.split_at(ids.len() / 2);
            for half in [left, right] {
                match self.watched(env, pass, Lane::First, half.len() as u64, Some(half.to_vec())).await {
                    Batch::Done { .. } | Batch::Nothing { .. } | Batch::NoTurn => {}
                    Batch::Bad(bad, outcome, error) => parts.push((bad, outcome, error)),
                    Batch::Again(error) => {
                        pass.store_away(error);
                        return Some(Swept::Empty);
                    }
                    Batch::Fenced => return Some(Swept::Fenced),
                }
            }
        }
        None
    }
}
