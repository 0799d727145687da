//! What the runner needs of a database: atomic operations on the two ledgers, and work transactions.
//!
//! Three implementations: memory (for simulation), PostgreSQL and SQLite. One conformance suite runs on all.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{
    Instant, StoreError,
    kinds::Held,
    ledger::{Ending, FailureRow, NewRun, Outcome, Pause, ReplicaRow, RunRow, ScheduleRow, Wake},
    policy::{Decision, Resume},
    schedule::Spec,
};

pub mod memory;
pub(crate) mod rules;
pub mod sql;

/// What a replica says of a job when it starts and every 30 s.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// The job.
    pub job: String,
    /// Whether this replica runs it.
    pub enabled: bool,
    /// How this replica is configured.
    pub spec: Spec,
    /// Write the spec if the row's differs (an enabled replica that starts); else only say "seen".
    pub starting: bool,
}

/// What a sweep asks while nothing is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Look {
    /// The schedule rows.
    pub schedules: Vec<ScheduleRow>,
    /// Whether a run waits.
    pub queued: bool,
    /// Whether one is running.
    pub running: bool,
}

/// What became of a [`Decision`].
#[derive(Debug, Clone)]
pub struct Decided {
    /// The job.
    pub job: String,
    /// False: somebody else decided first (or the job is paused); read the row again.
    pub won: bool,
    /// Runs that are ours and running now.
    pub started: Vec<RunRow>,
    /// Runs of others that were asked to stop or were closed (`cancel_other`, `terminate_other`).
    pub disturbed: Vec<Held>,
}

/// What became of a request to run now.
#[derive(Debug, Clone)]
pub enum Enqueued {
    /// A new run waits.
    New(RunRow),
    /// The idempotency key was used within 24 h; this is its run.
    Existing(RunRow),
    /// So many wait already.
    Full,
}

/// What a renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// The run.
    pub held: Held,
    /// Still ours; false means fenced.
    pub alive: bool,
    /// A newer run asks this one to stop.
    pub cancel: bool,
}

/// Running runs of a job whose owners seem dead.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// The job.
    pub job: String,
    /// Take it over in the same row (Tick, Steps); else it ends as `lost` (Claim, Lease: their rows are due again).
    pub resume: bool,
    /// The runs, each with the instant after its own, if there is one: once that is due by the store's clock, a lost run is
    /// final. Other runs are left alone, for nobody has said when theirs is.
    pub runs: Vec<(Uuid, Option<Instant>)>,
}

impl Recovery {
    /// Whether the instant after the run's own is due; `None`: the run was not named.
    pub(crate) fn superseded(&self, run: Uuid, now: Instant) -> Option<bool> {
        let named = self.runs.iter().find(|(named, _)| *named == run);
        named.map(|(_, next)| next.is_some_and(|next| next <= now))
    }
}

/// What was found of dead owners.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Runs that are ours now.
    pub resumed: Vec<RunRow>,
    /// Runs that ended as `lost`.
    pub ended: Vec<RunRow>,
}

/// A batch of a due or hint pass, for the replica's 10 s ledger window.
#[derive(Debug, Clone)]
pub struct Window {
    /// The job.
    pub job: String,
    /// The row of the window; the first batch inserts it, later ones add to it.
    pub run: Uuid,
    /// The replica.
    pub owner: String,
    /// `due` or `hint`.
    pub wake: Wake,
    /// When the window began.
    pub started_at: Instant,
    /// Items of this batch.
    pub items: i64,
    /// Largest lateness of this batch.
    pub lateness_ms: i64,
}

impl Window {
    /// The row as its first batch inserts it.
    pub(crate) fn new_run(&self) -> NewRun {
        NewRun {
            id: self.run,
            run_key: format!("due:{}", self.run),
            wake: self.wake,
            nominal_at: None,
            nominal_until: None,
            instants: 1,
            fire_at: self.started_at,
            outcome: None,
            reason: None,
            into_run: None,
            input: None,
        }
    }
}

/// A message that something may be due earlier than thought. Only ever a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nudge {
    /// The job.
    pub job: String,
    /// When something falls due; `None`: look now.
    pub due: Option<Instant>,
    /// The replica that says so; it knows already.
    pub by: String,
}

/// How a job's runs overlap in the ledger.
#[derive(Debug, Clone)]
pub struct QueueOf {
    /// The job.
    pub job: String,
    /// At most one runs at a time (all policies but `allow_all`).
    pub exclusive: bool,
}

/// One page of a job's runs, newest first.
#[derive(Debug, Clone)]
pub struct RunPage {
    /// The job.
    pub job: String,
    /// Only runs before this one (exclusive); from the last item of the page before.
    pub before: Option<Uuid>,
    /// Only these outcomes; empty: all.
    pub outcomes: Vec<Outcome>,
    /// At most this many.
    pub limit: u64,
}

