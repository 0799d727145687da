//! The connection to a SQLite file.

use std::{path::Path, time::Duration};

use sea_orm::{DatabaseConnection, SqlxSqliteConnector};
use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

/// Waiting for the connection: below the 5 s within which an answer is promised.
const ACQUIRE: Duration = Duration::from_millis(4_500);
/// Waiting for the other connection to the file.
const BUSY: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);

/// One connection to a file, made when it is first used; whoever wants it waits in line. What it commits is on the disk.
///
/// When a disk is full, SQLite ends the whole transaction by itself. The driver (sqlx 0.9.0) does not notice: it counts on,
/// and everything after that would be a savepoint that nobody ever commits, although each commit is acknowledged. So a
/// connection that comes back in a transaction is closed, never lent again.
pub fn sqlite(file: &Path) -> DatabaseConnection {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .pragma("cache_size", "-2000")
        .pragma("mmap_size", "0")
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(0)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(IDLE)
        .test_before_acquire(false)
        .after_release(|connection, _meta| Box::pin(at_rest(connection)))
        .connect_lazy_with(options);
    SqlxSqliteConnector::from_sqlx_sqlite_pool(pool)
}

/// Whether no transaction goes on; whatever was queued for the connection is done first.
async fn at_rest(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on panics; that is how it tells")]

    use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

    use super::sqlite;

    fn file(folder: &tempfile::TempDir) -> DatabaseConnection {
        sqlite(&folder.path().join("rows.sqlite"))
    }

    async fn count(db: &DatabaseConnection) -> i64 {
        let statement = Statement::from_string(db.get_database_backend(), "SELECT count(*) AS n FROM t");
        db.query_one_raw(statement).await.unwrap().unwrap().try_get("", "n").unwrap()
    }

    /// Writes a row in a transaction; whether it was acknowledged.
    async fn write(db: &DatabaseConnection, verb: &str, row: i64) -> bool {
        let Ok(tx) = crate::begin(db).await else { return false };
        let written = tx.execute_unprepared(&format!("{verb} INTO t VALUES ({row})")).await;
        written.is_ok() && tx.commit().await.is_ok()
    }

    #[tokio::test]
    async fn what_is_acknowledged_after_sqlite_ended_a_transaction_by_itself_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let db = file(&folder);
        db.execute_unprepared("CREATE TABLE t (id integer PRIMARY KEY)").await.unwrap();
        let mut acknowledged = 0;
        // A row that is there already ends the whole transaction by the first verb, as a full disk does.
        let verbs = [
            ("INSERT OR ROLLBACK", 0),
            ("INSERT OR ROLLBACK", 0),
            ("INSERT", 0),
            ("INSERT", 1),
            ("INSERT", 0),
            ("INSERT", 2),
        ];
        for (verb, row) in verbs {
            acknowledged += i64::from(write(&db, verb, row).await);
        }
        assert_eq!(count(&file(&folder)).await, acknowledged, "another process sees what was acknowledged");
        assert_eq!(acknowledged, 3, "it goes on");
    }
}
