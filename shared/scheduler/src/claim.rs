//! How a [`Claim`] is run: batches of due rows, each a transaction; a batch that fails is halved down to the bad rows.

mod batch;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
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
    /// Batches that are being acted on (their token lives), or never came back from it.
    acting: Mutex<Vec<(Vec<Uuid>, Weak<()>)>>,
}

impl<S: Store, R: Send + Sync + 'static> ClaimBody<S, R> {
    pub(crate) fn new(name: String, job: Arc<dyn Claim<S::Tx, Row = R>>, timeout: Duration) -> Self {
        Self {
            name,
            job,
            timeout,
            batch: Mutex::new(BATCH_SINGLE_WRITER),
            windows: Windows::default(),
            acting: Mutex::default(),
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
    /// The rows' fault: their ids, what went wrong.
    Bad(Vec<Uuid>, Outcome, String),
    Again(String),
    Fenced,
}

/// One pass in the making.
struct Pass<'a> {
    run: Run,
    book: Book,
    watch: &'a Watch,
    /// Rows due at or before this; the store's time when `None`.
    until: Option<Instant>,
    handled: HashSet<Uuid>,
    behind: Behind,
    /// Whether rows of the job are set aside; not known before the first batch.
    aside: Option<bool>,
    sum: Passed,
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
        let mut pass = Pass::new(run, Book::Run(held), watch, Some(until));
        loop {
            match self.sweep(env, &mut pass).await {
                Swept::Fenced => return Ended::Fenced,
                Swept::Asked => return Ended::Asked,
                Swept::Batches => {}
                Swept::Empty => break,
            }
        }
        match pass.sum.error {
            None => Ended::With(Ending::succeeded(0)),
            Some((outcome, error)) => Ended::With(Ending::error(outcome, error)),
        }
    }

    async fn pass(&self, env: &Env<S>, wake: Wake, first: Option<Instant>, watch: &Watch) -> Passed {
        let run = Run::of_pass(&self.name, wake, env.clock.now(), watch.stop.clone());
        let mut pass = Pass::new(run, Book::Window(wake), watch, None);
        pass.behind = Behind::starting_at(first);
        pass.sum.more = matches!(self.sweep(env, &mut pass).await, Swept::Batches);
        pass.sum.last = pass.behind.row().map(|(due, _)| due).filter(|_| pass.sum.more);
        pass.sum
    }
}

impl<'a> Pass<'a> {
    fn new(run: Run, book: Book, watch: &'a Watch, until: Option<Instant>) -> Self {
        Self {
            run,
            book,
            watch,
            until,
            handled: HashSet::new(),
            behind: Behind::default(),
            aside: None,
            sum: Passed::default(),
        }
    }

    fn note(&mut self, outcome: Outcome, error: String) {
        self.sum.error.get_or_insert((outcome, error));
    }
}

enum Swept {
    /// Nothing is due any more.
    Empty,
    /// The pass is long enough; there may be more.
    Batches,
    Asked,
    Fenced,
}

impl<S: Store, R: Send + Sync + 'static> ClaimBody<S, R> {
    /// Batches until nothing is due, or the pass is long enough.
    async fn sweep(&self, env: &Env<S>, pass: &mut Pass<'_>) -> Swept {
        let began = env.clock.monotonic();
        let mut backoff = Backoff::new();
        let mut batches = 0;
        pass.handled.clear();
        pass.behind.go_on(None);
        pass.aside = None;
        if let Some(end) = self.suspects(env, pass).await {
            return end;
        }
        while batches < PASS_BATCHES && env.clock.monotonic() < began + PASS_TIME {
            if pass.watch.why() != Why::Nothing {
                return Swept::Asked;
            }
            let limit = self.batch_size(env);
            match self.watched(env, pass, limit, None).await {
                // Nothing more behind the batches before; what they left, or what came meanwhile, is at the beginning.
                Batch::Done { rows: 0, .. } if !pass.behind.begins() => pass.behind.go_on(None),
                Batch::Done { rows: 0, .. } => return Swept::Empty,
                Batch::Done { .. } => batches += 1,
                Batch::Bad(ids, outcome, error) => {
                    batches += 1;
                    pass.behind.go_on(None);
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
                    pass.behind.go_on(None);
                    if matches!(pass.book, Book::Window(_)) {
                        pass.note(Outcome::Failed, error);
                        pass.sum.transient = true;
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

    fn acting<T>(&self, with: impl FnOnce(&mut Vec<(Vec<Uuid>, Weak<()>)>) -> T) -> T {
        with(&mut self.acting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Batches that took longer than the timeout are their rows' fault too: halved like those that fail.
    async fn suspects(&self, env: &Env<S>, pass: &mut Pass<'_>) -> Option<Swept> {
        for (ids, _) in
            self.acting(|acting| acting.extract_if(.., |(_, token)| token.strong_count() == 0).collect::<Vec<_>>())
        {
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
        pass: &mut Pass<'_>,
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
                pass.aside = Some(true);
                if let Err(away) = env.store.set_aside(&pass.run.job, id, &error).await {
                    tracing::warn!(job = %pass.run.job, row = %id, error = %away, "could not set a bad row aside");
                    return Some(Swept::Empty);
                }
                continue;
            }
            let (left, right) = ids.split_at(ids.len() / 2);
            for half in [left, right] {
                match self.watched(env, pass, half.len() as u64, Some(half.to_vec())).await {
                    Batch::Done { .. } => {}
                    Batch::Bad(bad, outcome, error) => parts.push((bad, outcome, error)),
                    Batch::Again(error) => {
                        pass.note(Outcome::Failed, error);
                        pass.sum.transient = true;
                        return Some(Swept::Empty);
                    }
                    Batch::Fenced => return Some(Swept::Fenced),
                }
            }
        }
        None
    }
}
