//! What the warcraft service says.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{EventData, State};

/// A character was fetched and had changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CharacterSynced {
    /// The character.
    pub character_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its realm.
    pub realm: String,
    /// us, eu, kr, tw or cn.
    pub region: String,
    /// Its level.
    pub level: i32,
    /// Its item level.
    pub item_level: i32,
    /// Its class.
    pub class_name: String,
    /// Its race.
    pub race_name: String,
    /// Its faction.
    pub faction_name: String,
    /// Its points.
    pub achievement_points: i64,
    /// When it was fetched.
    pub synced_at: DateTime<Utc>,
}

impl EventData for CharacterSynced {
    const TYPE: &'static str = "warcraft.character.synced";
    const SERVICE: &'static str = "warcraft";
    const STATE: State = State::Full;

    fn key(&self) -> Uuid {
        self.character_id
    }
}

/// A guild was fetched and had changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuildSynced {
    /// The guild.
    pub guild_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its realm.
    pub realm: String,
    /// us, eu, kr, tw or cn.
    pub region: String,
    /// Its faction.
    pub faction: String,
    /// Its members.
    pub member_count: i64,
    /// Its points.
    pub achievement_points: i64,
    /// When it was fetched.
    pub synced_at: DateTime<Utc>,
}

impl EventData for GuildSynced {
    const TYPE: &'static str = "warcraft.guild.synced";
    const SERVICE: &'static str = "warcraft";
    const STATE: State = State::Full;

    fn key(&self) -> Uuid {
        self.guild_id
    }
}
