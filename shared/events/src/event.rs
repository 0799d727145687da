//! An event, and what its data must tell of itself.

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

/// Whether an event's data is the whole of its aggregate or a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The whole: a consumer may keep only the newest.
    Full,
    /// A change: a consumer needs each.
    Delta,
}

/// The `data` of one event type.
pub trait EventData: Serialize + DeserializeOwned {
    /// `{service}.{noun}.{past verb}`; also the topic.
    const TYPE: &'static str;
    /// Who says it.
    const SERVICE: &'static str;
    /// Whole or change.
    const STATE: State;

    /// The aggregate it is about; events of one key keep their order.
    fn key(&self) -> Uuid;
}

/// An event in its envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Unique for each event (UUIDv7); what consumers tell repetitions by.
    pub id: Uuid,
    /// Its type; also its topic.
    pub event_type: String,
    /// `{service}-service`.
    pub source: String,
    /// The aggregate's id; also its Kafka key.
    pub subject: String,
    /// When it happened.
    pub time: DateTime<Utc>,
    /// The aggregate's version after the write: rising, with gaps; several events of one write share it.
    pub sequence: i64,
    /// W3C trace context of the request or run that caused it.
    pub traceparent: Option<String>,
    /// What the type says.
    pub data: Value,
}

impl Event {
    /// What `data` says, as an event that happened at `now`.
    pub fn of<D: EventData>(data: &D, sequence: i64, now: DateTime<Utc>, traceparent: Option<String>) -> Self {
        Self {
            id: Uuid::now_v7(),
            event_type: D::TYPE.to_owned(),
            source: format!("{}-service", D::SERVICE),
            subject: data.key().to_string(),
            time: now,
            sequence,
            traceparent,
            // A struct of plain fields always is JSON; the wire tests hold this for each type.
            data: serde_json::to_value(data).unwrap_or(Value::Null),
        }
    }

    /// The data as its type.
    pub fn data<D: EventData>(&self) -> Result<D, serde_json::Error> {
        D::deserialize(&self.data)
    }

    /// The service that said it.
    pub fn service(&self) -> &str {
        self.source.strip_suffix("-service").unwrap_or(&self.source)
    }
}
