//! Connections to a SQLite file: one that writes, one that reads.

use std::{path::Path, time::Duration};

use sea_orm::{DatabaseConnection, SqlxSqliteConnector};
use sqlx::{
    ConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
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

fn pool(options: SqliteConnectOptions) -> DatabaseConnection {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(0)
        .acquire_timeout(Duration::from_millis(4_500))
        .idle_timeout(Duration::from_secs(60))
        .test_before_acquire(false)
        .connect_lazy_with(options);
    SqlxSqliteConnector::from_sqlx_sqlite_pool(pool)
}

/// The one connection that writes; whoever wants it waits in line.
pub(super) fn writer(file: &Path) -> anyhow::Result<DatabaseConnection> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(pool(options(file)))
}

/// A connection that reads beside the writer.
pub(super) fn reader(file: &Path) -> anyhow::Result<DatabaseConnection> {
    anyhow::ensure!(!file.as_os_str().is_empty(), "a SQLite file needs a name");
    Ok(pool(options(file)))
}
