//! The command line: names, arguments, exit codes.

use std::{path::PathBuf, process::ExitCode};

use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::{audit, client::Client, doctor, operate, output::Output, platform};

/// Something failed.
pub(crate) const FAILED: u8 = 1;
/// The command line cannot be understood.
pub(crate) const USAGE: u8 = 2;

/// Every service in one process, and the operator's command line.
#[derive(Debug, Parser)]
#[command(name = "belfry", version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    reach: Reach,
}

/// Where the platform is reached and how it answers.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// The admin listener
    #[arg(long, global = true, env = "BELFRY_URL", default_value = "http://127.0.0.1:9080")]
    pub(crate) url: String,
    /// The admin token
    #[arg(long, global = true, env = "BELFRY_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// One JSON document for machines (one a line for `events tail`)
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start every service in this process
    Up(Up),
    /// Bring the tables of every service up to date
    Migrate(Services),
    /// Print the effective configuration, secrets hidden
    Config(Services),
    /// Read ledgers, outboxes, inboxes and topics, and say what should not be; exit code 1 if anything
    Audit(Audit),
    /// Look at what the services run on, and say what would cost promises; exit code 1 if anything
    Doctor(Services),
    /// See and steer jobs
    #[command(subcommand)]
    Jobs(Jobs),
    /// See and replay events
    #[command(subcommand)]
    Events(Events),
    /// See and mend what waits to leave
    #[command(subcommand)]
    Outbox(Outbox),
    /// See and mend what could not be delivered or understood
    #[command(subcommand)]
    DeadLetters(DeadLetters),
}

