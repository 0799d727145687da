//! One suite for the three stores, and stories of the runner on them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

mod alike;
mod clock;
mod conformance;
mod due;
mod jobs;
mod kinds;
mod runner;
mod sql;
mod turns;
mod world;
