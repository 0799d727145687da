//! The variables of a process, whatever services it runs.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use broker::KafkaConfig;
use scheduler::config::Invalid;

use super::Secret;
use crate::service::Variable;

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning, secret: false }
}

const fn secret(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default: "", meaning, secret: true }
}

/// Every variable of a process.
pub const PROCESS_VARIABLES: &[Variable] = &[
    secret("DATABASE_URL", "postgres://user:password@host/database (each service in its own schema) or sqlite://file"),
    variable("KAFKA_BROKERS", "", "host:port, comma-separated; without it events stay in the embedded log"),
    variable("KAFKA_SECURITY_PROTOCOL", "", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
    variable("KAFKA_SASL_MECHANISM", "", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
    variable("KAFKA_SASL_USERNAME", "", "the Kafka user"),
    secret("KAFKA_SASL_PASSWORD", "the Kafka password"),
    variable("HTTP_ADDR", "127.0.0.1:8080 (belfry), the service's port alone", "where the public API listens"),
    variable(
        "ADMIN_ADDR",
        "127.0.0.1:9080 (belfry), the service's port + 1000 alone",
        "where health, metrics and jobs listen",
    ),
    secret("ADMIN_TOKEN", "bearer token of the admin API; needed where it does not listen on loopback"),
    variable("AUTH_ENABLED", "false", "whether changes through the public API need a token of Keycloak"),
    variable("KEYCLOAK_URL", "", "where Keycloak is, such as https://id.example.org"),
    variable("KEYCLOAK_REALM", "", "its realm"),
    variable("KEYCLOAK_CLIENT_ID", "", "the audience a token must name"),
    variable("SHUTDOWN_GRACE", "25s", "how long a stop may take before what is in hand is dropped"),
    variable("LOG_FORMAT", "human", "human or json"),
    variable("RUST_LOG", "info", "which log lines are shown, such as debug or info,scheduler=debug"),
    variable("RATE_LIMIT_RPS", "0", "requests a second that one caller may make; 0: no limit"),
    variable("OTEL_EXPORTER_OTLP_ENDPOINT", "", "where traces are sent (OTLP over HTTP); without it nowhere"),
];

/// How the process was started.
#[derive(Debug, Clone)]
pub struct Start {
    /// SQLite and the embedded log where nothing else is configured.
    pub embedded: bool,
    /// Where embedded files live.
    pub data_dir: PathBuf,
    /// The default public port; the admin port is 1000 higher.
    pub port: u16,
}

/// Which database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// PostgreSQL; every service lives in the schema of its name.
    Postgres(Secret),
    /// One SQLite file, for a single service.
    SqliteFile(PathBuf),
    /// A SQLite file for each service in a folder.
    SqliteFolder(PathBuf),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// For machines.
    Json,
}

/// Keycloak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// `{url}/realms/{realm}`.
    pub issuer: String,
    /// The audience a token must name.
    pub client_id: String,
}

/// What is the process's.
#[derive(Debug, Clone)]
pub struct Process {
    /// Where rows are.
    pub database: DatabaseUrl,
    /// Where events travel; `None`: the embedded log.
    pub kafka: Option<KafkaConfig>,
    /// Where embedded files live.
    pub data_dir: PathBuf,
    /// The public API.
    pub http_addr: SocketAddr,
    /// The admin API.
    pub admin_addr: SocketAddr,
    /// Its token.
    pub admin_token: Option<Secret>,
    /// Whether changes through the public API need a token.
    pub auth_enabled: bool,
    /// Said explicitly: an open API on a public address, warned about at each start.
    pub open_to_all: bool,
    /// Keycloak, where it is configured.
    pub auth: Option<Auth>,
    /// How long a stop may take.
    pub grace: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are shown.
    pub log_filter: String,
    /// Requests a second that one caller may make; 0: no limit.
    pub rate_limit_rps: u32,
    /// Where traces are sent.
    pub otlp_endpoint: Option<String>,
}

/// The variables, taken one by one, with all that is wrong with them.
struct Taking<'a> {
    vars: &'a mut BTreeMap<String, String>,
    wrong: Vec<Invalid>,
}

