//! The inbox's tables. Each service has them beside its own.

use sea_orm::DbBackend;

/// The statements that create them, for a migration to run.
pub fn create(backend: DbBackend) -> Vec<String> {
    let (uuid, time) = match backend {
        DbBackend::Sqlite => ("blob", "text"),
        _ => ("uuid", "timestamptz"),
    };
    let mut tables = broker::dead_letters::tables(backend);
    tables.extend([
        format!(
            "CREATE TABLE inbox (consumer text NOT NULL, event_id {uuid} NOT NULL, taken_at {time} NOT NULL,
                 PRIMARY KEY (consumer, event_id))"
        ),
        "CREATE INDEX inbox_taken ON inbox (taken_at)".to_owned(),
        "CREATE TABLE inbox_keys (consumer text NOT NULL, key text NOT NULL, sequence bigint NOT NULL,
             PRIMARY KEY (consumer, key))"
            .to_owned(),
    ]);
    tables
}
