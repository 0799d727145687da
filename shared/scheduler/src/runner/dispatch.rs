//! The dispatcher: one loop a service. It sleeps until something is due, decides it, and starts what follows.

mod fire;
mod start;
mod sweep;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::{
    Instant, JobError, StoreError,
    body::Env,
    job::{Entry, Index},
    kinds::LEASE,
    ledger::ScheduleRow,
    metrics, policy,
    runner::{
        Executions, Hints,
        due::{Do, DueState},
        mail::{CHANGED, LOOK, Mail, NUDGED, Next},
        upkeep::{self, Observed},
    },
    schedule::Overlap,
    store::{Nudge, QueueOf, Store},
};

/// Decisions a transaction carries at most.
const BATCH: usize = 500;
/// How often everything is looked at, in case a hint was lost.
pub(crate) const SWEEP: Duration = Duration::from_secs(5);
/// How often this replica says that it lives, and measures the clock.
const ANNOUNCE: Duration = Duration::from_secs(30);
/// How often the ledger is pruned.
const PRUNE: Duration = Duration::from_secs(600);
/// What falls due so soon after a wake is gathered into the next.
const GATHER: Duration = Duration::from_micros(250);
/// After an error of the store.
const RETRY: Duration = Duration::from_secs(1);

/// One job's place in the loop.
#[derive(Default)]
struct State {
    row: Option<ScheduleRow>,
    fire: Option<Instant>,
    /// At this moment its next instant did not lie too far ahead; nor does it at any later one.
    sound: Option<Instant>,
    due: DueState,
}

pub(crate) struct Dispatcher<S: Store> {
    env: Arc<Env<S>>,
    jobs: Arc<Vec<Entry<S>>>,
    hints: Arc<Hints>,
    executions: Arc<Executions<S>>,
    mail: mpsc::UnboundedSender<Mail>,
    inbox: mpsc::UnboundedReceiver<Mail>,
    tracker: TaskTracker,
    hints_on: bool,
    index: Index,
    states: Vec<State>,
    fires: BTreeSet<(Instant, usize)>,
    due_aware: Vec<usize>,
    observed: Observed,
    next_sweep: Duration,
    next_announce: Duration,
    next_prune: Duration,
    /// When it last woke.
    woke: Duration,
    /// Nothing is decided before this, after an error of the store.
    hold: Duration,
    /// When the database's time was last read.
    measured: Duration,
}

impl<S: Store> Dispatcher<S> {
    #[expect(clippy::too_many_arguments, reason = "made in one place, from the parts of the runner")]
    pub(crate) fn new(
        env: Arc<Env<S>>,
        jobs: Arc<Vec<Entry<S>>>,
        index: Index,
        hints: Arc<Hints>,
        executions: Arc<Executions<S>>,
        mail: mpsc::UnboundedSender<Mail>,
        inbox: mpsc::UnboundedReceiver<Mail>,
        tracker: TaskTracker,
        hints_on: bool,
    ) -> Self {
        let states = jobs.iter().map(|_| State::default()).collect();
        let due_aware = (0..jobs.len()).filter(|at| jobs[*at].due_aware()).collect();
        let now = env.clock.monotonic();
        Self {
            index,
            env,
            jobs,
            hints,
            executions,
            mail,
            inbox,
            tracker,
            hints_on,
            states,
            fires: BTreeSet::new(),
            due_aware,
            observed: Observed::default(),
            next_sweep: now + SWEEP,
            next_announce: now + ANNOUNCE,
            next_prune: now + PRUNE,
            woke: Duration::ZERO,
            hold: Duration::ZERO,
            measured: now,
        }
    }

