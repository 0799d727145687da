//! Connections to a SQLite file: one that writes, one that reads.

use std::{path::Path, time::Duration};

use sea_orm::DatabaseConnection;
use sqlx::{
    ConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("cache_size", "-512")
        .pragma("mmap_size", "0")
        .disable_statement_logging()
}

/// The one connection that writes; whoever wants it waits in line.
pub(super) fn writer(file: &Path) -> anyhow::Result<DatabaseConnection> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(database::sqlite(options(file)))
}

/// A connection that reads beside the writer.
pub(super) fn reader(file: &Path) -> anyhow::Result<DatabaseConnection> {
    anyhow::ensure!(!file.as_os_str().is_empty(), "a SQLite file needs a name");
    Ok(database::sqlite(options(file)))
}