impl Taking<'_> {
    /// A variable; an empty value is as good as none.
    fn text(&mut self, name: &str) -> Option<String> {
        self.vars.remove(name).filter(|value| !value.is_empty())
    }

    fn refuse(&mut self, name: &str, value: &str, expected: impl Into<String>) {
        let hidden = PROCESS_VARIABLES.iter().any(|variable| variable.name == name && variable.secret);
        let value = if hidden && !value.is_empty() { "(hidden)" } else { value };
        self.wrong.push(Invalid { variable: name.to_owned(), value: value.to_owned(), expected: expected.into() });
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.text(name)?;
        let flag = value.parse().ok();
        if flag.is_none() {
            self.refuse(name, &value, "true or false");
        }
        flag
    }

    fn address(&mut self, name: &str, default: SocketAddr) -> SocketAddr {
        let Some(value) = self.text(name) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.refuse(name, &value, "an address and a port, such as 127.0.0.1:8080 or 0.0.0.0:8080");
            default
        })
    }

    fn word(&mut self, name: &str, words: &[&str]) -> Option<String> {
        let value = self.text(name)?;
        if words.contains(&value.as_str()) {
            return Some(value);
        }
        self.refuse(name, &value, format!("one of {}", words.join(", ")));
        None
    }
}

impl Process {
    /// The embedded log, which is used where Kafka is not.
    pub fn log_file(&self) -> PathBuf {
        self.data_dir.join("log.sqlite")
    }

    pub(super) fn read(vars: &mut BTreeMap<String, String>, start: &Start) -> Result<Self, Vec<Invalid>> {
        let mut taking = Taking { vars, wrong: Vec::new() };
        let database = database(&mut taking, start);
        let kafka = kafka(&mut taking, start);
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let http_addr = taking.address("HTTP_ADDR", loopback(start.port));
        let admin_addr = taking.address("ADMIN_ADDR", loopback(start.port + 1000));
        let admin_token = taking.text("ADMIN_TOKEN").map(Secret::new);
        let said = taking.flag("AUTH_ENABLED");
        let auth = auth(&mut taking, said == Some(true));
        if !http_addr.ip().is_loopback() && said.is_none() {
            let expected = "true or false, said explicitly where HTTP_ADDR is not loopback: false opens the API to all";
            taking.refuse("AUTH_ENABLED", "", expected);
        }
        if !admin_addr.ip().is_loopback() && admin_token.is_none() && auth.is_none() {
            taking.refuse("ADMIN_TOKEN", "", "a token (or Keycloak) where ADMIN_ADDR is not loopback");
        }
        let grace = grace(&mut taking);
        let log_format = match taking.word("LOG_FORMAT", &["human", "json"]).as_deref() {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Human,
        };
        let log_filter = taking.text("RUST_LOG").unwrap_or_else(|| "info".to_owned());
        if let Err(error) = log_filter.parse::<tracing_subscriber::filter::Targets>() {
            taking.refuse("RUST_LOG", &log_filter, format!("levels such as info or info,scheduler=debug ({error})"));
        }
        let rate_limit_rps = rate_limit(&mut taking);
        let otlp_endpoint = taking.text("OTEL_EXPORTER_OTLP_ENDPOINT");
        match database {
            Some(database) if taking.wrong.is_empty() => Ok(Self {
                database,
                kafka,
                data_dir: start.data_dir.clone(),
                http_addr,
                admin_addr,
                admin_token,
                auth_enabled: said == Some(true),
                open_to_all: !http_addr.ip().is_loopback() && said == Some(false),
                auth,
                grace,
                log_format,
                log_filter,
                rate_limit_rps,
                otlp_endpoint,
            }),
            _ => Err(taking.wrong),
        }
    }
}