    pub(crate) async fn run(mut self) {
        if !self.begin().await {
            return;
        }
        loop {
            let until = self.wake_at();
            let mail = tokio::select! {
                biased;
                () = self.env.stop.cancelled() => return,
                mail = self.inbox.recv() => mail,
                () = self.hints.arrived() => None,
                () = self.env.clock.alarm(until) => None,
            };
            self.woke = self.env.clock.monotonic();
            self.receive(mail).await;
            self.fire().await;
            self.work_dues();
            self.upkeep().await;
        }
    }

    /// The earliest moment at which there is something to do.
    fn wake_at(&self) -> Duration {
        let (now, monotonic) = (self.env.clock.now(), self.env.clock.monotonic());
        let fire = self.fires.first().map(|(fire, _)| {
            let ahead = (*fire - now).to_std().unwrap_or(Duration::ZERO);
            (monotonic + ahead).max(self.hold).max(self.woke + GATHER)
        });
        let due =
            self.due_aware.iter().filter_map(|job| self.states[*job].due.wake_at(now, monotonic, self.passes(*job)));
        let periodic = [self.next_sweep, self.next_announce, self.next_prune];
        due.chain(fire).chain(periodic).min().unwrap_or(self.next_sweep)
    }

    /// Whether this process may pass over the job's due rows now.
    fn passes(&self, job: usize) -> bool {
        let paused = self.states[job].row.as_ref().is_none_or(|row| row.pause.is_some());
        self.jobs[job].settings.enabled && !paused
    }

    async fn receive(&mut self, first: Option<Mail>) {
        let (mut look, mut ended) = (Vec::new(), Vec::new());
        let mut mail = first;
        while let Some(letter) = mail.take().or_else(|| self.inbox.try_recv().ok()) {
            match letter {
                Mail::Due { job, due, hinted } => self.due_read(job, due, hinted),
                Mail::Passed { job, wake, passed } => {
                    let rescued = self.states[job].due.passed(self.env.clock.monotonic(), wake, &passed);
                    metrics::rescued(&self.env.service, &self.jobs[job].name, rescued);
                    self.chain_hints(job, passed.items);
                }
                Mail::Ended { job } => {
                    ended.push(job);
                    self.chain_hints(job, 1);
                }
            }
        }
        for (job, bits) in self.hints.take() {
            if self.hints_on && bits & (CHANGED | NUDGED) != 0 && self.jobs[job].due_aware() {
                self.states[job].due.hint(self.env.clock.monotonic(), bits & CHANGED != 0);
            }
            if bits & LOOK != 0 {
                look.push(job);
            }
        }
        if self.env.private {
            // Nobody else writes the schedule rows; only a run may have waited for the end of this one.
            self.take_queued(&ended).await;
        } else {
            look.append(&mut ended);
        }
        if !look.is_empty() {
            self.look(&look).await;
        }
    }

    /// A pass that changed rows may have made rows of other jobs due.
    fn chain_hints(&mut self, from: usize, items: i64) {
        if items == 0 || !self.hints_on {
            return;
        }
        for job in self.due_aware.clone() {
            if job != from {
                self.states[job].due.hint(self.env.clock.monotonic(), true);
            }
        }
    }

    fn due_read(&mut self, job: usize, due: Result<Next, JobError>, hinted: bool) {
        let (now, monotonic) = (self.env.clock.now(), self.env.clock.monotonic());
        self.states[job].due.answered(monotonic);
        match due {
            Ok(next) => {
                if self.states[job].due.read(next, now, hinted) {
                    let (job, by) = (self.jobs[job].name.to_string(), self.env.replica.clone());
                    let (env, nudge) = (Arc::clone(&self.env), Nudge { job, due: next.at, by });
                    self.tracker.spawn(async move {
                        if let Err(error) = env.store.nudge(&nudge).await {
                            tracing::debug!(job = %nudge.job, %error, "other replicas were not told; they look every 5 s");
                        }
                    });
                }
            }
            Err(error) => {
                tracing::warn!(job = %self.jobs[job].name, %error, "when the next row falls due could not be read");
                self.states[job].due.unread(monotonic);
            }
        }
    }

