//! The embedded log: topics in one SQLite file, for one process on one machine. Not a broker for production.

mod consumer;
mod producer;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use database::Fault;
use sea_orm::{ConnectionTrait, DatabaseConnection};
use tokio::sync::watch;

use self::{
    consumer::{Member, Reader},
    producer::EmbeddedProducer,
};
use crate::{Broker, BrokerError, Consumer, Kind, Producer, Start, Topic};

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS topics (name text PRIMARY KEY, retention_s integer NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS events (
        topic text NOT NULL, offset integer NOT NULL, id blob NOT NULL, replay text NOT NULL, key text NOT NULL,
        body blob NOT NULL, headers text NOT NULL, at text NOT NULL, PRIMARY KEY (topic, offset),
        UNIQUE (id, replay)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS offsets (topic text PRIMARY KEY, next integer NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS groups (
        name text NOT NULL, topic text NOT NULL, next integer NOT NULL, PRIMARY KEY (name, topic)) WITHOUT ROWID",
];

/// The log of one process.
pub struct EmbeddedBroker {
    log: Arc<Log>,
}

/// What producer and consumers share.
pub(crate) struct Log {
    pub(crate) db: DatabaseConnection,
    /// Rises with every append, so that consumers wake at once.
    pub(crate) appended: watch::Sender<u64>,
    /// Which member of a group has a topic: one partition a topic, so one member.
    pub(crate) members: Mutex<HashMap<(String, String), u64>>,
    pub(crate) next_member: std::sync::atomic::AtomicU64,
    pub(crate) known: Mutex<HashSet<String>>,
}

impl EmbeddedBroker {
    /// Opens the log file, which must be this process's alone.
    pub async fn open(file: &Path) -> Result<Self, BrokerError> {
        let db = database::sqlite(file);
        for statement in TABLES {
            db.execute_unprepared(statement).await.map_err(|error| unavailable(&Fault::from(error)))?;
        }
        let log = Log {
            db,
            appended: watch::Sender::new(0),
            members: Mutex::default(),
            next_member: std::sync::atomic::AtomicU64::new(1),
            known: Mutex::default(),
        };
        Ok(Self { log: Arc::new(log) })
    }

    /// Deletes events older than their topic's retention, at most `batch` of them. How many went.
    pub async fn prune(&self, now: chrono::DateTime<chrono::Utc>, batch: u64) -> Result<u64, BrokerError> {
        self.log.prune(now, batch).await
    }
}

pub(crate) fn unavailable(fault: &Fault) -> BrokerError {
    BrokerError::Unavailable(fault.to_string())
}

impl Log {
    pub(crate) fn members(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), u64>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn prune(&self, now: chrono::DateTime<chrono::Utc>, batch: u64) -> Result<u64, BrokerError> {
        let mut sql = database::Sql::of(&self.db);
        let (now, batch) = (sql.bind(now), sql.bind(i64::try_from(batch).unwrap_or(i64::MAX)));
        let text = format!(
            "DELETE FROM events WHERE (topic, offset) IN (
                 SELECT e.topic, e.offset FROM events e JOIN topics t ON t.name = e.topic
                 WHERE unixepoch(e.at) < unixepoch({now}) - t.retention_s LIMIT {batch})"
        );
        sql.run(&self.db, &text).await.map_err(|fault| unavailable(&fault))
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    fn kind(&self) -> Kind {
        Kind::Embedded
    }

    fn producer(&self) -> Arc<dyn Producer> {
        Arc::new(EmbeddedProducer { log: Arc::clone(&self.log) })
    }

    async fn consumer(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(Member::join(Arc::clone(&self.log), group, topics)))
    }

    async fn tail(&self, topics: &[&str], from: Start) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(Reader::open(Arc::clone(&self.log), topics, from).await?))
    }

    async fn healthy(&self) -> bool {
        self.log.db.execute_unprepared("SELECT 1").await.is_ok()
    }
}

/// A topic's retention as the table holds it.
pub(crate) fn retention_s(topic: &Topic) -> i64 {
    i64::try_from(topic.retention.as_secs()).unwrap_or(i64::MAX)
}
