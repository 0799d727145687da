//! Where a service under test keeps its rows and events: PostgreSQL and Kafka, or its own folder.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::template::template;

/// The variables of one kind of home.
pub struct Home {
    /// What to call it in messages.
    pub name: &'static str,
    vars: Vec<(String, String)>,
    folder: TempDir,
    database: Option<String>,
    /// The database goes away with the home.
    ours: bool,
}

#[expect(clippy::disallowed_methods, reason = "the servers of the test run are told by the environment")]
fn variable(name: &str) -> String {
    let given = std::env::var(name).ok().filter(|value| !value.is_empty());
    given.unwrap_or_else(|| {
        panic!("{name} is not set: run the tests with `make test`, or export what `make services-up` prints")
    })
}

/// Where Kafka is.
///
/// # Panics
/// When the test run has none.
pub fn kafka() -> String {
    variable("KAFKA_BROKERS")
}

fn server() -> String {
    variable("DATABASE_URL")
}

/// The URL of a new database of this test's own.
///
/// # Panics
/// When there is no server.
pub async fn database() -> String {
    let server = server();
    made(&server, "").await
}

/// The URL of a new database in which the tables of every service are there. Only on the server of a test run: the one
/// for development outlives changes of the tables, and services make their own there.
#[expect(clippy::disallowed_methods, reason = "the servers of the test run are told by the environment")]
async fn with_tables() -> String {
    let server = server();
    if std::env::var("BELFRY_SERVERS").is_err() {
        return made(&server, "").await;
    }
    let mut connection = PgConnection::connect(&server).await.expect("the server answers");
    let template = template(&mut connection, &server).await;
    connection.close().await.expect("a connection can be closed");
    made(&server, &format!("TEMPLATE {template}")).await
}

async fn made(server: &str, template: &str) -> String {
    let name = format!("t_{}", Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(server).await.expect("the server answers");
    let create = AssertSqlSafe(format!("CREATE DATABASE {name} {template}"));
    connection.execute(create).await.expect("a database can be made");
    connection.close().await.expect("a connection can be closed");
    let (base, _) = server.rsplit_once('/').expect("DATABASE_URL names a database");
    format!("{base}/{name}")
}

impl Home {
    /// SQLite and the embedded log in a folder that goes away.
    ///
    /// # Panics
    /// When there is no room for a folder.
    pub fn embedded() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        Self { name: "embedded", vars: Vec::new(), folder, database: None, ours: false }
    }

    /// A PostgreSQL database of this test's own, and the Kafka of the test run.
    pub async fn servers() -> Self {
        let url = with_tables().await;
        let folder = tempfile::tempdir().expect("a folder can be made");
        let vars = vec![("DATABASE_URL".to_owned(), url.clone()), ("KAFKA_BROKERS".to_owned(), kafka())];
        Self { name: "PostgreSQL and Kafka", vars, folder, database: Some(url), ours: true }
    }

    /// A PostgreSQL database and a Kafka at these addresses, which may not answer yet.
    ///
    /// # Panics
    /// When there is no room for a folder.
    pub fn at(database: Option<&str>, kafka: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut vars = Vec::new();
        vars.extend(database.map(|url| ("DATABASE_URL".to_owned(), url.to_owned())));
        vars.extend(kafka.map(|brokers| ("KAFKA_BROKERS".to_owned(), brokers.to_owned())));
        Self { name: "servers of the test's own", vars, folder, database: database.map(str::to_owned), ours: false }
    }

    /// Its database goes away with it.
    pub(crate) fn owning(mut self) -> Self {
        self.ours = true;
        self
    }

    /// Both.
    pub async fn both() -> Vec<Self> {
        vec![Self::embedded(), Self::servers().await]
    }

    /// The variables a service needs to live here.
    pub fn vars(&self) -> &[(String, String)] {
        &self.vars
    }

    /// The folder that goes away with it.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The database, where it is PostgreSQL.
    pub fn url(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// A connection to the service's schema, for looking at its rows.
    ///
    /// # Panics
    /// When the home is not PostgreSQL, or does not answer.
    pub async fn rows(&self, schema: &str) -> PgConnection {
        let url = self.url().expect("rows are looked at on PostgreSQL");
        let mut connection = PgConnection::connect(url).await.expect("the database answers");
        connection.execute(AssertSqlSafe(format!("SET search_path TO {schema}"))).await.expect("the schema is there");
        connection
    }
}

impl Drop for Home {
    /// Removes the database; whoever is still connected is sent away.
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let Some((_, name)) = self.database.as_deref().and_then(|url| url.rsplit_once('/')) else { return };
        let (server, remove) = (server(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&server).await.ok()?;
                tokio::time::timeout(Duration::from_secs(10), connection.execute(AssertSqlSafe(remove)))
                    .await
                    .ok()?
                    .ok()
            })
        });
        // A database that stays is removed with the whole cluster.
        drop(removing.join());
    }
}
