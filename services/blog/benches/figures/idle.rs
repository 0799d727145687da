//! What blog and the whole platform cost while nothing is due, and how soon they are there.

use std::time::{Duration, Instant};

use sqlx::{Executor, PgConnection};
use test_kit::{Home, Process};

use crate::{BLOG, cpu::of_process, home, rows::resident_kib, table::Table, wait};

/// The program that is the whole platform; `make bench` builds it beside the benches.
const BELFRY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/belfry");
/// How long nothing is done.
const IDLE: Duration = Duration::from_secs(60);
/// Before that: what a start brings with it is over.
const SETTLED: Duration = Duration::from_secs(5);

pub(crate) async fn measure(table: &mut Table) {
    for (home, name) in [(Home::embedded(), "embedded"), (home().await, "on servers")] {
        // The first start makes the tables.
        drop(Process::start(BLOG, &home, &[]).ready().await);
        let began = Instant::now();
        let blog = Process::start(BLOG, &home, &[]);
        let up = began.elapsed();
        let blog = blog.ready().await;
        table.put(&format!("cold start until it listens, {name}"), "ms", up.as_secs_f64() * 1000.0);
        table.put(&format!("cold start until it is ready, {name}"), "ms", began.elapsed().as_secs_f64() * 1000.0);
        wait(SETTLED).await;
        let mut rows = match home.url() {
            Some(_) => Some(home.rows("blog").await),
            None => None,
        };
        let before = of_process(blog.id());
        if let Some(rows) = &mut rows {
            let calls = statements(rows).await;
            wait(IDLE).await;
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            let calls = (statements(rows).await - calls) as f64;
            table.put("statements in an idle minute, on servers", "a minute", calls);
        } else {
            wait(IDLE).await;
        }
        let busy = (of_process(blog.id()) - before) / IDLE.as_secs_f64();
        table.put(&format!("processor while idle, {name}"), "% of a core", busy * 100.0);
        put_memory(table, &format!("memory while idle, {name}"), blog.id());
    }
    let home = Home::embedded();
    let platform = Process::platform(BELFRY, &home, &[]).ready().await;
    wait(SETTLED).await;
    put_memory(table, "memory of belfry up while idle, embedded", platform.id());
}

fn put_memory(table: &mut Table, name: &str, process: u32) {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    table.put(name, "MiB", resident_kib(process) as f64 / 1024.0);
}

/// Statements of others than this connection since the server keeps count, BEGIN and COMMIT included.
async fn statements(rows: &mut PgConnection) -> i64 {
    rows.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public").await.expect("the server counts");
    let question =
        "SELECT coalesce(sum(calls), 0)::bigint FROM public.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
        WHERE d.datname = current_database() AND s.query NOT LIKE '%pg_stat_statements%'";
    sqlx::query_scalar(question).fetch_one(rows).await.expect("a count")
}
