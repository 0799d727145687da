//! One suite for Kafka and the embedded log, and what only the log promises.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

mod alike;
mod conformance;
mod fuzz;
mod log;
