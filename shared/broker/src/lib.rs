//! Where events travel: Kafka, or the embedded log. The only crate that names the Kafka client.
//!
//! Both carry the same promises: a record is acknowledged when it is kept; records of one key in one topic keep their
//! order; a group goes on from the position it committed; what was not committed comes again.

mod config;
pub mod dead_letters;
pub mod embedded;
pub mod kafka;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use self::{config::KafkaConfig, embedded::EmbeddedBroker, kafka::KafkaBroker};

/// A record larger than this is refused, here and by the topics we make.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// The header that marks what an operator sends again, with the moment of the replay: the embedded log keeps each id
/// once for each replay, and consumers can tell.
pub const REPLAY_HEADER: &str = "replay";

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The event's id; the embedded log keeps each id once.
    pub id: Uuid,
    /// Where to.
    pub topic: String,
    /// Records of one key keep their order.
    pub key: String,
    /// The envelope.
    pub body: Bytes,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// What arrives.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// From where.
    pub topic: String,
    /// Which part of it.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Its key.
    pub key: String,
    /// The envelope.
    pub body: Bytes,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When it was kept.
    pub timestamp: Option<DateTime<Utc>>,
}

/// A place in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// A topic to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// How long it keeps records.
    pub retention: Duration,
}

impl From<&events::EventType> for Topic {
    fn from(event: &events::EventType) -> Self {
        Self { name: event.name.to_owned(), partitions: event.partitions, retention: event.retention }
    }
}

/// Why one record was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It may be kept later, or may have been kept although nobody said so.
    #[error("not acknowledged: {0}")]
    Transient(String),
    /// There is no such topic, or none yet that all of the broker knows of: make it, and send again.
    #[error("no such topic: {0}")]
    UnknownTopic(String),
    /// It never will be: too large, not allowed.
    #[error("refused: {0}")]
    Permanent(String),
}

/// Why the broker cannot be used now.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// It is away or does not answer in time.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
    /// The position is not this member's any more; its records come to another.
    #[error("the partition was given to another member: {0}")]
    Lost(String),
    /// It refuses what it is asked for.
    #[error("the broker refuses: {0}")]
    Refused(String),
}

/// Which broker it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Apache Kafka, or what speaks like it.
    Kafka,
    /// The log inside this process.
    Embedded,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kafka => "kafka",
            Self::Embedded => "embedded log",
        })
    }
}

/// Sends. One a process, shared by all relays.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Sends records and waits until each is kept or not; the answers stand in the order of the records. Records of one
    /// key are kept in their order; after one that failed, later ones of its key may be kept all the same.
    async fn send(&self, records: Vec<Record>) -> Vec<Result<(), SendError>>;

    /// Makes the topics that are missing.
    async fn ensure_topics(&self, topics: &[Topic]) -> Result<(), BrokerError>;
}

/// A member of a group, or a reader of everything.
#[async_trait]
pub trait Consumer: Send {
    /// Waits up to `wait` for records and returns at most `max`, those of a partition in order. Empty: none came.
    async fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Message>, BrokerError>;

    /// Says that everything up to and with these positions is done. Nothing to do for a reader of everything.
    async fn commit(&mut self, done: &[Position]) -> Result<(), BrokerError>;

    /// Goes back, so that these positions come again (the lowest of each partition).
    async fn rewind(&mut self, to: &[Position]) -> Result<(), BrokerError>;

    /// How many records each assigned partition is behind.
    async fn lag(&mut self) -> Result<HashMap<(String, i32), i64>, BrokerError>;

    /// Leaves the group at once, so that others need not wait for its absence to be noticed.
    async fn close(self: Box<Self>);
}

/// Where a reader of everything begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record.
    Earliest,
    /// With what comes after now.
    Latest,
}

/// A broker.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Which it is.
    fn kind(&self) -> Kind;

    /// The producer.
    fn producer(&self) -> Arc<dyn Producer>;

    /// A new member of `group`, which begins with the oldest record where the group has no position. A topic that does
    /// not exist yet is waited for.
    async fn consumer(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Consumer>, BrokerError>;

    /// A reader of all partitions without a group: it commits nothing and takes nothing from others.
    async fn tail(&self, topics: &[&str], from: Start) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Whether it answers.
    async fn healthy(&self) -> bool;
}
