//! What blog costs while nothing is due, and how soon it is there.

use std::time::{Duration, Instant};

use test_kit::{Home, Process};

use crate::{BLOG, home, rows::resident_kib, table::Table};

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
        let before = processor_ticks(&blog);
        let idle = Duration::from_secs(20);
        tokio::time::timeout(idle, std::future::pending::<()>()).await.expect_err("it never ends");
        let busy = f64::from(processor_ticks(&blog) - before) / 100.0 / idle.as_secs_f64();
        table.put(&format!("processor while idle, {name}"), "% of a core", busy * 100.0);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        table.put(&format!("memory while idle, {name}"), "MiB", resident_kib(&blog) as f64 / 1024.0);
    }
}

/// Ticks (1/100 s) of the processor a process has used.
fn processor_ticks(process: &Process) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<i32>().ok()).sum()
}
