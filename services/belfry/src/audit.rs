//! `belfry audit`: reads what the services wrote and says what a promise would not allow.
//!
//! It reads tables and topics itself and shares no code with what writes them, so that a fault there cannot hide here.
//! Only the calendar of cron expressions is the scheduler's; other implementations vouch for that (`make oracle`).

mod delivery;
mod ledger;
mod rows;
mod topics;

use std::process::ExitCode;

use broker::KafkaConfig;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use service_kit::{Service, config::Config, database::Place};

use self::rows::Reader;
use crate::{
    cli::{Audit, FAILED},
    output::{Column, Output},
    platform,
};

/// What is looked at unless told.
const WINDOW: TimeDelta = TimeDelta::hours(24);
/// Nothing that is younger is stuck.
const SETTLED: TimeDelta = TimeDelta::seconds(60);

const COLUMNS: &[Column] =
    &[("SERVICE", "service"), ("CHECK", "check"), ("EXAMINED", "examined"), ("FOUND", "found"), ("FIRST", "first")];

/// One check of one service.
struct Check {
    name: &'static str,
    examined: u64,
    found: u64,
    first: Option<String>,
}

impl Check {
    fn new(name: &'static str) -> Self {
        Self { name, examined: 0, found: 0, first: None }
    }

    /// Notes `count` findings; `what` describes the first.
    fn found(&mut self, count: u64, what: impl FnOnce() -> String) {
        if count > 0 && self.first.is_none() {
            self.first = Some(what());
        }
        self.found += count;
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// The database's time.
    now: DateTime<Utc>,
}

impl Window {
    /// What came before has had time to settle.
    fn settled(&self) -> DateTime<Utc> {
        self.to.min(self.now - SETTLED)
    }
}

/// Where events travel.
enum Log {
    Kafka(KafkaConfig),
    File(std::path::PathBuf),
}

pub(crate) fn audit(asked: &Audit, json: bool) -> ExitCode {
    let output = Output::new(json);
    let (services, config) = match platform::configured(&asked.services()) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(all(asked, &services, &config)));
    match done.and_then(|checks| tell(&output, &checks)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            output.error(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// Shows the table; whether nothing was found.
fn tell(output: &Output, checks: &[(&'static str, Check)]) -> anyhow::Result<bool> {
    let row = |(service, check): &(&'static str, Check)| {
        json!({
            "service": service, "check": check.name, "examined": check.examined, "found": check.found,
            "first": check.first,
        })
    };
    let items: Vec<Value> = checks.iter().map(row).collect();
    let found: u64 = checks.iter().map(|(_, check)| check.found).sum();
    output.list(&json!({ "items": items, "found": found }), COLUMNS, "nothing to look at")?;
    Ok(found == 0)
}

async fn all(asked: &Audit, services: &[Service], config: &Config) -> anyhow::Result<Vec<(&'static str, Check)>> {
    let log = match &config.process.kafka {
        Some(kafka) => Log::Kafka(kafka.clone()),
        None => Log::File(config.process.log_file()),
    };
    let mut checks = Vec::new();
    for service in services {
        let place = Place::of(&config.process.database, service.name);
        let reader = Reader::open(&place, service.name)?;
        let now = reader.now().await?;
        let to = asked.to.unwrap_or(now).min(now);
        let window = Window { from: asked.from.unwrap_or(to - WINDOW), to, now };
        anyhow::ensure!(window.from <= window.to, "--from {}: expected a moment before --to {to}", window.from);
        let mut of_service = ledger::checks(&reader, window).await?;
        of_service.extend(delivery::checks(&reader, window).await?);
        of_service.extend(topics::checks(&reader, service.name, &log, window).await?);
        checks.extend(of_service.into_iter().map(|check| (service.name, check)));
    }
    Ok(checks)
}

impl Audit {
    fn services(&self) -> crate::cli::Services {
        crate::cli::Services { services: self.service.clone(), data_dir: self.data_dir.clone() }
    }
}
