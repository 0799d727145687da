//! What the link service says.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{EventData, State};

/// A link passed its expiry date and was closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkExpired {
    /// The link.
    pub link_id: Uuid,
    /// Its short code.
    pub short_code: String,
    /// The expiry date that passed.
    pub expires_at: DateTime<Utc>,
}

impl EventData for LinkExpired {
    const TYPE: &'static str = "link.expired";
    const SERVICE: &'static str = "link";
    const STATE: State = State::Delta;

    fn key(&self) -> Uuid {
        self.link_id
    }
}
