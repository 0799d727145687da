//! Pools on PostgreSQL.

use std::time::Duration;

use database::Fault;
use sea_orm::{DatabaseConnection, SqlxPostgresConnector};
use sqlx::{
    ConnectOptions, Connection, Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::Pool;
use crate::config::Secret;

/// Waiting for a connection: below the 5 s within which an answer is promised when the database is away.
const ACQUIRE: Duration = Duration::from_millis(3_500);
/// A connection idle for longer is tested before it is lent.
const TEST_AFTER: Duration = Duration::from_secs(30);
/// How long the test may take: a silently dropped peer does not answer at all.
const TEST: Duration = Duration::from_secs(1);

/// How to connect as one service: its schema, and a limit on every statement.
///
/// # Errors
/// When the URL cannot be read.
pub fn connect_options(url: &Secret, schema: &str, application: &str) -> anyhow::Result<PgConnectOptions> {
    // The parser's error may quote the URL, and with it the password.
    let options: PgConnectOptions = url.reveal().parse().map_err(|_| anyhow::anyhow!("DATABASE_URL cannot be read"))?;
    Ok(options
        .application_name(application)
        .options([
            ("search_path", schema),
            ("statement_timeout", "10000"),
            ("lock_timeout", "3000"),
            ("idle_in_transaction_session_timeout", "10000"),
            ("tcp_keepalives_idle", "15"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "20000"),
            ("client_connection_check_interval", "5000"),
        ])
        .disable_statement_logging())
}

pub(super) fn pool(url: &Secret, schema: &str, service: &str, pool: Pool) -> anyhow::Result<DatabaseConnection> {
    let application = format!("belfry/{service}/{}", pool.name());
    let options = connect_options(url, schema, &application)?;
    let pool = PgPoolOptions::new()
        .max_connections(pool.size())
        .min_connections(0)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(Duration::from_secs(60))
        .max_lifetime(Duration::from_secs(600))
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for < TEST_AFTER {
                    return Ok(true);
                }
                Ok(tokio::time::timeout(TEST, connection.ping()).await.is_ok_and(|pinged| pinged.is_ok()))
            })
        })
        .after_release(|_connection, _meta| {
            // An error closes it at once; the server rolls back what was open.
            let lend = if database::suspected() { Err(sqlx::Error::WorkerCrashed) } else { Ok(true) };
            Box::pin(std::future::ready(lend))
        })
        .connect_lazy_with(options);
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

/// Creates the service's schema.
///
/// # Errors
/// When the database is away or does not allow it.
pub async fn create_schema(url: &Secret, schema: &str) -> Result<(), Fault> {
    let options = connect_options(url, "public", "belfry/migrate").map_err(|error| Fault::Broken(error.to_string()))?;
    let connecting = tokio::time::timeout(Duration::from_secs(5), options.connect()).await;
    let mut connection = connecting.map_err(|_| Fault::Unavailable("it does not answer".to_owned()))??;
    let schema = schema.replace('"', "\"\"");
    connection.execute(sqlx::AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""))).await?;
    Ok(connection.close().await?)
}
