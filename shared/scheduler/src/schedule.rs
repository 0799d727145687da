//! Pure: when a schedule fires. No clock, no I/O.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
