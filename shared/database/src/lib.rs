//! How rows are reached on PostgreSQL and SQLite: begin, bind, classify.
//!
//! What is the same for everything that keeps rows, and is easy to get wrong: a transaction that nothing cancels,
//! lists and records as one parameter, and what an error of the database means.

mod deadline;
mod fault;
mod sql;
mod sqlite;

use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

pub use self::{
    deadline::{suspect, suspected, within},
    fault::Fault,
    sql::{Cells, Sql, hex_bytes, id, time},
    sqlite::sqlite,
};

/// Begins a transaction; on SQLite as the writer at once (a deferred one fails where it should wait).
///
/// It may be dropped at any await: the BEGIN itself is in a task of its own, because the driver (sqlx 0.9.0) lends a
/// connection whose BEGIN was abandoned to the next borrower, still inside the transaction.
pub async fn begin(db: &DatabaseConnection) -> Result<DatabaseTransaction, Fault> {
    let db = db.clone();
    uncancelled(async move {
        let immediate = (db.get_database_backend() == DbBackend::Sqlite).then_some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode: immediate, ..TransactionOptions::default() };
        within(deadline::BEGIN, async { Ok(db.begin_with_options(options).await?) }).await
    })
    .await
}

/// Awaits work in a task of its own, which goes on when this future is dropped: a future that is dropped inside BEGIN or
/// COMMIT would leave its connection in a transaction that nobody ends.
pub async fn uncancelled<T: Send + 'static, E: From<Fault> + Send + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    #[expect(clippy::disallowed_methods, reason = "this is the place that keeps transactions from being cancelled")]
    let task = tokio::spawn(work);
    match task.await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Fault::Unavailable(error.to_string()).into()),
    }
}
