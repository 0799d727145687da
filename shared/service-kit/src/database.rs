//! Where a service's rows are: small separate pools, server-side limits, one file or one schema a service.

mod alone;
mod lock;
mod postgres;
mod sqlite;

use std::path::PathBuf;

use database::Fault;
use sea_orm::{DatabaseConnection, DatabaseTransaction, DbBackend};

pub use self::{
    alone::Alone,
    lock::FileLock,
    postgres::{connect_options, create_schema},
};
use crate::config::DatabaseUrl;

/// A transaction of a request. Dropping it rolls back.
pub type Tx = DatabaseTransaction;

/// Which pool a connection belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Requests, the relay, listeners.
    Api,
    /// Jobs.
    Work,
    /// The scheduler itself.
    Keep,
}

impl Pool {
    /// Connections at most, on PostgreSQL.
    pub const fn size(self) -> u32 {
        match self {
            Self::Api => 3,
            Self::Work | Self::Keep => 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Work => "work",
            Self::Keep => "keep",
        }
    }
}

/// The rows of a service, as its requests reach them.
#[derive(Debug, Clone)]
pub struct Db {
    write: DatabaseConnection,
    read: DatabaseConnection,
}

impl Db {
    /// Both kinds of connection; on PostgreSQL one pool is both.
    pub fn new(write: DatabaseConnection, read: DatabaseConnection) -> Self {
        Self { write, read }
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] within 5 s when the database is away.
    pub async fn begin(&self) -> Result<Tx, Fault> {
        database::begin(&self.write).await
    }

    /// For reading without a transaction.
    pub fn read(&self) -> &DatabaseConnection {
        &self.read
    }

    /// For single statements that write.
    pub fn write(&self) -> &DatabaseConnection {
        &self.write
    }
}

/// Where one service's rows are.
#[derive(Debug, Clone)]
pub enum Place {
    /// The schema of its name in a PostgreSQL database.
    Schema {
        /// The database.
        url: crate::config::Secret,
        /// The schema.
        schema: String,
    },
    /// A SQLite file.
    File(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Schema { schema, .. } => write!(f, "schema {schema}"),
            Self::File(file) => write!(f, "file {}", file.display()),
        }
    }
}

impl Place {
    /// Where `service` lives in this database.
    pub fn of(url: &DatabaseUrl, service: &str) -> Self {
        match url {
            DatabaseUrl::Postgres(url) => Self::Schema { url: url.clone(), schema: service.to_owned() },
            DatabaseUrl::SqliteFile(file) => Self::File(file.clone()),
            DatabaseUrl::SqliteFolder(folder) => Self::File(folder.join(format!("{service}.sqlite"))),
        }
    }

    /// The engine.
    pub fn backend(&self) -> DbBackend {
        match self {
            Self::Schema { .. } => DbBackend::Postgres,
            Self::File(_) => DbBackend::Sqlite,
        }
    }

    /// A pool of connections; nothing is connected before its first use. To be called on the runtime that uses it.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn pool(&self, service: &str, pool: Pool) -> anyhow::Result<DatabaseConnection> {
        match self {
            Self::Schema { url, schema } => postgres::pool(url, schema, service, pool),
            Self::File(file) => sqlite::writer(file),
        }
    }

    /// Connections for reading: on SQLite a pool of its own, on PostgreSQL `write` itself.
    ///
    /// # Errors
    /// When the file's name cannot be used.
    pub fn reader(&self, write: &DatabaseConnection) -> anyhow::Result<DatabaseConnection> {
        match self {
            Self::Schema { .. } => Ok(write.clone()),
            Self::File(file) => sqlite::reader(file),
        }
    }
}