/// How long ledger rows are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Age after which a done run may go.
    pub age: Duration,
    /// Rows a job keeps at most; bad ends stay for `age` regardless.
    pub rows: u64,
    /// Rows a statement deletes at most.
    pub batch: u64,
}

/// The database as the runner sees it. Every operation is atomic; none waits for longer than the store's limits.
#[async_trait]
pub trait Store: Clone + Send + Sync + 'static {
    /// A transaction in which a job works. Dropping it rolls back.
    type Tx: Send;

    /// The store's time; what decides what is due.
    async fn now(&self) -> Result<Instant, StoreError>;

    /// Writes the replica's rows; inserts missing schedule rows (anchor = now, next = first after now); when `starting`
    /// and enabled and the hash differs, writes the spec by [`crate::policy::respec`] and raises the epoch. The rows now in force.
    async fn announce(&self, replica: &str, jobs: &[Announcement]) -> Result<Vec<ScheduleRow>, StoreError>;

    /// The schedule rows of these jobs (all when empty).
    async fn schedules(&self, jobs: &[String]) -> Result<Vec<ScheduleRow>, StoreError>;

    /// The same, and whether any of their runs waits or is running, its time come or not.
    async fn look(&self, jobs: &[String]) -> Result<Look, StoreError>;

    /// The replicas that announced the job.
    async fn replicas(&self, job: &str) -> Result<Vec<ReplicaRow>, StoreError>;

    /// Carries out decisions, each by compare-and-set on `seen_epoch` of an unpaused row (epoch + 1), with its ledger
    /// rows and starts, and each of them whole or not at all; a database does all (at most 500) in one transaction. A start
    /// meets its overlap policy here, by the partial unique index.
    async fn decide(&self, decisions: Vec<Decision>, owner: &str, lease: Duration) -> Result<Vec<Decided>, StoreError>;

    /// Queues an operator's run (or a backfill's), at most `limit` waiting.
    async fn enqueue(&self, job: &str, run: NewRun, limit: u64) -> Result<Enqueued, StoreError>;

    /// Takes queued runs that may start (of an exclusive job one, and only when none runs), in nominal order.
    /// Rows whose `queued_at` lies ahead wait.
    async fn take_queued(&self, jobs: &[QueueOf], owner: &str, lease: Duration) -> Result<Vec<RunRow>, StoreError>;

    /// Running runs of these jobs, with their owner, epoch and beat.
    async fn running(&self, jobs: &[String]) -> Result<Vec<RunRow>, StoreError>;

    /// Takes over, or ends, running runs whose lease has ended or which are in `stale` (same epoch and beat seen for a
    /// whole lease). The third loss is final, reason `crashed its worker 3 times`.
    async fn recover(
        &self,
        jobs: &[Recovery],
        stale: &[(Held, i64)],
        owner: &str,
        lease: Duration,
    ) -> Result<Recovered, StoreError>;

    /// Extends leases (beat + 1) of runs that are still ours.
    async fn renew(&self, held: &[Held], lease: Duration) -> Result<Vec<Renewal>, StoreError>;

    /// Ends a run outside its work transaction. False: fenced, nothing changed.
    async fn finish(&self, held: Held, ending: &Ending) -> Result<bool, StoreError>;

    /// Notes in the schedule row that a run ended, for the list; outside every other transaction.
    async fn note(&self, job: &str, run: Uuid, outcome: Outcome) -> Result<(), StoreError>;

    /// Gives a run back at a stop: state `queued`, attempt not counted. False: fenced.
    async fn release(&self, held: Held) -> Result<bool, StoreError>;

    /// A zombie reports itself: turns its own `lost` entry into `fenced`.
    async fn fenced(&self, held: Held) -> Result<(), StoreError>;

    /// Pauses; idempotent. The row.
    async fn pause(&self, job: &str, pause: &Pause) -> Result<Option<ScheduleRow>, StoreError>;

    /// Resumes with what the pure core decided, by compare-and-set on its epoch. False: read again.
    async fn resume(&self, job: &str, resume: &Resume) -> Result<bool, StoreError>;

    /// Sets or removes an operator's override, with the spec and next instant that follow, by compare-and-set.
    async fn set_override(
        &self,
        job: &str,
        seen_epoch: i64,
        overrides: Option<Value>,
        next: (Instant, Option<Instant>),
    ) -> Result<bool, StoreError>;

    /// One run.
    async fn run(&self, id: Uuid) -> Result<Option<RunRow>, StoreError>;

    /// A page of runs, newest first.
    async fn runs(&self, page: &RunPage) -> Result<Vec<RunRow>, StoreError>;

    /// The ledger row that covers the latest nominal instant at or before `at`.
    async fn run_at(&self, job: &str, at: Instant) -> Result<Option<RunRow>, StoreError>;

    /// The nominal instant of the last run that succeeded.
    async fn previous_success(&self, job: &str) -> Result<Option<Instant>, StoreError>;

    /// Counts a failure of a row that a Claim could not handle: back-off 30 s × 4, 5 attempts, then given up. The row after it.
    async fn set_aside(&self, job: &str, row_id: Uuid, error: &str) -> Result<FailureRow, StoreError>;

    /// Rows set aside, newest first, after `after` (exclusive).
    async fn failures(&self, job: &str, after: Option<Uuid>, limit: u64) -> Result<Vec<FailureRow>, StoreError>;

    /// Makes a row that was set aside claimable again. False: there is none.
    async fn retry_failure(&self, job: &str, row_id: Uuid) -> Result<bool, StoreError>;

    /// When the next row that was set aside may be tried again. Those whose time has come are due like any other, or were
    /// dealt with meanwhile.
    async fn next_failure(&self, job: &str) -> Result<Option<Instant>, StoreError>;

    /// Deletes old done runs in one bounded batch and moves `ledger_from`. How many went.
    async fn prune(&self, job: &str, keep: Retention) -> Result<u64, StoreError>;

    /// Begins a work transaction with server-side limits of at most `limit` a statement; with it the store's time.
    async fn begin(&self, limit: Duration) -> Result<(Self::Tx, Instant), StoreError>;

    /// Begins a transaction in which a job reads when its next row falls due, under the limits of its connection. It is
    /// dropped afterwards.
    async fn begin_read(&self) -> Result<Self::Tx, StoreError>;

    /// Like [`Store::begin`], on the connections that jobs cannot use up: for renewals of row leases.
    async fn begin_control(&self, limit: Duration) -> Result<(Self::Tx, Instant), StoreError> {
        self.begin(limit).await
    }

    /// Like [`Store::begin`] for a batch of the job's due rows; with it whether this is one of the few transactions in the
    /// whole cluster whose turn it is. Many that claim at once would mostly read past the rows that the others have locked.
    /// Only a courtesy: whoever claims out of turn does nothing wrong.
    async fn begin_in_turn(&self, job: &str, limit: Duration) -> Result<(Self::Tx, Instant, bool), StoreError> {
        let _unused = job;
        let (tx, now) = self.begin(limit).await?;
        Ok((tx, now, true))
    }

    /// How many transactions of a job have their turn at once; a replica has a batch beside the other where it is two.
    fn turns(&self) -> usize {
        1
    }

    /// Whether one transaction at a time can write (SQLite, memory): batches are kept short.
    fn single_writer(&self) -> bool {
        false
    }

    /// Commits. An error may mean that it was done all the same: read the ledger.
    async fn commit(&self, tx: Self::Tx) -> Result<(), StoreError>;

    /// Rolls back.
    async fn rollback(&self, tx: Self::Tx) -> Result<(), StoreError>;

    /// Names the server-side session of `tx`, for [`Store::kill`].
    fn session(&self, tx: &Self::Tx) -> Option<i64>;

    /// A wait for this store is about to be given up: the connection it was for is not to be used again.
    fn given_up(&self) {}

    /// Ends a server-side session whose owner does not react. Nothing to do where there is none.
    async fn kill(&self, session: i64) -> Result<(), StoreError>;

    /// In the work transaction, last statement: ends the run. False: fenced, roll back.
    async fn complete(&self, tx: &mut Self::Tx, held: Held, ending: &Ending) -> Result<bool, StoreError>;

    /// In the work transaction, last statement: adds items and a pass, and sets the cursor. False: fenced, roll back.
    async fn checkpoint(
        &self,
        tx: &mut Self::Tx,
        held: Held,
        items: i64,
        cursor: Option<&Value>,
    ) -> Result<bool, StoreError>;

    /// In the work transaction, last statement: sets the cursor and gives the run back until `until` (state `queued`,
    /// attempt not counted). False: fenced, roll back.
    async fn wait(
        &self,
        tx: &mut Self::Tx,
        held: Held,
        items: i64,
        cursor: &Value,
        until: Instant,
    ) -> Result<bool, StoreError>;

    /// In the work transaction: the replica's ledger row of due and hint passes.
    async fn window(&self, tx: &mut Self::Tx, window: &Window) -> Result<(), StoreError>;

    /// In the work transaction: forgets the failures of rows that went well.
    async fn clear_failures(&self, tx: &mut Self::Tx, job: &str, rows: &[Uuid]) -> Result<(), StoreError>;

    /// Inserts a finished run of its own (a failed pass).
    async fn record(&self, job: &str, owner: &str, run: NewRun, ending: &Ending) -> Result<(), StoreError>;

    /// Tells other replicas that something may be due.
    async fn nudge(&self, nudge: &Nudge) -> Result<(), StoreError>;

    /// Nudges of other replicas. A lagged or broken receiver means: look now.
    fn nudges(&self) -> broadcast::Receiver<Nudge>;
}
