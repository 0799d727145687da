//! Stories of the outbox: recorded with the change, relayed in order, never lost, never silently dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

mod ahead;
mod changing;
mod recording;
mod relaying;
mod replaying;
mod world;
