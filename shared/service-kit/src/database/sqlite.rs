//! Connections to a SQLite file: one that writes, one that reads.

use std::path::Path;

use sea_orm::DatabaseConnection;

/// The one connection that writes; whoever wants it waits in line.
pub(super) fn writer(file: &Path) -> anyhow::Result<DatabaseConnection> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(database::sqlite(file))
}

/// A connection that reads beside the writer.
pub(super) fn reader(file: &Path) -> anyhow::Result<DatabaseConnection> {
    anyhow::ensure!(!file.as_os_str().is_empty(), "a SQLite file needs a name");
    Ok(database::sqlite(file))
}
