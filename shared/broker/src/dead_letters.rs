//! What could not travel: refused by the broker on its way out, or not understood on its way in. Kept with its bytes.

use chrono::{DateTime, Utc};
use database::{Fault, Sql, id};
use sea_orm::{DatabaseConnection, DatabaseTransaction, DbBackend, QueryResult};
use serde::Serialize;
use uuid::Uuid;

/// Errors are cut to this.
const ERROR_CHARS_MAX: usize = 4096;

/// Which way it was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The broker refused it.
    Out,
    /// A listener could not take it.
    In,
}

/// A letter that did not arrive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLetter {
    /// Its own id.
    pub id: Uuid,
    /// Which way it was going.
    pub direction: Direction,
    /// The listener, or `relay`.
    pub consumer: String,
    /// Its topic.
    pub topic: String,
    /// Where it was read.
    pub partition: Option<i32>,
    /// Where it was read.
    pub offset: Option<i64>,
    /// Its key.
    pub key: String,
    /// The event, if it could be read.
    pub event_id: Option<Uuid>,
    /// Its bytes.
    #[serde(skip)]
    pub body: Vec<u8>,
    /// Its headers, as JSON.
    pub headers: serde_json::Value,
    /// Why.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was given up.
    pub given_up_at: DateTime<Utc>,
}

/// The statements that create the table.
pub fn tables(backend: DbBackend) -> Vec<String> {
    let (uuid, time, json, bytes) = match backend {
        DbBackend::Sqlite => ("blob", "text", "text", "blob"),
        _ => ("uuid", "timestamptz", "jsonb", "bytea"),
    };
    vec![format!(
        "CREATE TABLE dead_letters (id {uuid} PRIMARY KEY, direction text NOT NULL, consumer text NOT NULL,
             topic text NOT NULL, partition integer, log_offset bigint, key text NOT NULL, event_id {uuid},
             body {bytes} NOT NULL, headers {json} NOT NULL, error text NOT NULL, attempts integer NOT NULL,
             given_up_at {time} NOT NULL)"
    )]
}

/// Keeps a letter, in the transaction that gives it up.
pub async fn keep(tx: &DatabaseTransaction, letter: &DeadLetter) -> Result<(), Fault> {
    let mut sql = Sql::of(tx);
    let error: String = letter.error.chars().take(ERROR_CHARS_MAX).collect();
    let direction = match letter.direction {
        Direction::Out => "out",
        Direction::In => "in",
    };
    let values = [
        sql.bind(id(Some(letter.id))),
        sql.bind(direction),
        sql.bind(letter.consumer.as_str()),
        sql.bind(letter.topic.as_str()),
        sql.bind(letter.partition),
        sql.bind(letter.offset),
        sql.bind(letter.key.as_str()),
        sql.bind(id(letter.event_id)),
        sql.bind(letter.body.clone()),
        sql.json(Some(&letter.headers)),
        sql.bind(error),
        sql.bind(letter.attempts),
        sql.bind(letter.given_up_at),
    ];
    let text = format!(
        "INSERT INTO dead_letters (id, direction, consumer, topic, partition, log_offset, key, event_id, body, headers,
             error, attempts, given_up_at) VALUES ({})",
        values.join(", ")
    );
    sql.run(tx, &text).await.map(drop)
}

/// A page of letters, newest first, before `before` (exclusive).
pub async fn list(db: &DatabaseConnection, before: Option<Uuid>, limit: u64) -> Result<Vec<DeadLetter>, Fault> {
    let mut sql = Sql::of(db);
    let wanted = match before {
        Some(before) => format!("WHERE id < {}", sql.bind(id(Some(before)))),
        None => String::new(),
    };
    let limit = sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let text = format!("SELECT * FROM dead_letters {wanted} ORDER BY id DESC LIMIT {limit}");
    sql.all(db, &text).await?.iter().map(letter).collect()
}

/// One letter.
pub async fn find(db: &DatabaseConnection, letter_id: Uuid) -> Result<Option<DeadLetter>, Fault> {
    let mut sql = Sql::of(db);
    let letter_id = sql.bind(id(Some(letter_id)));
    let text = format!("SELECT * FROM dead_letters WHERE id = {letter_id}");
    sql.one(db, &text).await?.map(|row| letter(&row)).transpose()
}

/// Takes a letter out, in the transaction that replays or discards it. `None`: there is none.
pub async fn take(tx: &DatabaseTransaction, letter_id: Uuid) -> Result<Option<DeadLetter>, Fault> {
    let mut sql = Sql::of(tx);
    let letter_id = sql.bind(id(Some(letter_id)));
    let text = format!("DELETE FROM dead_letters WHERE id = {letter_id} RETURNING *");
    sql.one(tx, &text).await?.map(|row| letter(&row)).transpose()
}

/// How many there are.
pub async fn count(db: &DatabaseConnection) -> Result<i64, Fault> {
    let row = Sql::of(db).one(db, "SELECT count(*) AS letters FROM dead_letters").await?;
    Ok(row.map(|row| row.try_get("", "letters")).transpose()?.unwrap_or(0))
}

fn letter(row: &QueryResult) -> Result<DeadLetter, Fault> {
    let direction: String = row.try_get("", "direction")?;
    Ok(DeadLetter {
        id: row.try_get("", "id")?,
        direction: if direction == "out" { Direction::Out } else { Direction::In },
        consumer: row.try_get("", "consumer")?,
        topic: row.try_get("", "topic")?,
        partition: row.try_get("", "partition")?,
        offset: row.try_get("", "log_offset")?,
        key: row.try_get("", "key")?,
        event_id: row.try_get("", "event_id")?,
        body: row.try_get("", "body")?,
        headers: row.try_get("", "headers")?,
        error: row.try_get("", "error")?,
        attempts: row.try_get("", "attempts")?,
        given_up_at: row.try_get("", "given_up_at")?,
    })
}

/// Headers as the table shows them.
pub fn headers_to_json(headers: &[(String, Vec<u8>)]) -> serde_json::Value {
    headers.iter().map(|(name, value)| serde_json::json!([name, String::from_utf8_lossy(value)])).collect()
}