#[derive(Debug, Args)]
pub(crate) struct Services {
    /// Only these services
    #[arg(long, value_delimiter = ',')]
    pub(crate) services: Vec<String>,
    /// Where embedded files live
    #[arg(long, default_value = "./data")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only these services
    #[arg(long, value_delimiter = ',')]
    pub(crate) service: Vec<String>,
    /// From this moment on (RFC 3339); without it, a day before --to
    #[arg(long)]
    pub(crate) from: Option<DateTime<Utc>>,
    /// Up to this moment (RFC 3339); without it, up to now
    #[arg(long)]
    pub(crate) to: Option<DateTime<Utc>>,
    /// Where embedded files live
    #[arg(long, default_value = "./data")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) services: Services,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Jobs {
    /// Every job: schedule, state, last run
    List,
    /// One job in full
    Show {
        /// Such as blog/post_publisher
        job: JobName,
    },
    /// Run now, on any replica that has it enabled
    Run {
        /// Such as blog/post_publisher
        job: JobName,
        /// The same key within 24 h is the same run
        #[arg(long)]
        key: Option<String>,
        /// Input of a job that takes one, as JSON
        #[arg(long)]
        input: Option<String>,
    },
    /// Stop tick, start, due and hint on all replicas
    Pause {
        /// Such as blog/post_publisher
        job: JobName,
        /// Why
        #[arg(long)]
        reason: String,
        /// Until when (RFC 3339)
        #[arg(long)]
        until: Option<DateTime<Utc>>,
    },
    /// Go on
    Resume {
        /// Such as blog/post_publisher
        job: JobName,
        /// Leave the instants of the pause out, or catch up
        #[arg(long, value_enum, default_value_t = From::Now)]
        from: From,
    },
    /// Run the instants of a range again
    Backfill {
        /// Such as blog/post_publisher
        job: JobName,
        /// First (RFC 3339)
        #[arg(long)]
        from: DateTime<Utc>,
        /// Last (RFC 3339)
        #[arg(long)]
        to: DateTime<Utc>,
    },
    /// Runs, newest first
    Runs {
        /// Such as blog/post_publisher
        job: JobName,
        #[command(flatten)]
        page: Page,
    },
    /// The next firings
    Plan {
        /// Such as blog/post_publisher
        job: JobName,
        /// How many
        #[arg(long, default_value_t = 10)]
        count: u16,
    },
    /// Why it did, did not, or will run at a moment
    Why {
        /// Such as blog/post_publisher
        job: JobName,
        /// The moment (RFC 3339)
        #[arg(long)]
        at: DateTime<Utc>,
    },
    /// Rows that were set aside
    Failures {
        /// Such as blog/post_publisher
        job: JobName,
        /// Make this row claimable again
        #[arg(long)]
        retry: Option<Uuid>,
        #[command(flatten)]
        page: Page,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Events as they arrive; ends with Ctrl-C, or when --max events were shown
    Tail {
        /// Only this type
        #[arg(long = "type")]
        event_type: Option<String>,
        /// Only this key
        #[arg(long)]
        key: Option<String>,
        /// From this moment on (RFC 3339); without it, from now on
        #[arg(long)]
        since: Option<DateTime<Utc>>,
        /// End after so many
        #[arg(long)]
        max: Option<u64>,
    },
    /// Send published events of a range again
    Replay {
        /// The service that said them
        #[arg(long)]
        service: String,
        /// First (RFC 3339)
        #[arg(long)]
        from: DateTime<Utc>,
        /// Last (RFC 3339)
        #[arg(long)]
        to: DateTime<Utc>,
        /// Only these types
        #[arg(long = "type")]
        types: Vec<String>,
        /// Also a range older than what consumers can tell apart
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Outbox {
    /// What waits
    List(Page),
    /// Try a key that is in back-off now
    Retry {
        /// The service
        service: String,
        /// The row's id
        id: Uuid,
    },
    /// Move a row to the dead letters
    Skip {
        /// The service
        service: String,
        /// The row's id
        id: Uuid,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// What could not be delivered or understood
    List(Page),
    /// Try it again
    Replay {
        /// The service
        service: String,
        /// The letter's id
        id: Uuid,
    },
    /// Give it up
    Discard {
        /// The service
        service: String,
        /// The letter's id
        id: Uuid,
    },
}

/// One page of a list.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// At most this many
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: u16,
    /// Where the page before ended
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

/// Where a resume takes up.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum From {
    /// From now on
    Now,
    /// The instants of the pause too
    #[value(name = "catch_up")]
    CatchUp,
}

/// A job with its service.
#[derive(Debug, Clone)]
pub(crate) struct JobName {
    pub(crate) service: String,
    pub(crate) job: String,
}

impl std::str::FromStr for JobName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain =
            |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        match text.split_once('/') {
            Some((service, job)) if plain(service) && plain(job) => {
                Ok(Self { service: service.to_owned(), job: job.to_owned() })
            }
            _ => Err("expected SERVICE/JOB, such as blog/post_publisher".to_owned()),
        }
    }
}

impl Cli {
    /// Does what was asked; the exit code.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Up(up) => platform::up(&up),
            Command::Migrate(services) => platform::migrate(&services),
            Command::Config(services) => platform::config(&services),
            Command::Audit(asked) => audit::audit(&asked, self.reach.json),
            Command::Doctor(services) => doctor::doctor(&services, self.reach.json),
            Command::Jobs(command) => {
                ask(&self.reach, |client, output| Box::pin(operate::jobs(client, output, command)))
            }
            Command::Events(command) => {
                ask(&self.reach, |client, output| Box::pin(operate::events(client, output, command)))
            }
            Command::Outbox(command) => {
                ask(&self.reach, |client, output| Box::pin(operate::outbox(client, output, command)))
            }
            Command::DeadLetters(command) => {
                ask(&self.reach, |client, output| Box::pin(operate::dead_letters(client, output, command)))
            }
        }
    }
}

type Work<'a> = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// Speaks to the admin listener on a small runtime of its own.
fn ask<F>(reach: &Reach, work: F) -> ExitCode
where
    F: for<'a> FnOnce(&'a Client, &'a Output) -> Work<'a>,
{
    let output = Output::new(reach.json);
    let done = (|| {
        let client = Client::new(&reach.url, reach.token.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work(&client, &output))
    })();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(FAILED)
        }
    }
}
