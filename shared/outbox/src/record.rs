//! Recording: one insert for all events of a change, in its transaction.

use database::{Sql, Type, hex, stamp};
use events::{Event, MAX_ENVELOPE_BYTES};
use sea_orm::DatabaseTransaction;
use serde_json::{Value, json};

use crate::Error;

/// Rows that one statement inserts at most.
const CHUNK: usize = 1_000;

/// Records events in the transaction of the change they tell of. The caller holds the lock on each aggregate's row.
///
/// # Errors
/// [`Error::TooLarge`] and [`Error::UnknownType`] before anything is written.
pub async fn record(tx: &DatabaseTransaction, events: &[Event]) -> Result<(), Error> {
    let mut rows = Vec::with_capacity(events.len());
    for (n, event) in events.iter().enumerate() {
        rows.push(row(n, event)?);
    }
    for chunk in rows.chunks(CHUNK) {
        let mut sql = Sql::of(tx);
        let columns = [
            ("n", Type::Big),
            ("id", Type::Uuid),
            ("topic", Type::Text),
            ("key", Type::Text),
            ("sequence", Type::Big),
            ("body", Type::Text),
            ("headers", Type::Json),
            ("at", Type::Time),
        ];
        let body = if sql.sqlite() { "CAST(x.body AS blob)" } else { "convert_to(x.body, 'UTF8')" };
        let records = sql.records(&columns, chunk);
        // Positions are given in the order of the events.
        let text = format!(
            "INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at)
             SELECT x.id, x.topic, x.key, x.sequence, {body}, x.headers, x.at FROM {records} WHERE true ORDER BY x.n"
        );
        sql.run(tx, &text).await?;
    }
    Ok(())
}

/// An event as a record of the insert. It is encoded once, here; the relay sends these bytes.
fn row(n: usize, event: &Event) -> Result<Value, Error> {
    if events::by_name(&event.event_type).is_none() {
        return Err(Error::UnknownType(event.event_type.clone()));
    }
    let body = event.to_json();
    if body.len() > MAX_ENVELOPE_BYTES {
        let event_type = event.event_type.clone();
        return Err(Error::TooLarge { event_type, bytes: body.len(), max: MAX_ENVELOPE_BYTES });
    }
    let headers: Vec<(String, String)> =
        event.headers().into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
    Ok(json!({
        "n": n, "id": hex(event.id), "topic": event.event_type, "key": event.subject, "sequence": event.sequence,
        "body": String::from_utf8_lossy(&body), "headers": headers, "at": stamp(event.time),
    }))
}
