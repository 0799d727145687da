//! The frame every service bolts on: configuration, telemetry, database, HTTP, admin API, life cycle.

pub mod admin;
pub mod cli;
pub mod config;
pub mod database;
pub mod health;
pub mod http;
pub mod kit;
mod lifecycle;
pub mod metrics;
pub mod service;
pub mod telemetry;

pub use cli::{EXIT_CONFIG, main};
pub use kit::{Options, up};
pub use service::{Doors, JobDef, Service, Setup, Variable};

/// Makes ring the process's TLS provider; clients without one panic. Calling it again changes nothing.
pub fn install_tls_provider() {
    let _installed = rustls::crypto::ring::default_provider().install_default();
}
