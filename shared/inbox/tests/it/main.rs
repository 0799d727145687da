//! Stories of the inbox: the effect of each event once, whatever comes twice, late, broken or while the database is away.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

mod failing;
mod taking;
mod world;
