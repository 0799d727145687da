//! What the twitchbot service says.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{EventData, State};

/// A stream session ended, or was closed because nothing was heard of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamEnded {
    /// The session.
    pub stream_id: Uuid,
    /// The channel at Twitch.
    pub channel_id: String,
    /// Its name.
    pub channel_name: String,
    /// How long it was.
    pub duration_seconds: i64,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
}

impl EventData for StreamEnded {
    const TYPE: &'static str = "twitchbot.stream.ended";
    const SERVICE: &'static str = "twitchbot";
    const STATE: State = State::Delta;

    fn key(&self) -> Uuid {
        self.stream_id
    }
}
