//! Tables of a shared crate on both databases, without any service around them.

use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend};

use crate::Home;

/// Tables in a database of this test's own.
pub struct Tables {
    /// The connections to it.
    pub db: DatabaseConnection,
    home: Home,
}

impl Tables {
    /// In a SQLite file, with one connection as services have it.
    ///
    /// # Panics
    /// When a statement is refused.
    pub async fn sqlite(create: impl Fn(DbBackend) -> Vec<String>) -> Self {
        let home = Home::embedded();
        let url = format!("sqlite://{}?mode=rwc", home.folder().join("test.sqlite").display());
        Self::made(&url, 1, home, create).await
    }

    /// On PostgreSQL.
    ///
    /// # Panics
    /// When there is no server, or a statement is refused.
    pub async fn postgres(create: impl Fn(DbBackend) -> Vec<String>) -> Self {
        Self::at(&crate::database().await, create).await
    }

    /// In this database of PostgreSQL, which others reach too.
    ///
    /// # Panics
    /// When there is no server, or a statement is refused.
    pub async fn at(url: &str, create: impl Fn(DbBackend) -> Vec<String>) -> Self {
        let home = Home::at(Some(url), None).owning();
        Self::made(url, 8, home, create).await
    }

    /// One of each.
    pub async fn both(create: impl Fn(DbBackend) -> Vec<String>) -> [Self; 2] {
        [Self::sqlite(&create).await, Self::postgres(&create).await]
    }

    /// What to call it in messages.
    pub fn name(&self) -> &'static str {
        self.home.name
    }

    async fn made(url: &str, connections: u32, home: Home, create: impl Fn(DbBackend) -> Vec<String>) -> Self {
        let mut options = ConnectOptions::new(url);
        options.max_connections(connections).sqlx_logging(false);
        let db = Database::connect(options).await.expect("the database answers");
        for statement in create(db.get_database_backend()) {
            db.execute_unprepared(&statement).await.expect("a table can be made");
        }
        Self { db, home }
    }
}
