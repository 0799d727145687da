//! What the rows live in.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{ConnectionTrait, DatabaseConnection, QueryResult, Statement};
use service_kit::{
    Service,
    config::Config,
    database::{Place, Pool},
};

use super::{Finding, State, now, skew};

/// A replica that said nothing for so long is not there.
const SILENT: TimeDelta = TimeDelta::seconds(90);

/// Settings of PostgreSQL without which a commit may be lost.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("fsync", "on", "set fsync = on: without it a crash of the machine loses commits or the whole cluster"),
    (
        "synchronous_commit",
        "on",
        "set synchronous_commit = on (or remote_apply): without it a crash loses what was acknowledged",
    ),
    ("full_page_writes", "on", "set full_page_writes = on: without it a crash of the machine may tear pages"),
    ("default_transaction_read_only", "off", "let this role write: set default_transaction_read_only = off"),
];

async fn rows(db: &DatabaseConnection, text: &str) -> anyhow::Result<Vec<QueryResult>> {
    Ok(db.query_all_raw(Statement::from_string(db.get_database_backend(), text.to_owned())).await?)
}

/// The first column of the first row.
async fn word(db: &DatabaseConnection, text: &str) -> anyhow::Result<String> {
    let rows = rows(db, text).await?;
    let row = rows.first().ok_or_else(|| anyhow::anyhow!("no answer to {text}"))?;
    Ok(row.try_get_by_index(0)?)
}

pub(super) async fn look(services: &[Service], config: &Config) -> Vec<Finding> {
    let (mut findings, mut replicas) = (Vec::new(), 0);
    let mut server: Option<DatabaseConnection> = None;
    for service in services {
        let name = service.name;
        let place = Place::of(&config.process.database, name);
        if let Place::File(path) = &place {
            let found = file(&format!("{name}: file"), path).await;
            let readable = found.state == State::Well;
            findings.push(found);
            if !readable {
                continue;
            }
        }
        let db = match reader(&place, name) {
            Ok(db) => db,
            Err(error) => {
                findings.push(Finding::unknown(format!("{name}: database"), &error));
                continue;
            }
        };
        findings.push(migrations(service, &db).await);
        if let Place::Schema { .. } = place {
            replicas = replicas.max(living(&db).await.unwrap_or(0));
            server.get_or_insert(db);
        }
    }
    if let Some(db) = server {
        match postgres(&db, services.len(), replicas).await {
            Ok(of_server) => findings.extend(of_server),
            Err(error) => findings.push(Finding::unknown("database", &error)),
        }
    }
    findings
}

fn reader(place: &Place, name: &str) -> anyhow::Result<DatabaseConnection> {
    place.pool(name, Pool::Work).and_then(|db| place.reader(&db))
}

/// What SQLite says of a file when it looks through all of it.
pub(super) async fn file(check: &str, path: &Path) -> Finding {
    if !path.exists() {
        let what_to_do = "start the platform once; for more than one machine set DATABASE_URL and KAFKA_BROKERS";
        return Finding::unless(false, check, format!("there is no {}", path.display()), what_to_do);
    }
    let look = async { word(&reader(&Place::File(path.to_owned()), check)?, "PRAGMA quick_check(1)").await };
    let said = look.await.unwrap_or_else(|error| error.to_string());
    let found = if said == "ok" { path.display().to_string() } else { format!("{}: {said}", path.display()) };
    Finding::unless(said == "ok", check, found, "stop, keep the file, and restore a backup")
}

async fn migrations(service: &Service, db: &DatabaseConnection) -> Finding {
    let check = format!("{}: tables", service.name);
    match (service.tables.pending)(db).await {
        Ok(0) => Finding::well(check, "up to date"),
        Ok(steps) => Finding::unless(
            false,
            check,
            format!("{steps} steps are pending"),
            "run `belfry migrate`, or the service's own `migrate`, with the release that is to run",
        ),
        Err(fault) => Finding::unknown(check, &fault),
    }
}

/// Processes that said they live.
async fn living(db: &DatabaseConnection) -> anyhow::Result<i64> {
    let since = now() - SILENT;
    let text =
        format!("SELECT count(DISTINCT replica) AS living FROM job_replicas WHERE seen_at > '{}'", since.to_rfc3339());
    let rows = rows(db, &text).await?;
    Ok(rows.first().map(|row| row.try_get("", "living")).transpose()?.unwrap_or(0))
}

async fn postgres(db: &DatabaseConnection, services: usize, replicas: i64) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, wanted, what_to_do) in SETTINGS {
        let said = word(db, &format!("SELECT current_setting('{name}')")).await?;
        let safe = said == *wanted || (*name == "synchronous_commit" && said == "remote_apply");
        findings.push(Finding::unless(safe, format!("PostgreSQL: {name}"), said, what_to_do));
    }
    let before = now();
    let theirs = rows(db, "SELECT clock_timestamp() AS now").await?;
    let after = now();
    if let Some(row) = theirs.first() {
        findings.push(skew("the database", row.try_get::<DateTime<Utc>>("", "now")?, before, after));
    }
    let standby = word(db, "SELECT pg_is_in_recovery()::text").await?;
    let what_to_do = "point DATABASE_URL at the primary: a standby cannot be written to";
    findings.push(Finding::unless(standby == "false", "PostgreSQL: in recovery", standby, what_to_do));
    findings.push(connections(db, services, replicas).await?);
    Ok(findings)
}

/// Whether all pools of all processes fit, beside what else is connected.
async fn connections(db: &DatabaseConnection, services: usize, replicas: i64) -> anyhow::Result<Finding> {
    let number = async |text: &str| anyhow::Ok(word(db, text).await?.parse::<i64>()?);
    let max = number("SELECT current_setting('max_connections')").await?;
    let reserved = number("SELECT current_setting('superuser_reserved_connections')").await?;
    let others = number(
        "SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'client backend'
         AND application_name NOT LIKE 'belfry/%'",
    )
    .await?;
    let each = i64::from(Pool::Api.size() + Pool::Work.size() + Pool::Keep.size());
    let (services, processes) = (i64::try_from(services)?, replicas.max(1));
    // One process more, for a rolling deployment.
    let wanted = (services * each + 1) * (processes + 1) + others;
    Ok(Finding::unless(
        wanted <= max - reserved,
        "PostgreSQL: connections",
        format!(
            "{processes} processes and one more may open {wanted}, with {others} of others; {max} less {reserved} are allowed"
        ),
        "raise max_connections, or run fewer replicas: a process that finds none waits and is late",
    ))
}
