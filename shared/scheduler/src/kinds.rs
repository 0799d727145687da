//! The kinds of job: the trait you implement is the promise you get.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Instant, JobError, ledger::Wake};

/// What a job is told about the run it is part of. It never decides *what* is done from `wake`.
#[derive(Debug, Clone)]
pub struct Run {
    /// The ledger row of this run.
    pub id: Uuid,
    /// The job's name, as operators see it.
    pub job: String,
    /// The instant of the schedule this run stands for; `None` for start, due, hint and manual runs.
    pub nominal: Option<Instant>,
    /// The nominal instant of the last run of this job that succeeded.
    pub previous: Option<Instant>,
    /// What woke it.
    pub wake: Wake,
    /// 1 for the first attempt; raised when a lost run is taken over.
    pub attempt: i32,
    /// The store's time when the present transaction or step began.
    pub now: Instant,
    /// Cancelled when the run should come to its end: stop, timeout, or another run's `cancel_other`.
    pub stop: CancellationToken,
    /// Where the last committed batch or step left off.
    pub cursor: Option<Value>,
    /// What a manual run was given.
    pub input: Option<Value>,
}

impl Run {
    /// What a pass over due rows is told: it stands for no instant.
    pub(crate) fn of_pass(job: &str, wake: Wake, now: Instant, stop: CancellationToken) -> Self {
        Self {
            id: Uuid::nil(),
            job: job.to_owned(),
            nominal: None,
            previous: None,
            wake,
            attempt: 1,
            now,
            stop,
            cursor: None,
            input: None,
        }
    }
}

/// What one batch of a [`Tick`] achieved.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// All is done; the number of items this batch handled.
    Done(u64),
    /// Commit, then call again with the cursor.
    More {
        /// Items this batch handled.
        items: u64,
        /// Where to go on, also after a crash.
        cursor: Value,
    },
}

/// One run for each nominal instant in the whole cluster, in bounded batches.
#[async_trait]
pub trait Tick<T: Send>: Send + Sync + 'static {
    /// Does one batch in `tx`, which the runner commits together with the ledger.
    async fn tick(&self, tx: &mut T, run: &Run) -> Result<Step, JobError>;
}

/// Which due rows a [`Claim`] should lock.
#[derive(Debug, Clone)]
pub struct Take {
    /// The job, for leaving out the rows it has set aside.
    pub job: String,
    /// The store's time: rows due at or before it are due.
    pub now: Instant,
    /// At most this many rows.
    pub limit: u64,
    /// Only these rows (after a failed batch, its halves).
    pub only: Option<Vec<Uuid>>,
    /// Only rows after this one, by due time and id: what the batches before have dealt with is not read past again. A
    /// pass that finds nothing more looks from the beginning before it ends.
    pub after: Option<(Instant, Uuid)>,
}

/// Each due row once: the change and its events are one transaction.
#[async_trait]
pub trait Claim<T: Send>: Send + Sync + 'static {
    /// A due row, locked by `take`.
    type Row: Send + Sync + 'static;

    /// The row's identity.
    fn id(&self, row: &Self::Row) -> Uuid;

    /// When the row fell due, for the lateness metric.
    fn due_at(&self, row: &Self::Row) -> Option<Instant>;

    /// Locks up to `take.limit` due rows, oldest first, leaving out rows that others have locked.
    async fn take(&self, tx: &mut T, take: &Take) -> Result<Vec<Self::Row>, JobError>;

    /// Makes the change of all `rows` and records their events; afterwards none of them may be due. While much is due it is
    /// called for two batches at once, each in a transaction of its own, as replicas call it.
    async fn act(&self, tx: &mut T, rows: Vec<Self::Row>, run: &Run) -> Result<(), JobError>;

    /// Whether the runner should wake exactly when the next row falls due.
    fn wakes_when_due(&self) -> bool {
        false
    }

    /// When the next row falls due, over the same predicate as `take`.
    async fn next_due(&self, tx: &mut T) -> Result<Option<Instant>, JobError> {
        let _unused = tx;
        Ok(None)
    }
}

/// How a [`Lease`] takes rows.
#[derive(Debug, Clone)]
pub struct LeaseTake {
    /// The store's time.
    pub now: Instant,
    /// When the lease ends; it is also the row's next due time, so a dead owner's row is simply due again.
    pub until: Instant,
    /// Who takes them.
    pub owner: String,
    /// At most this many rows: the number of free slots.
    pub limit: u64,
    /// Only rows after this one, by due time and id; see [`Take::after`].
    pub after: Option<(Instant, Uuid)>,
}

/// A row somebody holds by lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    /// The row.
    pub id: Uuid,
    /// The lease's epoch; a later claim raises it.
    pub epoch: i64,
}

