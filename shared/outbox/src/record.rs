//! Recording: one insert for all events of a change, in its transaction.

use chrono::{DateTime, Utc};
use database::{Cells, Sql};
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
    for Encoded { ids, topics, keys, sequences, bodies, headers, times } in chunks {
        let mut sql = Sql::of(tx);
        let places = (0..).take(ids.len()).collect();
        let rows = sql.rows([
            ("n", Cells::Big(places)),
            ("id", Cells::Uuid(ids)),
            ("topic", Cells::Text(topics)),
            ("key", Cells::Text(keys)),
            ("sequence", Cells::Big(sequences)),
            ("body", Cells::Bytes(bodies)),
            ("headers", Cells::Json(headers)),
            ("at", Cells::Time(times)),
        ]);
        // Positions are given in the order of the events.
        let text = format!(
            "INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at)
             SELECT x.id, x.topic, x.key, x.sequence, x.body, x.headers, x.at FROM {rows} WHERE true ORDER BY x.n"
        );
        sql.run(tx, &text).await?;
    }
    Ok(())
}

/// Events as columns of the insert. Each is encoded once, here; the relay sends these bytes.
#[derive(Debug, Default)]
pub struct Encoded {
    ids: Vec<Uuid>,
    topics: Vec<String>,
    keys: Vec<String>,
    sequences: Vec<i64>,
    bodies: Vec<Vec<u8>>,
    headers: Vec<String>,
    times: Vec<DateTime<Utc>>,
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

/// The headers as the column keeps them: a list of names and values.
fn headers(event: &Event) -> String {
    let headers: Vec<(String, String)> =
        event.headers().into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
    serde_json::json!(headers).to_string()
}
