//! What tests stand on: a real PostgreSQL, Kafka and SQLite, services as processes, one bounded wait.
//!
//! Only ever a dev-dependency. The servers are those of `make test` (`DATABASE_URL`, `KAFKA_BROKERS`).

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on panics; that is how it tells"
)]

mod eventually;
pub mod fuzz;
mod home;
mod http;
mod page;
mod process;
mod proxy;
mod recorded;
mod server;
pub mod signing;
mod tables;
mod template;

pub use scheduler::clock::ManualClock;

pub use self::{
    eventually::{eventually, eventually_within},
    home::{Home, database, kafka},
    http::{Answer, Client},
    page::{page, project},
    process::{Process, Signal},
    proxy::{Network, Proxy},
    recorded::Recorded,
    server::Server,
    tables::Tables,
};
