//! The frame from the outside: tokens, connections, configuration.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

mod connections;
mod keycloak;
mod tokens;
