//! The command line of a single service: serve, migrate, config, healthcheck.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{self, Config, Start},
    kit::{self, Options},
    service::Service,
};

/// Something failed.
pub const EXIT_FAILED: u8 = 1;
/// The command line cannot be understood.
pub const EXIT_USAGE: u8 = 2;
/// The configuration cannot be used.
pub const EXIT_CONFIG: u8 = 78;

#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service until Ctrl-C or SIGTERM
    Serve(Embedded),
    /// Bring the service's tables up to date
    Migrate(Embedded),
    /// Print the effective configuration, secrets hidden
    Config(Embedded),
    /// Ask a running service whether it is well; exit code 0 or 1
    Healthcheck,
}

#[derive(Debug, Args)]
struct Embedded {
    /// SQLite and the embedded event log where DATABASE_URL and KAFKA_BROKERS are not set
    #[arg(long)]
    embedded: bool,
    /// Where embedded files live
    #[arg(long, default_value = "./data")]
    data_dir: PathBuf,
}

/// Tells a person what went wrong.
pub fn complain(error: &dyn std::fmt::Display) {
    #[expect(clippy::print_stderr, reason = "a command tells people what went wrong")]
    {
        eprintln!("error: {error}");
    }
}

/// Tells a person something.
pub fn say(text: &str) {
    #[expect(clippy::print_stdout, reason = "a command answers on its output")]
    {
        println!("{text}");
    }
}

/// The whole of a service's `main`.
pub fn main(service: Service) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            return match error.print() {
                Ok(()) if !usage => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_USAGE),
            };
        }
    };
    let start =
        |embedded: Embedded| Start { embedded: embedded.embedded, data_dir: embedded.data_dir, port: service.port };
    match cli.command {
        Command::Serve(embedded) => {
            let options = Options { name: service.name, start: start(embedded) };
            kit::up(vec![service], options)
        }
        Command::Migrate(embedded) => migrate(std::slice::from_ref(&service), &start(embedded)),
        Command::Config(embedded) => show(std::slice::from_ref(&service), &start(embedded)),
        Command::Healthcheck => healthcheck(service.port + 1000),
    }
}

/// Brings the tables of services up to date.
pub fn migrate(services: &[Service], start: &Start) -> ExitCode {
    // Migrating needs no broker.
    let mut vars = config::environment();
    vars.entry("KAFKA_BROKERS".to_owned()).or_insert_with(|| "localhost:9092".to_owned());
    let config = match Config::read(vars, services, start) {
        Ok(config) => config,
        Err(refused) => {
            complain(&refused);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let done = (|| {
        let telemetry = crate::telemetry::begin(&config.process, "migrate")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(kit::migrate_all(services, &config));
        telemetry.end();
        done
    })();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Prints what is in force.
pub fn show(services: &[Service], start: &Start) -> ExitCode {
    match Config::read(config::environment(), services, start) {
        Ok(config) => {
            say(config::effective(&config, services).trim_end());
            ExitCode::SUCCESS
        }
        Err(refused) => {
            complain(&refused);
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Asks `/healthz` of the process that runs with this environment.
fn healthcheck(admin_port: u16) -> ExitCode {
    crate::install_tls_provider();
    let address = config::environment().remove("ADMIN_ADDR").filter(|address| !address.is_empty());
    let address = address.unwrap_or_else(|| format!("127.0.0.1:{admin_port}"));
    let reached = address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    let asked = (|| -> anyhow::Result<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(3)).build()?;
        // Timers of a request belong to the runtime it is made on.
        let answer = runtime.block_on(async { http.get(format!("http://{reached}/healthz")).send().await })?;
        Ok(answer.status().is_success())
    })();
    match asked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            complain(&format!("{reached} does not answer: {error:#}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}
