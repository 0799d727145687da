//! What is said: the catalogue of event types, their envelope, their topics. Pure data.
//!
//! An event type is a struct with the fields of its `data`; [`Event::of`] puts it into the one envelope of the platform,
//! which is a CloudEvents 1.0 structured event at the same time.

mod catalogue;
mod envelope;
mod event;

pub mod blog;
pub mod foodfolio;
pub mod link;
pub mod twitchbot;
pub mod warcraft;

pub use catalogue::{EventType, by_name, catalogue, said_by, subscription};
pub use envelope::{CONTENT_TYPE, DecodeError, MAX_ENVELOPE_BYTES};
pub use event::{Event, EventData, State};
