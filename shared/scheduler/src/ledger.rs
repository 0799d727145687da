//! The rows of the two ledgers: what is planned for a job, and what became of each instant.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::schedule::Spec;

/// A moment in UTC, in whole microseconds (what PostgreSQL keeps).
pub type Instant = DateTime<Utc>;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }
        impl $name {
            /// Every word, in the order of its definition.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The word used in tables, APIs and metrics.
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $word),+ } }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    other => Err(format!(concat!(stringify!($name), ": unknown word {:?}"), other)),
                }
            }
        }
    };
}

words! {
    /// What woke a run.
    Wake {
        /// Its schedule.
        Tick = "tick",
        /// The process started.
        Start = "start",
        /// The next due row's time came.
        Due = "due",
        /// A nudge after a commit, here or in another replica.
        Hint = "hint",
        /// An operator.
        Manual = "manual",
        /// Missed instants after an outage or a pause.
        CatchUp = "catch_up",
        /// A requested range.
        Backfill = "backfill",
    }
}

words! {
    /// What became of an instant or a pass.
    Outcome {
        /// It ran.
        Succeeded = "succeeded",
        /// It ran and said it failed.
        Failed = "failed",
        /// It took too long.
        TimedOut = "timed_out",
        /// It panicked.
        Panicked = "panicked",
        /// The previous run was still going.
        SkippedOverlap = "skipped_overlap",
        /// Later than the grace.
        Missed = "missed",
        /// Another run stood for it.
        Coalesced = "coalesced",
        /// The job was paused.
        Paused = "paused",
        /// No replica had the job enabled.
        Disabled = "disabled",
        /// A stop released it.
        Interrupted = "interrupted",
        /// Its owner died.
        Lost = "lost",
        /// Its owner came back too late.
        Fenced = "fenced",
        /// Asked to stop by a newer run.
        Cancelled = "cancelled",
        /// Closed by a newer run.
        Terminated = "terminated",
    }
}

impl Outcome {
    /// Whether it is of a run that was really made (the others say why there was none).
    pub fn ran(self) -> bool {
        use Outcome::{Coalesced, Disabled, Missed, Paused, SkippedOverlap};
        !matches!(self, SkippedOverlap | Missed | Coalesced | Paused | Disabled)
    }
}

words! {
    /// Where a run stands.
    RunState {
        /// Waiting to be taken.
        Queued = "queued",
        /// Somebody runs it.
        Running = "running",
        /// It has its outcome.
        Done = "done",
    }
}

/// Who paused a job, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub at: Instant,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Until when; then it resumes from now.
    pub until: Option<Instant>,
}

/// `job_schedules`: one row a job.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRow {
    /// The job.
    pub job: String,
    /// The schedule and policies in force for the whole cluster.
    pub spec: Spec,
    /// Digest of `spec`.
    pub spec_hash: String,
    /// The replica that wrote it.
    pub spec_by: String,
    /// When.
    pub spec_at: Instant,
    /// An operator's override of the interval (JSON object), or none.
    pub overrides: Option<Value>,
    /// Intervals count from here.
    pub anchor_at: Instant,
    /// The next nominal instant; `None` for schedule kind `none` or when it never comes.
    pub next_at: Option<Instant>,
    /// Raised by every decision; the compare-and-set that decides who starts an instant.
    pub epoch: i64,
    /// When a run on start was last made.
    pub last_start_at: Option<Instant>,
    /// Set while paused.
    pub pause: Option<Pause>,
    /// The last run that ended.
    pub last_run_id: Option<Uuid>,
    /// The nominal instant or end of the last run that succeeded.
    pub last_success_at: Option<Instant>,
    /// Before this the ledger has been pruned.
    pub ledger_from: Instant,
}

/// One ended attempt of a run, kept in its row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub attempt: i32,
    /// Who.
    pub owner: String,
    /// Under which epoch.
    pub epoch: i64,
    /// From when.
    pub from: Option<Instant>,
    /// To when.
    pub to: Instant,
    /// `lost`, `interrupted` or `fenced`.
    pub outcome: Outcome,
}

