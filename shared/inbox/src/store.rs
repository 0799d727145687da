//! All SQL of the inbox.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use database::{Fault, Sql, Type, hex};
use events::Event;
use sea_orm::{DatabaseConnection, DatabaseTransaction};
use serde_json::{Value, json};
use uuid::Uuid;

/// Notes events as taken; those that had not been.
pub(crate) async fn take(
    tx: &DatabaseTransaction,
    consumer: &str,
    events: &[Event],
    now: DateTime<Utc>,
) -> Result<HashSet<Uuid>, Fault> {
    let records: Vec<Value> = events.iter().map(|event| json!({ "id": hex(event.id) })).collect();
    let mut sql = Sql::of(tx);
    let records = sql.records(&[("id", Type::Uuid)], &records);
    let (consumer, now) = (sql.bind(consumer), sql.bind(now));
    let text = format!(
        "INSERT INTO inbox (consumer, event_id, taken_at) SELECT DISTINCT {consumer}, x.id, {now} FROM {records}
         WHERE true ON CONFLICT (consumer, event_id) DO NOTHING RETURNING event_id"
    );
    let rows = sql.all(tx, &text).await?;
    rows.iter().map(|row| Ok(row.try_get("", "event_id")?)).collect()
}

/// Moves the keys' newest sequence on. For each key the sequence before, if any.
pub(crate) async fn newest(
    tx: &DatabaseTransaction,
    consumer: &str,
    keys: &HashMap<String, i64>,
) -> Result<HashMap<String, i64>, Fault> {
    let names: Vec<&String> = keys.keys().collect();
    let mut sql = Sql::of(tx);
    let lock = if sql.sqlite() { "" } else { "FOR UPDATE" };
    let (name, wanted) = (sql.bind(consumer), sql.words(&names));
    let text =
        format!("SELECT key, sequence FROM inbox_keys WHERE consumer = {name} AND key {wanted} ORDER BY key {lock}");
    let mut before = HashMap::new();
    for row in sql.all(tx, &text).await? {
        before.insert(row.try_get("", "key")?, row.try_get("", "sequence")?);
    }
    let records: Vec<Value> = keys.iter().map(|(key, sequence)| json!({ "k": key, "s": sequence })).collect();
    let mut sql = Sql::of(tx);
    let greatest = if sql.sqlite() { "max" } else { "greatest" };
    let records = sql.records(&[("k", Type::Text), ("s", Type::Big)], &records);
    let consumer = sql.bind(consumer);
    let text = format!(
        "INSERT INTO inbox_keys (consumer, key, sequence) SELECT {consumer}, x.k, x.s FROM {records} WHERE true
         ON CONFLICT (consumer, key) DO UPDATE SET sequence = {greatest}(inbox_keys.sequence, excluded.sequence)"
    );
    sql.run(tx, &text).await?;
    Ok(before)
}

/// Forgets events taken before `before`, at most `batch`. How many.
pub(crate) async fn prune(db: &DatabaseConnection, before: DateTime<Utc>, batch: u64) -> Result<u64, Fault> {
    let mut sql = Sql::of(db);
    let (before, batch) = (sql.bind(before), sql.bind(i64::try_from(batch).unwrap_or(i64::MAX)));
    let text = format!(
        "DELETE FROM inbox WHERE (consumer, event_id) IN (SELECT consumer, event_id FROM inbox
             WHERE taken_at < {before} ORDER BY taken_at LIMIT {batch})"
    );
    sql.run(db, &text).await
}
