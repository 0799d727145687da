//! All SQL of the inbox.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use database::{Cells, Fault, Sql};
use events::Event;
use sea_orm::{DatabaseConnection, DatabaseTransaction};
use uuid::Uuid;

/// Notes events as taken; those that had not been.
pub(crate) async fn take(
    tx: &DatabaseTransaction,
    consumer: &str,
    events: &[Event],
    now: DateTime<Utc>,
) -> Result<HashSet<Uuid>, Fault> {
    let mut sql = Sql::of(tx);
    let rows = sql.rows([("id", Cells::Uuid(events.iter().map(|event| event.id).collect()))]);
    let (consumer, now) = (sql.bind(consumer), sql.bind(now));
    let text = format!(
        "INSERT INTO inbox (consumer, event_id, taken_at) SELECT DISTINCT {consumer}, x.id, {now} FROM {rows}
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
    let mut sql = Sql::of(tx);
    let greatest = if sql.sqlite() { "max" } else { "greatest" };
    let rows = sql.rows([
        ("k", Cells::Text(keys.keys().cloned().collect())),
        ("s", Cells::Big(keys.values().copied().collect())),
    ]);
    let consumer = sql.bind(consumer);
    let text = format!(
        "INSERT INTO inbox_keys (consumer, key, sequence) SELECT {consumer}, x.k, x.s FROM {rows} WHERE true
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
