//! The one place that starts and stops a process, with one service or with all.

mod assemble;
mod bells;
mod ready;
mod runtimes;
mod upgrade;

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use scheduler::{Running, Stopped, store::sql::SqlStore};
use tokio_util::sync::CancellationToken;

pub(crate) use self::assemble::migrate_all;
use self::{assemble::Assembled, runtimes::Runtimes};
use crate::{
    cli::{EXIT_CONFIG, EXIT_FAILED, complain},
    config::{self, Config, DatabaseUrl, Start},
    database::{Alone, FileLock},
    http::server,
    lifecycle::Signals,
    service::Service,
    telemetry,
};

/// The relay flushes what requests and runs recorded in their last moments.
const FLUSH: Duration = Duration::from_secs(5);

/// Two processes with an embedded log each would have half of the events.
const ANOTHER: &str = "KAFKA_BROKERS: not set, and another process uses this DATABASE_URL with an embedded log of its own: each \
    would have half of the events; expected Kafka, or one process";

/// How a process is started.
pub struct Options {
    /// Its name in logs and traces.
    pub name: &'static str,
    /// Defaults that depend on how it was started.
    pub start: Start,
}

/// Runs these services until the process is asked to stop; the exit code.
pub fn up(services: Vec<Service>, options: Options) -> ExitCode {
    let config = match Config::read(config::environment(), &services, &options.start) {
        Ok(config) => config,
        Err(refused) => {
            complain(&refused);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let telemetry = match telemetry::begin(&config.process, options.name) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let code = match run(services, &config, &options) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            EXIT_FAILED
        }
    };
    telemetry.end();
    ExitCode::from(code)
}

fn run(services: Vec<Service>, config: &Config, options: &Options) -> anyhow::Result<u8> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let _lock = FileLock::of(&config.process.database).map(|path| FileLock::take(&path)).transpose()?;
    let runtimes = Runtimes::start()?;
    let stop = CancellationToken::new();
    let alone = Alone::default();
    if let (DatabaseUrl::Postgres(url), None) = (&config.process.database, &config.process.kafka)
        && !runtimes.keep.block_on(alone.take(url.clone(), stop.clone()))
    {
        complain(&ANOTHER);
        runtimes.end();
        return Ok(EXIT_CONFIG);
    }
    let assembled = runtimes.front.block_on(assemble::assemble(services, config, options, &runtimes, &stop));
    let code = match assembled {
        Ok(assembled) => runtimes.front.block_on(serve(assembled, config, &runtimes, stop, &alone)),
        Err(error) => {
            stop.cancel();
            Err(error)
        }
    };
    runtimes.end();
    code
}

/// Everything runs; waits for the end and brings it about.
async fn serve(
    assembled: Assembled,
    config: &Config,
    runtimes: &Runtimes,
    stop: CancellationToken,
    alone: &Alone,
) -> anyhow::Result<u8> {
    let Assembled { public, admin, listener, admin_listener, schedulers, supervisor, health, relay_stop } = assembled;
    let mut signals = Signals::listen()?;
    let (http_addr, admin_addr) = (listener.local_addr()?, admin_listener.local_addr()?);
    let grace = config.process.grace;
    let drain = grace.mul_f64(0.6);
    let supervisor = Arc::new(supervisor);
    let http = runtimes.front.spawn(server::serve(listener, public, stop.clone(), drain));
    let admin_stop = CancellationToken::new();
    let operations =
        runtimes.keep.spawn(server::serve(admin_listener, admin, admin_stop.clone(), Duration::from_secs(1)));
    announce(config, http_addr, admin_addr);
    let failed = tokio::select! {
        () = signals.asked() => None,
        which = supervisor.failed() => Some(which),
        () = alone.lost() => Some("another process uses this database with an embedded log of its own".to_owned()),
        () = exhausted(&schedulers) => Some("every thread of the work runtime is stuck in a job".to_owned()),
    };
    if let Some(why) = &failed {
        tracing::error!(why, "the process cannot go on");
    } else {
        tracing::info!(grace = ?grace, "stopping: nothing new is accepted, what is in hand is finished");
    }
    let began = std::time::Instant::now();
    stop.cancel();
    health.ready("process", Err("stopping".to_owned()));
    let orderly = async {
        let jobs = stop_all(schedulers, grace.saturating_sub(FLUSH).max(grace / 2));
        let (jobs, http) = tokio::join!(jobs, http);
        if let Err(error) = http {
            tracing::warn!(%error, "the public listener ended badly");
        }
        relay_stop.cancel();
        supervisor.ended().await;
        admin_stop.cancel();
        if let Err(error) = operations.await {
            tracing::debug!(%error, "the operations listener ended badly");
        }
        jobs
    };
    let cleanly = tokio::select! {
        jobs = orderly => jobs == Stopped::Cleanly,
        () = signals.asked() => {
            tracing::warn!("asked a second time: dropping what is in hand");
            false
        }
        _ = tokio::time::timeout(grace, std::future::pending::<()>()) => false,
    };
    let took_ms = began.elapsed().as_millis();
    if cleanly {
        tracing::info!(took_ms, "stopped; everything in hand was finished or given back");
    } else {
        tracing::warn!(took_ms, "stopped before everything in hand had ended; others take it over");
    }
    Ok(if failed.is_some() { EXIT_FAILED } else { 0 })
}

async fn exhausted(schedulers: &[Running<SqlStore>]) {
    let each = schedulers.iter().map(|running| Box::pin(running.exhausted()));
    if schedulers.is_empty() {
        std::future::pending::<()>().await;
    }
    futures_util::future::select_all(each).await;
}

async fn stop_all(schedulers: Vec<Running<SqlStore>>, grace: Duration) -> Stopped {
    let stopping = schedulers.into_iter().map(|running| running.stop(grace));
    let stopped = futures_util::future::join_all(stopping).await;
    if stopped.iter().all(|stopped| *stopped == Stopped::Cleanly) { Stopped::Cleanly } else { Stopped::Abandoned }
}

/// Where to look, and three lines to try.
fn announce(config: &Config, http: SocketAddr, admin: SocketAddr) {
    let process = &config.process;
    let kafka =
        process.kafka.as_ref().map_or("the embedded log (one machine; not for production)".to_owned(), |kafka| {
            format!("Kafka at {}", kafka.brokers)
        });
    tracing::info!(%http, %admin, events = kafka, "up");
    if process.log_format == config::LogFormat::Json {
        return;
    }
    let text = format!(
        "\n  API        http://{http}/docs\n  jobs       http://{admin}/admin/v1/jobs\n  metrics    http://{admin}/metrics\n  \
         events     {kafka}\n\n  curl http://{http}/api/blog/posts\n  \
         curl -X POST http://{http}/api/blog/posts -H 'content-type: application/json' -d '{{\"title\": \"Hello\", \"content\": \"# Hi\"}}'\n  \
         curl http://{admin}/admin/v1/jobs/blog/post_publisher/plan?count=3\n\n  Ctrl-C stops it.\n"
    );
    crate::cli::say(&text);
}
