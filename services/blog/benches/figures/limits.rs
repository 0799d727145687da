//! What the machine does at most: the limits that have no work of ours beside them.

use std::time::Instant;

use sqlx::{Connection, Executor, PgConnection};

use crate::{percentiles, table::Table};

const ASKED: usize = 1_000;

/// Milliseconds of each of [`ASKED`] statements.
async fn trips(rows: &mut PgConnection, statement: &'static str) -> Vec<f64> {
    let mut trips = Vec::new();
    for _ in 0..ASKED {
        let began = Instant::now();
        rows.execute(sqlx::query(statement)).await.expect("an answer");
        trips.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    trips
}

/// Milliseconds of each of a thousand questions that cost nothing.
pub(crate) async fn round_trips(rows: &mut PgConnection) -> Vec<f64> {
    trips(rows, "SELECT 1").await
}

pub(crate) async fn measure(table: &mut Table) {
    let url = test_kit::database().await;
    let mut rows = PgConnection::connect(&url).await.expect("the database answers");
    rows.execute("CREATE TABLE single (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)").await.expect("a table");
    let round_trips = round_trips(&mut rows).await;
    let commits = trips(&mut rows, "INSERT INTO single DEFAULT VALUES").await;
    for (name, values) in [("round trip to the database", round_trips), ("commit of a single row", commits)] {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = ASKED as f64 / values.iter().sum::<f64>() * 1_000.0;
        let (middle, end) = percentiles(values);
        table.put(&format!("limit: {name}, p50"), "ms", middle);
        table.put(&format!("limit: {name}, p99"), "ms", end);
        table.put(&format!("limit: {name}, 1 connection"), "a second", rate);
    }
}