/// `job_runs`: one row an instant, a range of instants, or an extra pass.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// UUIDv7.
    pub id: Uuid,
    /// The job.
    pub job: String,
    /// Unique for the job: `tick:{nominal}`, `start:{uuid}`, `manual:{key}`, `due:{uuid}`, `backfill:{request}:{nominal}`.
    pub run_key: String,
    /// What woke it.
    pub wake_source: Wake,
    /// The instant it stands for.
    pub nominal_at: Option<Instant>,
    /// The last instant of a range.
    pub nominal_until: Option<Instant>,
    /// How many instants.
    pub instants: i64,
    /// When it should have started: nominal plus jitter.
    pub fire_at: Instant,
    /// Where it stands.
    pub state: RunState,
    /// Set when done.
    pub outcome: Option<Outcome>,
    /// Why, in words.
    pub reason: Option<String>,
    /// The run that stood for these instants.
    pub into_run: Option<Uuid>,
    /// From 1.
    pub attempt: i32,
    /// Attempts that ended otherwise.
    pub attempts: Vec<Attempt>,
    /// Who runs it.
    pub owner: Option<String>,
    /// Raised at each start of an attempt; later writes must carry it.
    pub epoch: i64,
    /// Raised by each renewal.
    pub beat: i64,
    /// When the lease ends.
    pub lease_until: Option<Instant>,
    /// Set by `cancel_other`.
    pub cancel_at: Option<Instant>,
    /// What a manual run was given.
    pub input: Option<Value>,
    /// Where the last committed batch or step left off.
    pub cursor: Option<Value>,
    /// Items handled.
    pub items: i64,
    /// Batches committed.
    pub passes: i64,
    /// Started minus `fire_at` (tick) or the largest now minus due (due, hint), in milliseconds.
    pub lateness_ms: Option<i64>,
    /// When it was queued (a `Wait` step: when it may go on).
    pub queued_at: Option<Instant>,
    /// When its present attempt started.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Option<Instant>,
    /// What went wrong, at most 4 KiB, control characters escaped.
    pub error: Option<String>,
}

/// A ledger row to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// UUIDv7.
    pub id: Uuid,
    /// See [`RunRow::run_key`].
    pub run_key: String,
    /// What woke it.
    pub wake: Wake,
    /// The instant it stands for.
    pub nominal_at: Option<Instant>,
    /// The last instant of a range.
    pub nominal_until: Option<Instant>,
    /// How many instants.
    pub instants: i64,
    /// When it should start.
    pub fire_at: Instant,
    /// `Some`: written as done (missed, coalesced, paused, disabled). `None`: to be started.
    pub outcome: Option<Outcome>,
    /// Why, in words.
    pub reason: Option<String>,
    /// The run that stood for these instants.
    pub into_run: Option<Uuid>,
    /// What a manual run was given.
    pub input: Option<Value>,
}

/// `job_replicas`: which replica has which configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRow {
    /// The job.
    pub job: String,
    /// The replica.
    pub replica: String,
    /// Whether it runs the job.
    pub enabled: bool,
    /// The digest of the spec it was configured with.
    pub spec_hash: String,
    /// When it started.
    pub started_at: Instant,
    /// When it last said so.
    pub seen_at: Instant,
}

/// `job_failures`: a row a Claim has set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureRow {
    /// The job.
    pub job: String,
    /// The row of the job's own table.
    pub row_id: Uuid,
    /// How often it failed.
    pub attempts: i32,
    /// When it may be tried again.
    pub next_attempt_at: Option<Instant>,
    /// Set when it is not tried again by itself.
    pub given_up_at: Option<Instant>,
    /// What went wrong.
    pub error: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The outcome.
    pub outcome: Outcome,
    /// Why, in words.
    pub reason: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Items to add to the row's count.
    pub items: i64,
}

impl Ending {
    /// A good end that handled `items` more items.
    pub fn succeeded(items: i64) -> Self {
        Self { outcome: Outcome::Succeeded, reason: None, error: None, items }
    }

    /// An end for a reason in words.
    pub fn because(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: Some(reason.into()), error: None, items: 0 }
    }

    /// A bad end with its error.
    pub fn error(outcome: Outcome, error: impl std::fmt::Display) -> Self {
        Self { outcome, reason: None, error: Some(hostile(&error.to_string())), items: 0 }
    }
}

/// Text from outside as it may be stored and shown: at most 4 KiB, control characters escaped.
pub fn hostile(text: &str) -> String {
    const LIMIT: usize = 4096;
    let mut safe = String::with_capacity(text.len().min(LIMIT));
    for c in text.chars() {
        let escaped: String = if c.is_control() { c.escape_default().collect() } else { c.into() };
        if safe.len() + escaped.len() > LIMIT {
            break;
        }
        safe.push_str(&escaped);
    }
    safe
}
