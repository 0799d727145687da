//! The outbox's tables. Each service has them beside its own.

use sea_orm::DbBackend;

/// The statements that create them, for a migration to run.
pub fn create(backend: DbBackend) -> Vec<String> {
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