fn database(taking: &mut Taking<'_>, start: &Start) -> Option<DatabaseUrl> {
    let expected = "postgres://user:password@host/database or sqlite://file";
    match taking.text("DATABASE_URL") {
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            if let Err(error) = url.parse::<sqlx::postgres::PgConnectOptions>() {
                // The error may quote the URL, and with it the password.
                tracing::debug!(kind = ?std::mem::discriminant(&error), "DATABASE_URL cannot be read");
                taking.refuse("DATABASE_URL", &url, expected);
                return None;
            }
            Some(DatabaseUrl::Postgres(Secret::new(url)))
        }
        Some(url) => match url.strip_prefix("sqlite://") {
            Some(file) if !file.is_empty() => {
                Some(DatabaseUrl::SqliteFile(Path::new(file.split('?').next().unwrap_or(file)).to_owned()))
            }
            _ => {
                taking.refuse("DATABASE_URL", &url, expected);
                None
            }
        },
        None if start.embedded => Some(DatabaseUrl::SqliteFolder(start.data_dir.clone())),
        None => {
            taking.refuse("DATABASE_URL", "", format!("{expected}; or start with --embedded"));
            None
        }
    }
}

fn kafka(taking: &mut Taking<'_>, start: &Start) -> Option<KafkaConfig> {
    let brokers = taking.text("KAFKA_BROKERS");
    let protocols = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
    let security_protocol = taking.word("KAFKA_SECURITY_PROTOCOL", &protocols);
    let sasl_mechanism = taking.word("KAFKA_SASL_MECHANISM", &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]);
    let sasl_username = taking.text("KAFKA_SASL_USERNAME");
    let sasl_password = taking.text("KAFKA_SASL_PASSWORD");
    let Some(brokers) = brokers else {
        if !start.embedded {
            taking.refuse("KAFKA_BROKERS", "", "host:port, comma-separated; or start with --embedded");
        }
        return None;
    };
    let broker = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if !brokers.split(',').all(|one| broker(one.trim())) {
        taking.refuse("KAFKA_BROKERS", &brokers, "host:port, comma-separated");
    }
    Some(KafkaConfig { brokers, security_protocol, sasl_mechanism, sasl_username, sasl_password })
}

fn auth(taking: &mut Taking<'_>, needed: bool) -> Option<Auth> {
    let url = taking.text("KEYCLOAK_URL");
    let realm = taking.text("KEYCLOAK_REALM");
    let client_id = taking.text("KEYCLOAK_CLIENT_ID");
    if let Some(url) = &url {
        let loopback = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
        if !(url.starts_with("https://") || loopback.iter().any(|start| url.starts_with(start))) {
            taking.refuse("KEYCLOAK_URL", url, "an https:// address (http:// on loopback only)");
        }
    }
    match (url, realm, client_id) {
        (Some(url), Some(realm), Some(client_id)) => {
            Some(Auth { issuer: format!("{}/realms/{realm}", url.trim_end_matches('/')), client_id })
        }
        (None, None, None) if !needed => None,
        (url, realm, client_id) => {
            let missing = [("KEYCLOAK_URL", url), ("KEYCLOAK_REALM", realm), ("KEYCLOAK_CLIENT_ID", client_id)];
            for (name, _) in missing.iter().filter(|(_, value)| value.is_none()) {
                taking.refuse(name, "", "a value: Keycloak needs KEYCLOAK_URL, KEYCLOAK_REALM and KEYCLOAK_CLIENT_ID");
            }
            None
        }
    }
}

fn grace(taking: &mut Taking<'_>) -> Duration {
    let default = Duration::from_secs(25);
    let Some(value) = taking.text("SHUTDOWN_GRACE") else { return default };
    match humantime::parse_duration(&value) {
        Ok(grace) if grace >= Duration::from_secs(1) && grace <= Duration::from_secs(3600) => grace,
        _ => {
            taking.refuse("SHUTDOWN_GRACE", &value, "a duration from 1s to 1h, such as 25s");
            default
        }
    }
}

fn rate_limit(taking: &mut Taking<'_>) -> u32 {
    let Some(value) = taking.text("RATE_LIMIT_RPS") else { return 0 };
    value.parse().unwrap_or_else(|_| {
        taking.refuse("RATE_LIMIT_RPS", &value, "a whole number of requests a second; 0: no limit");
        0
    })
}
