//! The wire form: one JSON object that a CloudEvents SDK and a reader of the documented envelope both understand.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::Event;

/// The content type of the envelope.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// An event larger than this is refused when it is recorded; brokers accept 1 MiB.
pub const MAX_ENVELOPE_BYTES: usize = 900 * 1024;

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Larger than any event of ours.
    #[error("{0} bytes are more than an event may have ({MAX_ENVELOPE_BYTES})")]
    TooLarge(usize),
    /// Not the envelope.
    #[error("not an event envelope: {0}")]
    Malformed(#[from] serde_json::Error),
    /// An envelope without something an event must have.
    #[error("field {0}: missing or empty")]
    Missing(&'static str),
}

#[derive(Serialize)]
struct Written<'a> {
    specversion: &'static str,
    id: Uuid,
    #[serde(rename = "type")]
    event_type: &'a str,
    source: &'a str,
    subject: &'a str,
    time: &'a str,
    timestamp: &'a str,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    sequence: String,
    data: &'a Value,
}

#[derive(Deserialize)]
struct Read {
    id: Uuid,
    #[serde(rename = "type")]
    event_type: String,
    source: String,
    #[serde(default)]
    subject: String,
    time: Option<DateTime<Utc>>,
    timestamp: Option<DateTime<Utc>>,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(default)]
    sequence: Option<String>,
    #[serde(default)]
    data: Value,
}

impl Event {
    /// The envelope's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let time = self.time.to_rfc3339_opts(SecondsFormat::Micros, true);
        let written = Written {
            specversion: "1.0",
            id: self.id,
            event_type: &self.event_type,
            source: &self.source,
            subject: &self.subject,
            time: &time,
            timestamp: &time,
            datacontenttype: "application/json",
            traceparent: self.traceparent.as_deref(),
            sequence: format!("{:020}", self.sequence),
            data: &self.data,
        };
        // Strings, numbers and a JSON value: nothing here can fail to be JSON.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Reads an envelope; unknown fields are ignored, and `{id, type, source, timestamp, data}` alone is enough.
    pub fn from_json(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let read: Read = serde_json::from_slice(bytes)?;
        let time = read.time.or(read.timestamp).ok_or(DecodeError::Missing("time"))?;
        if read.event_type.is_empty() {
            return Err(DecodeError::Missing("type"));
        }
        if read.source.is_empty() {
            return Err(DecodeError::Missing("source"));
        }
        Ok(Self {
            id: read.id,
            event_type: read.event_type,
            source: read.source,
            subject: read.subject,
            time,
            sequence: read.sequence.and_then(|text| text.parse().ok()).unwrap_or(0),
            traceparent: read.traceparent,
            data: read.data,
        })
    }

    /// The message headers that go with the envelope.
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        let time = self.time.to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut headers = vec![
            ("content-type".to_owned(), CONTENT_TYPE.as_bytes().to_vec()),
            ("event_type".to_owned(), self.event_type.clone().into_bytes()),
            ("timestamp".to_owned(), time.into_bytes()),
        ];
        if let Some(traceparent) = &self.traceparent {
            headers.push(("traceparent".to_owned(), traceparent.clone().into_bytes()));
        }
        headers
    }
}
