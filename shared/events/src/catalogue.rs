//! Every event type: who says it, who hears it, and the topic it travels in.

use std::time::Duration;

use crate::{
    blog,
    event::{EventData, State},
    foodfolio, link, twitchbot, warcraft,
};

/// Partitions of a topic unless more are needed.
const PARTITIONS: i32 = 3;
/// How long a topic keeps its events.
const RETENTION: Duration = Duration::from_hours(7 * 24);
/// Services that forward what they are asked to: every event reaches them.
const FORWARDERS: &[&str] = &["notification", "webhook", "sse"];

/// What is known of an event type.
#[derive(Debug, Clone, Copy)]
pub struct EventType {
    /// `{service}.{noun}.{past verb}`; also the topic.
    pub name: &'static str,
    /// Who says it.
    pub service: &'static str,
    /// Whole or change.
    pub state: State,
    /// Partitions of its topic.
    pub partitions: i32,
    /// How long its topic keeps events.
    pub retention: Duration,
    /// Who hears it.
    pub consumers: &'static [&'static str],
}

const fn heard<D: EventData>(partitions: i32) -> EventType {
    EventType {
        name: D::TYPE,
        service: D::SERVICE,
        state: D::STATE,
        partitions,
        retention: RETENTION,
        consumers: FORWARDERS,
    }
}

static CATALOGUE: &[EventType] = &[
    heard::<blog::PostCreated>(PARTITIONS),
    heard::<blog::PostUpdated>(PARTITIONS),
    heard::<blog::PostPublished>(PARTITIONS),
    heard::<blog::PostUnpublished>(PARTITIONS),
    heard::<blog::PostDeleted>(PARTITIONS),
    heard::<blog::PostRestored>(PARTITIONS),
    heard::<blog::PostScheduledPublished>(PARTITIONS),
    heard::<blog::CategoryCreated>(PARTITIONS),
    heard::<blog::CategoryUpdated>(PARTITIONS),
    heard::<blog::CategoryDeleted>(PARTITIONS),
    heard::<blog::TagCreated>(PARTITIONS),
    heard::<blog::TagUpdated>(PARTITIONS),
    heard::<blog::TagDeleted>(PARTITIONS),
    heard::<link::LinkExpired>(PARTITIONS),
    heard::<foodfolio::DetailExpired>(PARTITIONS),
    heard::<foodfolio::DetailExpiringSoon>(PARTITIONS),
    heard::<foodfolio::VariantStockEmpty>(PARTITIONS),
    heard::<foodfolio::VariantStockLow>(PARTITIONS),
    heard::<twitchbot::StreamEnded>(PARTITIONS),
    heard::<warcraft::CharacterSynced>(PARTITIONS),
    heard::<warcraft::GuildSynced>(PARTITIONS),
];

/// Every event type.
pub fn catalogue() -> &'static [EventType] {
    CATALOGUE
}

/// The type of this name.
pub fn by_name(name: &str) -> Option<&'static EventType> {
    CATALOGUE.iter().find(|event| event.name == name)
}

/// What a service says.
pub fn said_by(service: &str) -> impl Iterator<Item = &'static EventType> + '_ {
    CATALOGUE.iter().filter(move |event| event.service == service)
}

/// The topics a service hears: derived from the catalogue, so that no list of its own can fall behind.
pub fn subscription(service: &str) -> Vec<&'static str> {
    CATALOGUE.iter().filter(|event| event.consumers.contains(&service)).map(|event| event.name).collect()
}