/// A row taken by lease.
#[derive(Debug, Clone)]
pub struct Leased<R> {
    /// The row's identity and epoch.
    pub held: Held,
    /// When it fell due.
    pub due_at: Option<Instant>,
    /// Which attempt this is, from 1; unchanged when a lost one is taken over.
    pub attempt: i32,
    /// How often an owner was lost.
    pub lost: i32,
    /// The row.
    pub row: R,
}

/// At least once, fenced: no transaction is open while the outside world is asked.
#[async_trait]
pub trait Lease<T: Send>: Send + Sync + 'static {
    /// A leased row.
    type Row: Send + Sync + Clone + 'static;
    /// What the outside world answered.
    type Answer: Send + Sync + 'static;

    /// Takes due rows: sets owner, epoch + 1, attempt + 1 (unless taken over), due = lease end.
    async fn claim(&self, tx: &mut T, take: &LeaseTake) -> Result<Vec<Leased<Self::Row>>, JobError>;

    /// Asks the outside world about one row. May be dropped at any await.
    async fn ask(&self, row: &Leased<Self::Row>, run: &Run) -> Result<Self::Answer, JobError>;

    /// Locks those of `held` whose epoch is still theirs and returns them.
    async fn lock(&self, tx: &mut T, held: &[Held]) -> Result<Vec<Held>, JobError>;

    /// Writes the answers of rows that are still held, with their next due time or none. A row whose owners were lost
    /// three times should be ended here or in `claim`. Called again with halves when it fails.
    async fn settle(
        &self,
        tx: &mut T,
        answers: &[(Leased<Self::Row>, Result<Self::Answer, JobError>)],
        run: &Run,
    ) -> Result<(), JobError>;

    /// Extends the leases that are still ours; returns those extended.
    async fn renew(&self, tx: &mut T, held: &[Held], until: Instant) -> Result<Vec<Held>, JobError>;

    /// Gives rows back at a stop: due now, the attempt not counted.
    async fn release(&self, tx: &mut T, held: &[Held], now: Instant) -> Result<(), JobError>;

    /// Whether the runner should wake exactly when the next row falls due.
    fn wakes_when_due(&self) -> bool {
        true
    }

    /// When the next row falls due.
    async fn next_due(&self, tx: &mut T) -> Result<Option<Instant>, JobError>;

    /// Makes rows due at a tick, in the run's transaction; how many.
    async fn arm(&self, tx: &mut T, run: &Run) -> Result<u64, JobError> {
        let (_unused, _also) = (tx, run);
        Ok(0)
    }

    /// How many rows are asked about at once in this process.
    fn slots(&self) -> usize {
        10
    }
}

/// What comes after a step of [`Steps`].
#[derive(Debug, Clone, PartialEq)]
pub enum Next<C> {
    /// Go on at once from this cursor.
    Continue {
        /// Where to go on, also after a crash.
        cursor: C,
        /// Items this step handled.
        items: u64,
    },
    /// Free the worker and go on from this cursor at `until`.
    Wait {
        /// Where to go on.
        cursor: C,
        /// When.
        until: Instant,
        /// Items this step handled.
        items: u64,
    },
    /// The run is complete.
    Done {
        /// Items this step handled.
        items: u64,
    },
}

/// One long run with a checkpoint, resumed after a crash from its cursor.
#[async_trait]
pub trait Steps<T: Send>: Send + Sync + 'static {
    /// What a manual run is given; scheduled runs get the default.
    type Input: Serialize + DeserializeOwned + Default + Send + Sync + 'static;
    /// Where the run stands.
    type Cursor: Serialize + DeserializeOwned + Default + Send + Sync + 'static;
    /// What the outside world answered.
    type Answer: Send + 'static;

    /// Asks the outside world for the next part. No transaction is open.
    async fn ask(&self, input: &Self::Input, cursor: &Self::Cursor, run: &Run) -> Result<Self::Answer, JobError>;

    /// Writes the part and says what comes next; committed together with the cursor.
    async fn settle(
        &self,
        tx: &mut T,
        cursor: Self::Cursor,
        answer: Self::Answer,
        run: &Run,
    ) -> Result<Next<Self::Cursor>, JobError>;
}

/// On every replica, on memory only: no transaction, no cluster ledger.
#[async_trait]
pub trait Local: Send + Sync + 'static {
    /// Does the work; the number of items it handled.
    async fn run(&self, run: &Run) -> Result<u64, JobError>;
}

/// How long a lease lasts.
pub const LEASE: Duration = Duration::from_secs(30);
/// How often a lease is renewed.
pub const RENEW_EVERY: Duration = Duration::from_millis(7_500);
