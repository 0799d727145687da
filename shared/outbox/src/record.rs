//! Recording: one insert for all events of a change, in its transaction.

use chrono::{DateTime, Utc};
use database::{Cells, Fault, Sql};
use events::{Event, MAX_ENVELOPE_BYTES};
use sea_orm::DatabaseTransaction;
use uuid::Uuid;

use crate::Error;

/// Rows that one statement inserts at most.
const CHUNK: usize = 1_000;

/// Records events in the transaction of the change they tell of. The caller holds the lock on each aggregate's row.
///
/// # Errors
/// [`Error::TooLarge`] and [`Error::UnknownType`] before anything is written.
pub async fn record(tx: &DatabaseTransaction, events: &[Event]) -> Result<(), Error> {
    let chunks: Vec<Encoded> = events.chunks(CHUNK).map(encoded).collect::<Result<_, _>>()?;
    for chunk in chunks {
        insert(tx, chunk).await?;
    }
    Ok(())
}

/// Inserts events, each with the row that says that it waits.
pub(crate) async fn insert(tx: &DatabaseTransaction, events: Encoded) -> Result<(), Fault> {
    let Encoded { ids, topics, keys, sequences, bodies, headers, times } = events;
    let mut sql = Sql::of(tx);
    let (sqlite, count) = (sql.sqlite(), ids.len());
    let rows = sql.rows([
        ("n", Cells::Big((0..).take(count).collect())),
        ("id", Cells::Uuid(ids)),
        ("topic", Cells::Text(topics)),
        ("key", Cells::Text(keys)),
        ("sequence", Cells::Big(sequences)),
        ("body", Cells::Bytes(bodies)),
        ("headers", Cells::Text(headers)),
        ("at", Cells::Time(times)),
    ]);
    // Positions are given in the order of the events; SQLite reads a list in its order, and would sort copies of all of it.
    let order = if sqlite { "" } else { "ORDER BY x.n" };
    let said = format!(
        "INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at)
         SELECT x.id, x.topic, x.key, x.sequence, x.body, x.headers, x.at FROM {rows} WHERE true {order}"
    );
    let wait = "INSERT INTO outbox_waiting (position, key) SELECT position, key FROM";
    if sqlite {
        // No change inside another there; but one writer, whose positions rise.
        sql.run(tx, &said).await?;
        let wait = format!("{wait} (SELECT position, key FROM outbox ORDER BY position DESC LIMIT {count})");
        Sql::of(tx).run(tx, &wait).await?;
    } else {
        sql.run(tx, &format!("WITH said AS ({said} RETURNING position, key) {wait} said")).await?;
    }
    Ok(())
}

/// Events as columns of the insert. Each is encoded once, here; the relay sends these bytes.
#[derive(Debug, Default)]
pub struct Encoded {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) topics: Vec<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) sequences: Vec<i64>,
    pub(crate) bodies: Vec<Vec<u8>>,
    pub(crate) headers: Vec<String>,
    pub(crate) times: Vec<DateTime<Utc>>,
}

/// Encodes events, in their order.
///
/// # Errors
/// [`Error::TooLarge`] and [`Error::UnknownType`].
pub fn encoded(events: &[Event]) -> Result<Encoded, Error> {
    let mut all = Encoded::default();
    for event in events {
        if events::by_name(&event.event_type).is_none() {
            return Err(Error::UnknownType(event.event_type.clone()));
        }
        let body = event.to_json();
        if body.len() > MAX_ENVELOPE_BYTES {
            let event_type = event.event_type.clone();
            return Err(Error::TooLarge { event_type, bytes: body.len(), max: MAX_ENVELOPE_BYTES });
        }
        all.ids.push(event.id);
        all.topics.push(event.event_type.clone());
        all.keys.push(event.subject.clone());
        all.sequences.push(event.sequence);
        all.bodies.push(body);
        all.headers.push(headers(event));
        all.times.push(event.time);
    }
    Ok(all)
}

/// The headers as the column keeps them: a list of names and values, as JSON.
fn headers(event: &Event) -> String {
    let headers: Vec<(String, String)> =
        event.headers().into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
    serde_json::json!(headers).to_string()
}
