//! How a [`Claim`] is run: batches of due rows, each a transaction; a batch that fails is halved down to the bad rows.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use uuid::Uuid;

use crate::{
    Instant, JobError,
    body::{Backoff, Body, Caught, Ended, Env, Kind, Passed, Watch, Why, caught},
    kinds::{Claim, Held, Run, Take},
    ledger::{Ending, Outcome, Wake},
    store::{Store, Window},
    tick::roll_back,
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
    aside: bool,
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
        let (mut tx, _) = env.begin(self.timeout).await?;
        let due = match caught(self.job.next_due(&mut tx)).await {
            Caught::Answer(answer) => answer,
            Caught::Panicked(text) => Err(JobError::Failed(text)),
        };
        roll_back(env, tx).await;
        due
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

    async fn pass(&self, env: &Env<S>, wake: Wake, watch: &Watch) -> Passed {
        let run = Run::of_pass(&self.name, wake, env.clock.now(), watch.stop.clone());
        let mut pass = Pass::new(run, Book::Window(wake), watch, None);
        pass.sum.more = matches!(self.sweep(env, &mut pass).await, Swept::Batches);
        pass.sum
    }
}

impl<'a> Pass<'a> {
    fn new(run: Run, book: Book, watch: &'a Watch, until: Option<Instant>) -> Self {
        Self { run, book, watch, until, handled: HashSet::new(), aside: false, sum: Passed::default() }
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
        pass.aside = !env.store.failures(&self.name, None, 1).await.is_ok_and(|aside| aside.is_empty());
        if let Some(end) = self.suspects(env, pass).await {
            return end;
        }
        while batches < PASS_BATCHES && env.clock.monotonic() < began + PASS_TIME {
            if pass.watch.why() != Why::Nothing {
                return Swept::Asked;
            }
            let limit = self.batch_size(env);
            match self.watched(env, pass, limit, None).await {
                Batch::Done { rows: 0, .. } => return Swept::Empty,
                Batch::Done { .. } => batches += 1,
                Batch::Bad(ids, outcome, error) => {
                    batches += 1;
                    if ids.is_empty() {
                        pass.note(outcome, error);
                        return Swept::Empty;
                    }
                    if let Some(end) = self.halves(env, pass, ids, outcome, error).await {
                        return end;
                    }
                }
                Batch::Again(error) => {
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
                pass.aside = true;
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

    /// One batch under the watch of the timeout.
    async fn watched(&self, env: &Env<S>, pass: &mut Pass<'_>, limit: u64, only: Option<Vec<Uuid>>) -> Batch {
        let began = env.clock.monotonic();
        pass.watch.enter(None);
        let batch = self.one(env, pass, limit, only).await;
        pass.watch.leave();
        if let Batch::Done { rows, lateness_ms } = batch {
            pass.sum.items += i64::try_from(rows).unwrap_or(i64::MAX);
            pass.sum.lateness_ms = pass.sum.lateness_ms.max(lateness_ms);
            self.adapt(env, env.clock.monotonic().saturating_sub(began), rows, limit);
        }
        batch
    }

    async fn one(&self, env: &Env<S>, pass: &mut Pass<'_>, limit: u64, only: Option<Vec<Uuid>>) -> Batch {
        let (mut tx, now) = match env.begin(self.timeout).await {
            Ok(begun) => begun,
            Err(error) if error.is_transient() => return Batch::Again(error.to_string()),
            Err(error) => return Batch::Bad(Vec::new(), Outcome::Failed, error.to_string()),
        };
        pass.watch.session(env.store.session(&tx));
        // A run's own now is an estimate of the store's, which may still be behind it: nothing is dealt with early.
        let until = pass.until.map_or(now, |until| until.min(now));
        let take = Take { job: pass.run.job.clone(), now: until, limit, only };
        let rows = match caught(self.job.take(&mut tx, &take)).await {
            Caught::Answer(Ok(rows)) => rows,
            Caught::Answer(Err(error)) => return bad(env, tx, Vec::new(), error).await,
            Caught::Panicked(text) => return panicked(env, tx, Vec::new(), text).await,
        };
        if rows.is_empty() {
            roll_back(env, tx).await;
            return Batch::Done { rows: 0, lateness_ms: 0 };
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| self.job.id(row)).collect();
        if let Some(again) = ids.iter().find(|id| pass.handled.contains(id)) {
            roll_back(env, tx).await;
            let left = format!("row {again} was handled and is still due");
            let still: Vec<Uuid> = ids.into_iter().filter(|id| pass.handled.remove(id)).take(1).collect();
            return Batch::Bad(still, Outcome::Failed, left);
        }
        let late = rows.iter().filter_map(|row| self.job.due_at(row)).map(|due| (now - due).num_milliseconds()).max();
        pass.run.now = now;
        let token = Arc::new(());
        self.acting(|acting| acting.push((ids.clone(), Arc::downgrade(&token))));
        let acted = caught(self.job.act(&mut tx, rows, &pass.run)).await;
        // One that came back well is no suspect, however late: the process may have been asleep.
        if matches!(acted, Caught::Answer(Ok(()))) || pass.watch.why() != Why::Timeout {
            self.acting(|acting| acting.retain(|(batch, _)| *batch != ids));
        }
        match acted {
            Caught::Answer(Ok(())) => {}
            Caught::Answer(Err(error)) => return bad(env, tx, ids, error).await,
            Caught::Panicked(text) => return panicked(env, tx, ids, text).await,
        }
        self.write_down(env, pass, tx, ids, now, late.unwrap_or(0).max(0)).await
    }

    /// The ledger and the commit of a batch that went well.
    async fn write_down(
        &self,
        env: &Env<S>,
        pass: &mut Pass<'_>,
        mut tx: S::Tx,
        ids: Vec<Uuid>,
        now: Instant,
        lateness_ms: i64,
    ) -> Batch {
        let items = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let cleared = if pass.aside { env.store.clear_failures(&mut tx, &pass.run.job, &ids).await } else { Ok(()) };
        let written = match (cleared, pass.book) {
            (Err(error), _) => Err(error),
            (Ok(()), Book::Run(held)) => env.store.checkpoint(&mut tx, held, items, None).await,
            (Ok(()), Book::Window(wake)) => {
                let (run, started_at, wake) = self.windows.at(env, wake, now);
                let job = pass.run.job.clone();
                let owner = env.replica.clone();
                let window = Window { job, run, owner, wake, started_at, items, lateness_ms };
                env.store.window(&mut tx, &window).await.map(|()| true)
            }
        };
        match written {
            Ok(true) => {}
            Ok(false) => {
                roll_back(env, tx).await;
                return Batch::Fenced;
            }
            Err(error) => return bad(env, tx, ids, error.into()).await,
        }
        // Whatever became of an unknown commit, the rows say it: they are due or they are not.
        if let Err(error) = env.store.commit(tx).await {
            return Batch::Again(error.to_string());
        }
        (env.on_effect)();
        let rows = ids.len() as u64;
        pass.handled.extend(ids);
        Batch::Done { rows, lateness_ms }
    }

    fn batch_size(&self, env: &Env<S>) -> u64 {
        if env.store.single_writer() { *self.batch.lock().unwrap_or_else(PoisonError::into_inner) } else { BATCH }
    }

    /// Keeps a batch on a single-writer store under [`WRITER_TIME`].
    fn adapt(&self, env: &Env<S>, took: Duration, rows: u64, limit: u64) {
        if !env.store.single_writer() || rows < limit {
            return;
        }
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        *batch = if took > WRITER_TIME { (*batch / 2).max(10) } else { (*batch * 5 / 4).min(BATCH) };
    }
}

async fn bad<S: Store>(env: &Env<S>, tx: S::Tx, ids: Vec<Uuid>, error: JobError) -> Batch {
    roll_back(env, tx).await;
    if error.is_transient() {
        Batch::Again(error.to_string())
    } else {
        Batch::Bad(ids, Outcome::Failed, error.to_string())
    }
}

async fn panicked<S: Store>(env: &Env<S>, tx: S::Tx, ids: Vec<Uuid>, text: String) -> Batch {
    roll_back(env, tx).await;
    Batch::Bad(ids, Outcome::Panicked, text)
}
