//! The outbox's tables. Each service has them beside its own.
//!
//! A recorded event is written once and not changed by leaving: what has not left yet is a narrow row beside it, which the
//! relay deletes.

use sea_orm::DbBackend;

/// All statements, for a database that has none of the tables.
pub fn create(backend: DbBackend) -> Vec<String> {
    [first(backend), waiting_apart(backend), headers_as_text(backend)].concat()
}

/// The tables as they were at first, for the first step of a migration.
pub fn first(backend: DbBackend) -> Vec<String> {
    let (uuid, time, json, bytes, position) = match backend {
        DbBackend::Sqlite => ("blob", "text", "text", "blob", "integer PRIMARY KEY AUTOINCREMENT"),
        _ => ("uuid", "timestamptz", "jsonb", "bytea", "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    };
    vec![
        format!(
            "CREATE TABLE outbox (position {position}, id {uuid} NOT NULL UNIQUE, topic text NOT NULL,
                 key text NOT NULL, sequence bigint NOT NULL, body {bytes} NOT NULL, headers {json} NOT NULL,
                 recorded_at {time} NOT NULL, published_at {time})"
        ),
        "CREATE INDEX outbox_waiting ON outbox (position) WHERE published_at IS NULL".to_owned(),
        "CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL".to_owned(),
        format!(
            "CREATE TABLE outbox_relay (name text PRIMARY KEY, owner text NOT NULL, epoch bigint NOT NULL,
                 lease_until {time} NOT NULL)"
        ),
    ]
}

/// What waits gets a table of its own, for a later step: to mark a row of an event was to write all of it again.
pub fn waiting_apart(backend: DbBackend) -> Vec<String> {
    let position = if backend == DbBackend::Sqlite { "integer" } else { "bigint" };
    vec![
        "DROP INDEX outbox_waiting".to_owned(),
        "DROP INDEX outbox_published".to_owned(),
        format!("CREATE TABLE outbox_waiting (position {position} PRIMARY KEY, key text NOT NULL)"),
        "INSERT INTO outbox_waiting (position, key) SELECT position, key FROM outbox WHERE published_at IS NULL"
            .to_owned(),
        "ALTER TABLE outbox DROP COLUMN published_at".to_owned(),
    ]
}

/// Headers are kept as they were written, for a later step: only the relay reads them, and the server need not understand them.
pub fn headers_as_text(backend: DbBackend) -> Vec<String> {
    match backend {
        // There they always were.
        DbBackend::Sqlite => Vec::new(),
        _ => vec!["ALTER TABLE outbox ALTER COLUMN headers TYPE text".to_owned()],
    }
}
