//! What a service tells the kit: its name, its settings, its jobs, its tables, and its doors.

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use database::Fault;
use futures_util::future::BoxFuture;
use scheduler::{
    Job, Kind,
    clock::Clock,
    config::{Invalid, JobSettings},
    store::sql::SqlStore,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};
use sea_orm_migration::MigratorTrait;
use utoipa_axum::router::OpenApiRouter;

use crate::{config::Section, database::Db};

/// A variable with its default and meaning, for `.env.example`, the documentation and the check for unknown names.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its default in words; empty: none.
    pub default: &'static str,
    /// Its meaning.
    pub meaning: &'static str,
    /// Never shown.
    pub secret: bool,
}

/// A job as the catalogue knows it.
#[derive(Debug, Clone, Copy)]
pub struct JobDef {
    /// The name operators see.
    pub name: &'static str,
    /// What its variables begin with.
    pub prefix: &'static str,
    /// What it does.
    pub description: &'static str,
    /// Its interval unless configured.
    pub every: Duration,
    /// Its promise.
    pub kind: Kind,
}

/// The tables of a service: bringing them up to date, and how many steps that would take.
#[derive(Clone, Copy)]
pub struct Tables {
    /// Brings them up to date.
    pub up: fn(&DatabaseConnection) -> BoxFuture<'_, Result<(), DbErr>>,
    /// Steps that are not done yet.
    pub pending: fn(&DatabaseConnection) -> BoxFuture<'_, Result<usize, Fault>>,
}

impl Tables {
    /// The tables that this migrator makes.
    pub const fn of<M: MigratorTrait + 'static>() -> Self {
        Self { up: |db| Box::pin(async move { M::up(db, None).await }), pending: |db| Box::pin(pending::<M>(db)) }
    }
}

/// The steps that are not done yet. Only reads: where even the list of steps is missing, all of them.
async fn pending<M: MigratorTrait>(db: &DatabaseConnection) -> Result<usize, Fault> {
    let text = format!("SELECT version FROM {}", M::migration_table_name());
    let done = match db.query_all_raw(Statement::from_string(db.get_database_backend(), text)).await {
        Ok(rows) => rows.iter().map(|row| row.try_get("", "version")).collect::<Result<HashSet<String>, DbErr>>()?,
        Err(error) => match Fault::from(error) {
            Fault::NotMigrated(_) => HashSet::new(),
            fault => return Err(fault),
        },
    };
    Ok(M::migrations().iter().filter(|step| !done.contains(step.name())).count())
}

/// Typed settings of a service, read before anything is touched.
pub type Settings = Arc<dyn Any + Send + Sync>;

/// A service, as its wiring describes it.
#[derive(Clone)]
pub struct Service {
    /// Folder, crate, binary, schema, consumer group and metric label.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Its public port when it runs alone; the admin port is 1000 higher.
    pub port: u16,
    /// Its own variables beside its jobs'.
    pub variables: &'static [Variable],
    /// Its jobs.
    pub jobs: &'static [JobDef],
    /// Its tables.
    pub tables: Tables,
    /// Reads its own variables.
    pub settings: fn(&Section) -> Result<Settings, Vec<Invalid>>,
    /// Which doors it has.
    pub doors: fn(&Setup) -> Doors,
}

/// What the wiring is given.
pub struct Setup {
    /// The service's rows.
    pub db: Db,
    /// The database's time.
    pub clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) jobs: HashMap<&'static str, JobSettings>,
}

impl Setup {
    /// The service's own settings, as the type its `settings` made. The default when it made another.
    pub fn settings<T: Clone + Default + 'static>(&self) -> T {
        self.settings.downcast_ref::<T>().cloned().unwrap_or_default()
    }

    /// The settings of one of the service's jobs.
    pub fn job(&self, name: &str) -> JobSettings {
        let none = || JobSettings { enabled: false, ..JobSettings::of(scheduler::schedule::Schedule::None) };
        self.jobs.get(name).cloned().unwrap_or_else(none)
    }
}

/// The doors of a service: what is not listed here does not run.
#[derive(Default)]
pub struct Doors {
    /// Its routes under `/api/{service}`.
    pub routes: OpenApiRouter,
    /// Its jobs.
    pub jobs: Vec<Job<SqlStore>>,
    /// What it hears.
    pub listeners: Vec<Arc<dyn inbox::Listen>>,
}
