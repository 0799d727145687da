//! What is promised to consumers: the JSON of each event, and the catalogue.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

mod catalogue;
mod fuzz;
mod samples;
mod wire;
