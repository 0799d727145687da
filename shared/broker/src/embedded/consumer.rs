//! Reading the embedded log: as a member of a group, or everything.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use database::{Cells, Fault, Sql};
use sea_orm::QueryResult;

use super::{Log, producer::unhex_bytes, unavailable};
use crate::{BrokerError, Consumer, Message, Position, Start};

/// How often a member looks whether a topic became free.
const LOOK: Duration = Duration::from_millis(200);

/// Positions by topic.
type Positions = HashMap<String, i64>;

/// A member of a group. A topic is one partition, so it is one member's at a time.
pub(super) struct Member {
    log: Arc<Log>,
    group: String,
    topics: Vec<String>,
    me: u64,
    next: Positions,
}

/// Reads everything and commits nothing.
pub(super) struct Reader {
    log: Arc<Log>,
    next: Positions,
}

impl Member {
    pub(super) fn join(log: Arc<Log>, group: &str, topics: &[&str]) -> Self {
        let me = log.next_member.fetch_add(1, Ordering::Relaxed);
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Self { log, group: group.to_owned(), topics, me, next: HashMap::new() }
    }

    /// Takes the topics that are nobody's, and begins where the group left off.
    async fn take_free_topics(&mut self) -> Result<(), Fault> {
        let taken: Vec<String> = {
            let mut members = self.log.members();
            let free =
                |topic: &&String| *members.entry((self.group.clone(), (*topic).clone())).or_insert(self.me) == self.me;
            self.topics.iter().filter(free).filter(|topic| !self.next.contains_key(*topic)).cloned().collect()
        };
        if taken.is_empty() {
            return Ok(());
        }
        let mut sql = Sql::of(&self.log.db);
        let (group, topics) = (sql.bind(self.group.as_str()), sql.words(&taken));
        let text = format!("SELECT topic, next FROM groups WHERE name = {group} AND topic {topics}");
        let known = positions(&sql.all(&self.log.db, &text).await?)?;
        for topic in taken {
            let next = known.get(&topic).copied().unwrap_or(0);
            self.next.insert(topic, next);
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.log.members().retain(|_, member| *member != self.me);
        // Others may take its topics now.
        self.log.appended.send_modify(|appended| *appended += 1);
    }
}

impl Reader {
    pub(super) async fn open(log: Arc<Log>, topics: &[&str], from: Start) -> Result<Self, BrokerError> {
        let mut next: Positions = topics.iter().map(|topic| ((*topic).to_owned(), 0)).collect();
        if from == Start::Latest {
            let ends = ends(&log).await.map_err(|fault| unavailable(&fault))?;
            for (topic, next) in &mut next {
                *next = ends.get(topic).copied().unwrap_or(0);
            }
        }
        Ok(Self { log, next })
    }
}

fn positions(rows: &[QueryResult]) -> Result<Positions, Fault> {
    rows.iter().map(|row| Ok((row.try_get("", "topic")?, row.try_get("", "next")?))).collect()
}

/// The end of each topic: what is appended next.
async fn ends(log: &Log) -> Result<Positions, Fault> {
    positions(&Sql::of(&log.db).all(&log.db, "SELECT topic, next FROM offsets").await?)
}

/// Positions as rows `x(t, n)`.
fn positions_of(sql: &mut Sql, positions: &Positions) -> String {
    sql.rows([
        ("t", Cells::Text(positions.keys().cloned().collect())),
        ("n", Cells::Big(positions.values().copied().collect())),
    ])
}

/// Records from these positions on, at most `max`, by time; moves the positions behind them. Each topic that has any gives
/// its share, by its own index: a reader that is far behind does not look through all that it has before it.
async fn read(log: &Log, next: &mut Positions, max: usize) -> Result<Vec<Message>, Fault> {
    let mut read: Vec<(Option<DateTime<Utc>>, Message)> = Vec::new();
    while read.is_empty() && max > 0 {
        let mut ready: Vec<(String, i64)> = ends(log).await?.into_iter().collect();
        ready.retain(|(topic, end)| next.get(topic).is_some_and(|next| next < end));
        if ready.is_empty() {
            break;
        }
        // Where there are more topics than records may be read, none waits for ever: whose place is lowest is next.
        ready.sort_by_key(|(topic, _)| next.get(topic).copied());
        ready.truncate(max);
        let share = max / ready.len();
        let mut through: Positions = HashMap::new();
        for (topic, end) in ready {
            let from = next.get(&topic).copied().unwrap_or(end);
            let messages = read_topic(log, &topic, from, share).await?;
            // Places are given in one transaction with what takes them: one that is empty now stays empty.
            let behind = messages.last().filter(|_| messages.len() == share).map_or(end, |last| last.offset + 1);
            through.insert(topic, behind);
            // In a topic the order is that of the offsets, also where the log's clock stepped back between two.
            let mut latest = None;
            read.extend(messages.into_iter().map(|message| {
                latest = latest.max(message.timestamp);
                (latest, message)
            }));
        }
        // Only now that nothing is waited for any more: what an error or a dropped poll keeps back is read again.
        next.extend(through);
    }
    read.sort_by_key(|(at, _)| *at);
    Ok(read.into_iter().map(|(_, message)| message).collect())
}

async fn read_topic(log: &Log, topic: &str, next: i64, max: usize) -> Result<Vec<Message>, Fault> {
    let mut sql = Sql::of(&log.db);
    let (name, next) = (sql.bind(topic), sql.bind(next));
    let max = sql.bind(i64::try_from(max).unwrap_or(i64::MAX));
    let text = format!(
        "SELECT offset, key, body, headers, at FROM events
         WHERE topic = {name} AND offset >= {next} ORDER BY offset LIMIT {max}"
    );
    sql.all(&log.db, &text).await?.iter().map(|row| message(topic, row)).collect()
}

/// Columns by place: to look a name up costs as much as to read what it names.
fn message(topic: &str, row: &QueryResult) -> Result<Message, Fault> {
    let headers: String = row.try_get_by(3)?;
    let headers: Vec<(String, String)> =
        serde_json::from_str(&headers).map_err(|error| Fault::Broken(error.to_string()))?;
    Ok(Message {
        topic: topic.to_owned(),
        partition: 0,
        offset: row.try_get_by(0)?,
        key: row.try_get_by(1)?,
        body: Bytes::from(row.try_get_by::<Vec<u8>, _>(2)?),
        headers: headers.into_iter().map(|(name, value)| (name, unhex_bytes(&value))).collect(),
        timestamp: row.try_get_by(4)?,
    })
}

fn rewound(next: &mut Positions, to: &[Position]) {
    for position in to {
        if let Some(next) = next.get_mut(&position.topic) {
            *next = (*next).min(position.offset);
        }
    }
}

async fn behind(log: &Log, next: &Positions) -> Result<HashMap<(String, i32), i64>, BrokerError> {
    let ends = ends(log).await.map_err(|fault| unavailable(&fault))?;
    let lag = |(topic, next): (&String, &i64)| {
        let end = ends.get(topic).copied().unwrap_or(0);
        ((topic.clone(), 0), (end - next).max(0))
    };
    Ok(next.iter().map(lag).collect())
}

#[async_trait]
impl Consumer for Member {
    async fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Message>, BrokerError> {
        let mut appended = self.log.appended.subscribe();
        let until = tokio::time::Instant::now() + wait;
        loop {
            appended.borrow_and_update();
            self.take_free_topics().await.map_err(|fault| unavailable(&fault))?;
            if !self.next.is_empty() {
                let messages = read(&self.log, &mut self.next, max).await.map_err(|fault| unavailable(&fault))?;
                if !messages.is_empty() {
                    return Ok(messages);
                }
            }
            let now = tokio::time::Instant::now();
            if now >= until {
                return Ok(Vec::new());
            }
            // An append or a topic set free wakes at once; a look now and then costs little.
            let patience = (until - now).min(LOOK.max(wait / 4));
            let _either = tokio::time::timeout(patience, appended.changed()).await;
        }
    }

