//! Runs that are going on in this process, each with a supervisor that outlives whatever the job does.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    Instant,
    body::{Backoff, Ended, Env, Kind, Passed, Watch, Why},
    job::Entry,
    kinds::{Held, LEASE, Run},
    ledger::{Ending, Outcome, RunRow, Wake},
    metrics,
    runner::mail::Mail,
    store::Store,
};

/// After a timeout, how long the job has to react before its run is closed,
const REACT: Duration = Duration::from_secs(2);
/// and how long before its database session is ended.
const KILL: Duration = Duration::from_secs(5);

/// Runs by id: the job, the epoch, the watch.
type InHand = BTreeMap<Uuid, (usize, i64, Arc<Watch>)>;

/// What is going on in this process.
pub(crate) struct Executions<S: Store> {
    env: Arc<Env<S>>,
    jobs: Arc<Vec<Entry<S>>>,
    mail: mpsc::UnboundedSender<Mail>,
    tracker: TaskTracker,
    running: Mutex<InHand>,
    stuck: AtomicUsize,
    work_threads: usize,
    exhausted: Notify,
}

impl<S: Store> Executions<S> {
    pub(crate) fn new(
        env: Arc<Env<S>>,
        jobs: Arc<Vec<Entry<S>>>,
        mail: mpsc::UnboundedSender<Mail>,
        tracker: TaskTracker,
        work_threads: usize,
    ) -> Self {
        let (running, stuck, exhausted) = (Mutex::default(), AtomicUsize::new(0), Notify::new());
        Self { env, jobs, mail, tracker, running, stuck, work_threads, exhausted }
    }

