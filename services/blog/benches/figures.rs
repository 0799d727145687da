//! Figures of blog on real servers, each beside a limit measured in the same run. `make bench`.
//!
//! Three repetitions, interleaved; the median is shown with the spread. Run it with `--quick` for a first look, with
//! `--rounds=N` for more or fewer.

#![allow(clippy::expect_used, reason = "a measurement that cannot go on panics; that is how it tells")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a measurement tells people what it finds")]

#[path = "figures/api.rs"]
mod api;
#[path = "figures/burn.rs"]
mod burn;
#[path = "figures/cpu.rs"]
mod cpu;
#[path = "figures/embedded.rs"]
mod embedded;
#[path = "figures/fires.rs"]
mod fires;
#[path = "figures/idle.rs"]
mod idle;
#[path = "figures/lateness.rs"]
mod lateness;
#[path = "figures/limits.rs"]
mod limits;
#[path = "figures/nudge.rs"]
mod nudge;
#[path = "figures/peers.rs"]
mod peers;
#[path = "figures/rows.rs"]
mod rows;
#[path = "figures/soak.rs"]
mod soak;
#[path = "figures/table.rs"]
mod table;

use table::Table;
use test_kit::Home;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// Repetitions.
    pub(crate) rounds: usize,
    /// Due rows in one burn-down.
    pub(crate) due: i32,
    /// Due posts in one burn-down.
    pub(crate) burst: i32,
    /// Posts that wait for later.
    pub(crate) waiting: i32,
    /// Posts whose lateness is measured.
    pub(crate) samples: usize,
    /// Schedules in one process.
    pub(crate) schedules: &'static [usize],
    /// How long an old snapshot is held.
    pub(crate) soak: std::time::Duration,
}

const FULL: Size = Size {
    rounds: 3,
    due: 700_000,
    burst: 100_000,
    waiting: 1_000_000,
    samples: 200,
    schedules: &[1, 1_000, 10_000, 100_000, 1_000_000],
    soak: std::time::Duration::from_secs(600),
};
const QUICK: Size = Size {
    rounds: 1,
    due: 100_000,
    burst: 20_000,
    waiting: 20_000,
    samples: 40,
    schedules: &[1, 1_000, 10_000],
    soak: std::time::Duration::from_secs(60),
};

/// An id for row `n` as services make them (UUIDv7: milliseconds, then a counter), in SQL.
pub(crate) const ID: &str = "(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') \
    || '7' || lpad(to_hex(n & 4095), 3, '0') || 'a' || substr(md5(random()::text), 1, 15))::uuid";

/// The program that is measured.
const BLOG: &str = env!("CARGO_BIN_EXE_blog");

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let only = arguments.iter().find(|argument| !argument.starts_with("--"));
    let mut size = if quick { QUICK } else { FULL };
    if let Some(rounds) = arguments.iter().find_map(|argument| argument.strip_prefix("--rounds=")) {
        size.rounds = rounds.parse().expect("--rounds=N, a count");
    }
    let wanted = |name: &str| only.is_none_or(|only| only.split(',').any(|only| name.contains(only)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let [_, mode, what] = &arguments[..] {
        match mode.as_str() {
            "fires" => return runtime.block_on(fires::as_peer(what.parse().expect("a count"))),
            "axum" => return runtime.block_on(api::as_limit(what)),
            _ => {}
        }
    }
    runtime.block_on(async {
        let mut table = Table::default();
        for round in 0..size.rounds {
            eprintln!("round {} of {}", round + 1, size.rounds);
            // Peers are asked only by name: they need their toolchains.
            if only.is_some_and(|only| only == "peers") {
                peers::measure(&mut table, size).await;
            }
            // Minutes of one thing, also only by name.
            if only.is_some_and(|only| only == "soak") {
                soak::measure(&mut table, size).await;
            }
            if wanted("limits") {
                limits::measure(&mut table).await;
            }
            if wanted("burn") {
                burn::measure(&mut table, size).await;
            }
            if wanted("replicas") {
                burn::scaled(&mut table, size).await;
            }
            if wanted("rows") {
                rows::measure(&mut table, size).await;
            }
            if wanted("relay") {
                rows::relayed(&mut table, size).await;
            }
            if wanted("embedded") {
                embedded::measure(&mut table, size).await;
            }
            if wanted("lateness") {
                lateness::measure(&mut table, size).await;
            }
            if wanted("nudge") {
                nudge::measure(&mut table).await;
            }
            if wanted("fires") {
                fires::measure(&mut table, size).await;
            }
            if wanted("api") {
                api::measure(&mut table, size).await;
            }
            if wanted("idle") {
                idle::measure(&mut table).await;
            }
        }
        table.show();
    });
}

/// A home on the servers of the run.
pub(crate) async fn home() -> Home {
    Home::servers().await
}

/// Lets time pass.
pub(crate) async fn wait(duration: std::time::Duration) {
    tokio::time::timeout(duration, std::future::pending::<()>()).await.expect_err("it never ends");
}

/// A value in the middle, and one near the end: the 50th and 99th percentile.
pub(crate) fn percentiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| {
        let place = (values.len() * part / 100).min(values.len().saturating_sub(1));
        values.get(place).copied().unwrap_or(f64::NAN)
    };
    (at(50), at(99))
}