    async fn commit(&mut self, done: &[Position]) -> Result<(), BrokerError> {
        let mut newest: Positions = HashMap::new();
        for position in done {
            if !self.next.contains_key(&position.topic) {
                return Err(BrokerError::Lost(position.topic.clone()));
            }
            let next = newest.entry(position.topic.clone()).or_insert(0);
            *next = (*next).max(position.offset + 1);
        }
        let mut sql = Sql::of(&self.log.db);
        let rows = positions_of(&mut sql, &newest);
        let group = sql.bind(self.group.as_str());
        let text = format!(
            "INSERT INTO groups (name, topic, next) SELECT {group}, x.t, x.n FROM {rows} WHERE true
             ON CONFLICT (name, topic) DO UPDATE SET next = max(groups.next, excluded.next)"
        );
        sql.run(&self.log.db, &text).await.map(drop).map_err(|fault| unavailable(&fault))
    }

    async fn rewind(&mut self, to: &[Position]) -> Result<(), BrokerError> {
        rewound(&mut self.next, to);
        Ok(())
    }

    async fn lag(&mut self) -> Result<HashMap<(String, i32), i64>, BrokerError> {
        behind(&self.log, &self.next).await
    }

    async fn close(self: Box<Self>) {}
}

#[async_trait]
impl Consumer for Reader {
    async fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Message>, BrokerError> {
        let mut appended = self.log.appended.subscribe();
        let until = tokio::time::Instant::now() + wait;
        loop {
            appended.borrow_and_update();
            let messages = read(&self.log, &mut self.next, max).await.map_err(|fault| unavailable(&fault))?;
            if !messages.is_empty() || tokio::time::Instant::now() >= until {
                return Ok(messages);
            }
            let _either = tokio::time::timeout_at(until, appended.changed()).await;
        }
    }

    async fn commit(&mut self, _done: &[Position]) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn rewind(&mut self, to: &[Position]) -> Result<(), BrokerError> {
        rewound(&mut self.next, to);
        Ok(())
    }

    async fn lag(&mut self) -> Result<HashMap<(String, i32), i64>, BrokerError> {
        behind(&self.log, &self.next).await
    }

    async fn close(self: Box<Self>) {}
}