    fn with<T>(&self, with: impl FnOnce(&mut InHand) -> T) -> T {
        with(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The runs in hand.
    pub(crate) fn held(&self) -> Vec<Held> {
        self.with(|running| running.iter().map(|(id, (_, epoch, _))| Held { id: *id, epoch: *epoch }).collect())
    }

    /// Whether the run is in hand.
    pub(crate) fn has(&self, id: Uuid) -> bool {
        self.with(|running| running.contains_key(&id))
    }

    /// Asks a run to end, if it is in hand.
    pub(crate) fn end(&self, held: Held, why: Why) {
        let watch = self.with(|running| {
            running.get(&held.id).filter(|(_, epoch, _)| *epoch == held.epoch).map(|(_, _, watch)| Arc::clone(watch))
        });
        if let Some(watch) = watch {
            watch.end(why);
        }
    }

    /// Resolves when all work threads are stuck.
    pub(crate) async fn exhausted(&self) {
        self.exhausted.notified().await;
    }

    /// Begins to execute runs that are ours in the ledger.
    pub(crate) fn launch(self: &Arc<Self>, runs: impl IntoIterator<Item = (usize, RunRow)>) {
        let watched =
            runs.into_iter().map(|(job, row)| (job, row, Watch::new(Arc::clone(&self.env.clock), &self.env.stop)));
        let watched: Vec<(usize, RunRow, Arc<Watch>)> = watched.collect();
        let fresh = self.with(|running| {
            let fresh = |(job, row, watch): &(usize, RunRow, Arc<Watch>)| {
                running.insert(row.id, (*job, row.epoch, Arc::clone(watch))).is_none()
            };
            watched.into_iter().filter(fresh).collect::<Vec<_>>()
        });
        for (job, row, watch) in fresh {
            self.tracker.spawn(Arc::clone(self).supervise(job, row, watch));
        }
    }

    async fn supervise(self: Arc<Self>, job: usize, row: RunRow, watch: Arc<Watch>) {
        let entry = &self.jobs[job];
        let held = Held { id: row.id, epoch: row.epoch };
        let began = self.env.clock.monotonic();
        if let (Wake::Tick, Some(ms)) = (row.wake_source, row.lateness_ms) {
            metrics::fire_lateness(&self.env.service, &entry.name, ms);
        }
        metrics::running(&self.env.service, &entry.name, 1.0);
        let span = tracing::info_span!("run", service = %self.env.service, job = %entry.name, run = %row.id,
            wake = %row.wake_source, nominal = row.nominal_at.map(tracing::field::display), attempt = row.attempt);
        tracing::debug!(parent: &span, "run starts");
        let previous = match entry.kind() {
            Kind::Tick => self.env.store.previous_success(&entry.name).await.ok().flatten(),
            _ => None,
        };
        let run = Run {
            id: row.id,
            job: entry.name.to_string(),
            nominal: row.nominal_at,
            previous,
            wake: row.wake_source,
            attempt: row.attempt,
            now: self.env.clock.now(),
            stop: watch.stop.clone(),
            cursor: row.cursor.clone(),
            input: row.input.clone(),
        };
        let attempt = {
            let (env, body, watch) = (Arc::clone(&self.env), Arc::clone(&entry.body), Arc::clone(&watch));
            let work = async move { body.attempt(&env, run, held, &watch).await };
            self.env.work.spawn(work.instrument(span.clone()))
        };
        let ended = self.watch(job, &watch, attempt, Some(held)).await;
        let closed = self.close(held, &watch, ended).instrument(span.clone()).await;
        self.with(|running| running.remove(&held.id));
        (self.env.on_effect)();
        metrics::running(&self.env.service, &entry.name, -1.0);
        if let Some((outcome, items, error)) = closed {
            self.note(&entry.name, held.id, outcome).await;
            let took = self.env.clock.monotonic().saturating_sub(began);
            let now = self.env.clock.now();
            metrics::ended(&self.env.service, &entry.name, row.wake_source, outcome, took, items, now);
            match error {
                None => tracing::info!(parent: &span, %outcome, items, took_ms = took.as_millis(), "run ended"),
                Some(error) => {
                    tracing::warn!(parent: &span, %outcome, items, took_ms = took.as_millis(), error, "run ended");
                }
            }
        }
        let _closed = self.mail.send(Mail::Ended { job });
    }

    /// Waits for the attempt; enforces the timeout on each of its units. `None`: it does not react any more.
    async fn watch(
        &self,
        job: usize,
        watch: &Watch,
        mut attempt: JoinHandle<Ended>,
        held: Option<Held>,
    ) -> Option<Ended> {
        let entry = &self.jobs[job];
        let clock = &self.env.clock;
        loop {
            let now = clock.monotonic();
            let deadline = watch.since().unwrap_or(now) + entry.timeout;
            tokio::select! {
                biased;
                ended = &mut attempt => return Some(joined(ended)),
                () = clock.sleep_until(deadline.max(now + Duration::from_millis(1))) => {}
            }
            let over = watch.since().is_some_and(|since| clock.monotonic() >= since + entry.timeout);
            if over {
                break;
            }
        }
        tracing::warn!(job = %entry.name, timeout = ?entry.timeout, "the run takes too long; it is asked to end");
        watch.end(Why::Timeout);
        let late = clock.monotonic();
        tokio::select! {
            biased;
            ended = &mut attempt => return Some(joined(ended)),
            () = clock.sleep_until(late + REACT) => {}
        }
        if let Some(held) = held {
            // Closing the row fences the attempt: whatever it still commits is refused.
            let ending = Ending::because(Outcome::TimedOut, format!("no end within {:?}", entry.timeout));
            self.write(held, &ending).await;
        }
        tokio::select! {
            biased;
            ended = &mut attempt => return Some(joined(ended)),
            () = clock.sleep_until(late + KILL) => {}
        }
        for session in watch.sessions(clock.monotonic().saturating_sub(entry.timeout)) {
            if let Err(error) = self.env.store.kill(session).await {
                tracing::warn!(job = %entry.name, %error, "could not end the database session of a run that does not react");
            }
        }
        self.env.store.given_up();
        // Its session is gone, so a future that waits for ever may be dropped; a thread that is blocked does not notice.
        attempt.abort();
        tokio::select! {
            biased;
            ended = &mut attempt => return Some(joined(ended)),
            () = clock.sleep_until(late + LEASE) => {}
        }
        self.mark_stuck(&entry.name, attempt);
        None
    }

    /// The job's thread does not come back: count it until it does, and give up when all threads are like this.
    fn mark_stuck(&self, job: &str, attempt: JoinHandle<Ended>) {
        let stuck = self.stuck.fetch_add(1, Ordering::AcqRel) + 1;
        metrics::stuck(&self.env.service, stuck);
        tracing::error!(job, stuck, "a run does not react to its timeout; its thread is lost until it returns");
        if self.work_threads > 0 && stuck >= self.work_threads {
            self.exhausted.notify_one();
        }
        drop(attempt);
    }

    /// Writes the end that the attempt did not write itself. What it was, unless it waits.
    async fn close(&self, held: Held, watch: &Watch, ended: Option<Ended>) -> Option<(Outcome, i64, Option<String>)> {
        let asked = match ended {
            None => return Some((Outcome::TimedOut, 0, Some("does not react".to_owned()))),
            Some(Ended::Completed { items }) => return Some((Outcome::Succeeded, items, None)),
            Some(Ended::Waiting) => return None,
            Some(Ended::Fenced) => Why::Fenced,
            Some(Ended::With(ending)) => {
                return if self.write(held, &ending).await {
                    let items = self.items(held, &ending).await;
                    Some((ending.outcome, items, ending.error))
                } else {
                    self.report_fenced(held).await
                };
            }
            Some(Ended::Asked) => watch.why(),
        };
        match asked {
            Why::Fenced => self.report_fenced(held).await,
            Why::Timeout => {
                let ending = Ending::because(Outcome::TimedOut, "took too long");
                self.write(held, &ending).await;
                Some((Outcome::TimedOut, 0, ending.reason))
            }
            Why::Cancel => {
                let ending = Ending::because(Outcome::Cancelled, "a newer run asked it to stop");
                self.write(held, &ending).await;
                Some((Outcome::Cancelled, 0, None))
            }
            Why::Stop | Why::Nothing => {
                match self.env.store.release(held).await {
                    Ok(true) => tracing::info!("run given back at the stop"),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "run not given back; others take it over when its lease ends"),
                }
                Some((Outcome::Interrupted, 0, None))
            }
        }
    }

    /// What a run handled in all. Nothing is checkpointed in a ledger of this process alone.
    async fn items(&self, held: Held, ending: &Ending) -> i64 {
        if self.env.private {
            return ending.items;
        }
        self.env.store.run(held.id).await.ok().flatten().map_or(ending.items, |row| row.items)
    }

    /// For the list of jobs only, so a failure of it is no failure of the run.
    async fn note(&self, job: &str, run: Uuid, outcome: Outcome) {
        if matches!(outcome, Outcome::Interrupted | Outcome::Fenced) {
            return;
        }
        if let Err(error) = self.env.store.note(job, run, outcome).await {
            tracing::debug!(%error, "the last run was not noted");
        }
    }

    async fn report_fenced(&self, held: Held) -> Option<(Outcome, i64, Option<String>)> {
        // A run that its own timeout closed is not a zombie's.
        let row = self.env.store.run(held.id).await.ok().flatten()?;
        if row.epoch == held.epoch {
            return row.outcome.map(|outcome| (outcome, 0, row.reason));
        }
        metrics::fenced(&self.env.service, &row.job, 1);
        if let Err(error) = self.env.store.fenced(held).await {
            tracing::warn!(%error, "could not note that this owner came back too late");
        }
        Some((Outcome::Fenced, 0, Some("another replica took the run over".to_owned())))
    }

    /// Ends the run in the ledger; tries again while the store is away, up to a lease.
    async fn write(&self, held: Held, ending: &Ending) -> bool {
        let until = self.env.clock.monotonic() + LEASE;
        let mut backoff = Backoff::new();
        loop {
            match self.env.store.finish(held, ending).await {
                Ok(written) => return written,
                Err(error) if error.is_transient() && self.env.clock.monotonic() < until => {
                    self.env.sleep(backoff.next()).await;
                }
                Err(error) => {
                    tracing::warn!(run = %held.id, %error, "the end of a run could not be written");
                    return false;
                }
            }
        }
    }

    /// Begins a pass over due rows.
    pub(crate) fn pass(self: &Arc<Self>, job: usize, wake: Wake, first: Option<Instant>) {
        let this = Arc::clone(self);
        self.tracker.spawn(async move {
            let entry = &this.jobs[job];
            let began = this.env.clock.monotonic();
            let watch = Watch::new(Arc::clone(&this.env.clock), &this.env.stop);
            let span = tracing::info_span!("pass", service = %this.env.service, job = %entry.name, %wake);
            let (slot, result) = tokio::sync::oneshot::channel();
            let attempt = {
                let (env, body, watch) = (Arc::clone(&this.env), Arc::clone(&entry.body), Arc::clone(&watch));
                let work = async move {
                    let _gone = slot.send(body.pass(&env, wake, first, &watch).await);
                    Ended::Asked
                };
                this.env.work.spawn(work.instrument(span.clone()))
            };
            let ended = this.watch(job, &watch, attempt, None).await;
            let passed = match ended {
                Some(_) => result.await.unwrap_or_default(),
                None => Passed { error: Some((Outcome::TimedOut, "does not react".to_owned())), ..Passed::default() },
            };
            let passed = this.after_pass(entry, wake, passed, began, watch.why()).instrument(span).await;
            let _closed = this.mail.send(Mail::Passed { job, wake, passed });
        });
    }

    /// Counts a pass, and gives a bad one a ledger row of its own.
    async fn after_pass(&self, entry: &Entry<S>, wake: Wake, mut passed: Passed, began: Duration, why: Why) -> Passed {
        if why == Why::Timeout {
            passed.error.get_or_insert((Outcome::TimedOut, format!("a batch took longer than {:?}", entry.timeout)));
        }
        let took = self.env.clock.monotonic().saturating_sub(began);
        let now = self.env.clock.now();
        if passed.items > 0 {
            (self.env.on_effect)();
            metrics::due_lateness(&self.env.service, &entry.name, passed.lateness_ms);
            tracing::info!(
                items = passed.items,
                lateness_ms = passed.lateness_ms,
                took_ms = took.as_millis(),
                "pass ended"
            );
        }
        let Some((outcome, error)) = &passed.error else {
            if passed.items > 0 {
                metrics::ended(&self.env.service, &entry.name, wake, Outcome::Succeeded, took, passed.items, now);
            }
            return passed;
        };
        tracing::warn!(%outcome, error, items = passed.items, "pass ended");
        metrics::ended(&self.env.service, &entry.name, wake, *outcome, took, passed.items, now);
        if !passed.transient {
            let id = (self.env.ids)();
            let run = crate::ledger::NewRun {
                id,
                run_key: format!("{wake}:{id}"),
                wake,
                nominal_at: None,
                nominal_until: None,
                instants: 1,
                fire_at: now,
                outcome: None,
                reason: None,
                into_run: None,
                input: None,
            };
            let ending = Ending { items: passed.items, ..Ending::error(*outcome, error) };
            if let Err(error) = self.env.store.record(&entry.name, &self.env.replica, run, &ending).await {
                tracing::warn!(%error, "a failed pass could not be written down");
            }
        }
        passed
    }
}

fn joined(ended: Result<Ended, tokio::task::JoinError>) -> Ended {
    match ended {
        Ok(ended) => ended,
        Err(error) if error.is_cancelled() => Ended::Asked,
        Err(error) => Ended::With(Ending::error(Outcome::Panicked, error)),
    }
}
