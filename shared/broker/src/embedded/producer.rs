//! Appending to the embedded log: one transaction a batch, each id once.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use database::{Cells, Fault, Sql, hex_bytes};
use sea_orm::DatabaseTransaction;
use serde_json::json;

use super::{Log, retention_s, unavailable};
use crate::{BrokerError, Producer, RECORD_BYTES_MAX, REPLAY_HEADER, Record, SendError, Topic};

/// Records of one statement: what it carries is copied several times on its way, which is cheaper while it is small.
const TOGETHER: usize = 250;

pub(super) struct EmbeddedProducer {
    pub(super) log: Arc<Log>,
}

#[async_trait]
impl Producer for EmbeddedProducer {
    async fn send(&self, records: Vec<Record>) -> Vec<Result<(), SendError>> {
        let mut answers = Vec::with_capacity(records.len());
        let mut kept = Vec::new();
        for record in records {
            let answer = match self.refusal(&record).await {
                Ok(None) => {
                    kept.push(record);
                    Ok(())
                }
                Ok(Some(why)) => Err(why),
                Err(fault) => Err(SendError::Transient(fault.to_string())),
            };
            answers.push(answer);
        }
        if kept.is_empty() {
            return answers;
        }
        let log = Arc::clone(&self.log);
        if let Err(fault) = database::uncancelled(async move { append(&log, &kept).await }).await {
            let lost = SendError::Transient(fault.to_string());
            answers.iter_mut().filter(|answer| answer.is_ok()).for_each(|answer| *answer = Err(lost.clone()));
        } else {
            self.log.appended.send_modify(|appended| *appended += 1);
        }
        answers
    }

    async fn ensure_topics(&self, topics: &[Topic]) -> Result<(), BrokerError> {
        let mut sql = Sql::of(&self.log.db);
        let rows = sql.rows([
            ("name", Cells::Text(topics.iter().map(|topic| topic.name.clone()).collect())),
            ("retention_s", Cells::Big(topics.iter().map(retention_s).collect())),
        ]);
        let text = format!(
            "INSERT INTO topics (name, retention_s) SELECT x.name, x.retention_s FROM {rows} WHERE true
             ON CONFLICT (name) DO UPDATE SET retention_s = excluded.retention_s"
        );
        sql.run(&self.log.db, &text).await.map_err(|fault| unavailable(&fault))?;
        let mut known = self.log.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.extend(topics.iter().map(|topic| topic.name.clone()));
        Ok(())
    }
}

impl EmbeddedProducer {
    /// Why a record cannot be kept, if so.
    async fn refusal(&self, record: &Record) -> Result<Option<SendError>, Fault> {
        if record.body.len() > RECORD_BYTES_MAX {
            let why = format!("{} bytes are more than {RECORD_BYTES_MAX}", record.body.len());
            return Ok(Some(SendError::Permanent(why)));
        }
        let known =
            |log: &Log| log.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(&record.topic);
        if known(&self.log) {
            return Ok(None);
        }
        let mut sql = Sql::of(&self.log.db);
        let topic = sql.bind(record.topic.as_str());
        let found = sql.one(&self.log.db, &format!("SELECT 1 AS one FROM topics WHERE name = {topic}")).await?;
        if found.is_none() {
            return Ok(Some(SendError::UnknownTopic(record.topic.clone())));
        }
        self.log.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(record.topic.clone());
        Ok(None)
    }
}

async fn append(log: &Log, records: &[Record]) -> Result<(), Fault> {
    let tx = database::begin(&log.db).await?;
    #[expect(clippy::disallowed_methods, reason = "when the log kept a record is the log's own time, as a broker's is")]
    let now = Utc::now();
    let mut next = next_offsets(&tx, records).await?;
    for records in records.chunks(TOGETHER) {
        insert(&tx, records, &mut next, now).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The next free offset of each topic, which also reserves as many as there are records.
async fn next_offsets(tx: &DatabaseTransaction, records: &[Record]) -> Result<HashMap<String, i64>, Fault> {
    let mut counts: HashMap<&str, i64> = HashMap::new();
    for record in records {
        *counts.entry(&record.topic).or_default() += 1;
    }
    let mut sql = Sql::of(tx);
    let rows = sql.rows([
        ("t", Cells::Text(counts.keys().map(|topic| (*topic).to_owned()).collect())),
        ("n", Cells::Big(counts.values().copied().collect())),
    ]);
    let text = format!(
        "INSERT INTO offsets (topic, next) SELECT x.t, x.n FROM {rows} WHERE true
         ON CONFLICT (topic) DO UPDATE SET next = offsets.next + excluded.next RETURNING topic, next"
    );
    let mut next = HashMap::new();
    for row in sql.all(tx, &text).await? {
        let (topic, after): (String, i64) = (row.try_get("", "topic")?, row.try_get("", "next")?);
        let count = counts.get(topic.as_str()).copied().unwrap_or(0);
        next.insert(topic, after - count);
    }
    Ok(next)
}

async fn insert(
    tx: &DatabaseTransaction,
    records: &[Record],
    next: &mut HashMap<String, i64>,
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    let offsets = records.iter().map(|record| {
        let offset = next.entry(record.topic.clone()).or_default();
        *offset += 1;
        *offset - 1
    });
    let offsets = offsets.collect();
    let mut sql = Sql::of(tx);
    let rows = sql.rows([
        ("topic", Cells::Text(records.iter().map(|record| record.topic.clone()).collect())),
        ("offset", Cells::Big(offsets)),
        ("id", Cells::Uuid(records.iter().map(|record| record.id).collect())),
        ("replay", Cells::Text(records.iter().map(replay).collect())),
        ("key", Cells::Text(records.iter().map(|record| record.key.clone()).collect())),
        ("body", Cells::Bytes(records.iter().map(|record| record.body.to_vec()).collect())),
        ("headers", Cells::Text(records.iter().map(headers).collect())),
        ("at", Cells::Time(vec![now; records.len()])),
    ]);
    // The same id again is the same event again, for the relay was not sure; unless an operator replays it.
    let text = format!(
        "INSERT OR IGNORE INTO events (topic, offset, id, replay, key, body, headers, at)
         SELECT x.topic, x.offset, x.id, x.replay, x.key, x.body, x.headers, x.at FROM {rows} WHERE true"
    );
    sql.run(tx, &text).await.map(drop)
}

/// Which replay of the event this is; empty for its first way out.
fn replay(record: &Record) -> String {
    let mark = record.headers.iter().rev().find(|(name, _)| name == REPLAY_HEADER);
    mark.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}

/// Headers as the log keeps them: a list of names and the values' bytes.
fn headers(record: &Record) -> String {
    let headers: Vec<(&str, String)> =
        record.headers.iter().map(|(name, value)| (name.as_str(), hex_bytes(value))).collect();
    json!(headers).to_string()
}

/// The bytes of such a text.
pub(super) fn unhex_bytes(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.filter_map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).ok()).collect()
}
