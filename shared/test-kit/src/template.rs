//! A database in which the tables of every service are there, made once a test run and cloned for each test.

use sea_orm::{ConnectOptions, Database};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// Whoever makes the template holds this lock; test binaries run side by side.
const LOCK: i64 = 0x0062_656c_6672_7974;
/// The template's name on the server of a test run.
const TEMPLATE: &str = "belfry_template";

/// The template on this server, made if it is not there.
///
/// # Panics
/// When it cannot be made.
pub(crate) async fn template(connection: &mut PgConnection, server: &str) -> &'static str {
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut *connection).await.expect("a lock");
    let there: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(TEMPLATE)
        .fetch_optional(&mut *connection)
        .await
        .expect("an answer");
    if there.is_none() {
        make(connection, server).await;
    }
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(&mut *connection).await.expect("a lock");
    TEMPLATE
}

/// Under another name first: a test that is ended in the middle leaves no half template.
async fn make(connection: &mut PgConnection, server: &str) {
    let making = format!("{TEMPLATE}_{}", std::process::id());
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {making}"))).await.expect("a database can be made");
    let (base, _) = server.rsplit_once('/').expect("DATABASE_URL names a database");
    let url = format!("{base}/{making}");
    for (service, up) in migrations::SERVICES {
        let mut inside = PgConnection::connect(&url).await.expect("it answers");
        inside.execute(AssertSqlSafe(format!("CREATE SCHEMA {service}"))).await.expect("a schema can be made");
        inside.close().await.expect("a connection can be closed");
        let mut options = ConnectOptions::new(url.clone());
        options.max_connections(1).sqlx_logging(false).set_schema_search_path(*service);
        let db = Database::connect(options).await.expect("it answers");
        up(&db).await.expect("tables can be made");
        db.close().await.expect("connections can be closed");
    }
    let rename = AssertSqlSafe(format!("ALTER DATABASE {making} RENAME TO {TEMPLATE}"));
    connection.execute(rename).await.expect("it can be renamed");
}