    /// Starts what the due states ask for: reads and passes, each a task of its own.
    fn work_dues(&mut self) {
        let (now, monotonic) = (self.env.clock.now(), self.env.clock.monotonic());
        for job in self.due_aware.clone() {
            let passes = self.passes(job);
            match self.states[job].due.act(now, monotonic, passes) {
                None => {}
                Some(Do::Pass { wake, first }) => self.executions.pass(job, wake, first),
                Some(Do::Read { hinted }) => {
                    let (env, body, mail) =
                        (Arc::clone(&self.env), Arc::clone(&self.jobs[job].body), self.mail.clone());
                    let name = self.jobs[job].name.clone();
                    let work = self.env.work.clone();
                    self.tracker.spawn_on(
                        async move {
                            let due = upkeep::read_due(&env, body.as_ref(), &name).await;
                            let _closed = mail.send(Mail::Due { job, due, hinted });
                        },
                        &work,
                    );
                }
            }
        }
    }

    /// Keeps a freshly read or decided row and its place among the fires.
    fn keep(&mut self, job: usize, row: ScheduleRow) {
        if self.states[job].fire.is_some() && self.states[job].row.as_ref() == Some(&row) {
            return;
        }
        let fire = self.jobs[job].settings.enabled.then(|| policy::wake_at(&row)).flatten();
        if let Some(old) = self.states[job].fire.take() {
            self.fires.remove(&(old, job));
        }
        if let Some(fire) = fire {
            self.fires.insert((fire, job));
        }
        self.states[job].fire = fire;
        self.states[job].sound = None;
        self.states[job].row = Some(row);
    }

    fn job(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Reads the schedule rows of these jobs again.
    async fn reload(&mut self, jobs: &[usize]) {
        match self.env.store.schedules(&self.names(jobs)).await {
            Ok(rows) => self.keep_all(rows),
            Err(error) => self.unread(&error),
        }
    }

    fn names(&self, jobs: &[usize]) -> Vec<String> {
        jobs.iter().map(|job| self.jobs[*job].name.to_string()).collect()
    }

    fn keep_all(&mut self, rows: Vec<ScheduleRow>) {
        for row in rows {
            if let Some(job) = self.job(&row.job) {
                self.keep(job, row);
            }
        }
    }

    fn unread(&mut self, error: &StoreError) {
        tracing::warn!(%error, "schedule rows could not be read");
        self.hold = self.env.clock.monotonic() + RETRY;
    }

    /// A row or a queue may have changed: reads the rows and takes what waits. Whether one of their runs is
    /// running; `None`: it could not be read.
    async fn look(&mut self, jobs: &[usize]) -> Option<bool> {
        match self.env.store.look(&self.names(jobs)).await {
            Ok(look) => {
                self.keep_all(look.schedules);
                if look.queued {
                    self.take_queued(jobs).await;
                }
                Some(look.running)
            }
            Err(error) => {
                self.unread(&error);
                None
            }
        }
    }

    /// Takes runs that wait and may start.
    async fn take_queued(&mut self, jobs: &[usize]) {
        let queues: Vec<QueueOf> = jobs
            .iter()
            .filter(|job| self.jobs[**job].settings.enabled)
            .filter_map(|job| {
                let overlap = self.states[*job].row.as_ref()?.spec.overlap;
                let exclusive = overlap != Overlap::AllowAll;
                Some(QueueOf { job: self.jobs[*job].name.to_string(), exclusive })
            })
            .collect();
        if queues.is_empty() {
            return;
        }
        match self.env.store.take_queued(&queues, &self.env.replica, LEASE).await {
            Ok(runs) => {
                let ours = runs.into_iter().filter_map(|run| Some((self.job(&run.job)?, run)));
                self.executions.launch(ours);
            }
            Err(error) => tracing::warn!(%error, "waiting runs could not be taken; the sweep tries again"),
        }
    }
}
