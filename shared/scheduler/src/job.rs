//! A job as the wiring gives it to the scheduler: name, settings, and the kind that is its promise.

use std::{collections::HashMap, marker::PhantomData, sync::Arc, time::Duration};

use crate::{
    body::{Body, Kind},
    claim::ClaimBody,
    config::JobSettings,
    kinds::{Claim, Lease, Local, Steps, Tick},
    lease::LeaseBody,
    local::LocalBody,
    policy,
    steps::StepsBody,
    store::Store,
    tick::TickBody,
};

/// A job of one service.
pub struct Job<S: Store> {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) settings: JobSettings,
    pub(crate) timeout: Duration,
    pub(crate) scope: Scope<S>,
}

/// Where a job's ledger lives.
pub(crate) enum Scope<S: Store> {
    /// In the store: one run in the whole cluster.
    Cluster(Arc<dyn Body<S>>),
    /// In this process: a run on every replica.
    Replica(Arc<LocalBody>),
}

impl<S: Store> Job<S> {
    fn cluster<B: Body<S>>(
        name: &str,
        description: &str,
        settings: JobSettings,
        body: impl FnOnce(Duration) -> B,
    ) -> Self {
        let timeout = settings.timeout.unwrap_or_else(|| policy::default_timeout(&settings.spec));
        Self {
            name: name.to_owned(),
            description: description.to_owned(),
            settings,
            timeout,
            scope: Scope::Cluster(Arc::new(body(timeout))),
        }
    }

    /// One run for each nominal instant in the whole cluster.
    pub fn tick(name: &str, description: &str, settings: JobSettings, job: impl Tick<S::Tx>) -> Self {
        Self::cluster(name, description, settings, |timeout| TickBody::<S> { job: Arc::new(job), timeout })
    }

    /// Each due row once, with its events, in one transaction.
    pub fn claim<J: Claim<S::Tx>>(name: &str, description: &str, settings: JobSettings, job: J) -> Self {
        Self::cluster(name, description, settings, |timeout| {
            ClaimBody::<S, J::Row>::new(name.to_owned(), Arc::new(job), timeout)
        })
    }

    /// Due rows, each asked about without a transaction and settled fenced.
    pub fn lease<J: Lease<S::Tx>>(name: &str, description: &str, settings: JobSettings, job: J) -> Self {
        Self::cluster(name, description, settings, |timeout| LeaseBody::<S, J>::new(name.to_owned(), job, timeout))
    }

    /// One long run with a checkpoint.
    pub fn steps<J: Steps<S::Tx>>(name: &str, description: &str, settings: JobSettings, job: J) -> Self {
        Self::cluster(name, description, settings, |timeout| StepsBody::<S, J> {
            job: Arc::new(job),
            timeout,
            store: PhantomData,
        })
    }

    /// On every replica, on memory only.
    pub fn local(name: &str, description: &str, settings: JobSettings, job: impl Local) -> Self {
        let timeout = settings.timeout.unwrap_or_else(|| policy::default_timeout(&settings.spec));
        let scope = Scope::Replica(Arc::new(LocalBody { job: Arc::new(job) }));
        Self { name: name.to_owned(), description: description.to_owned(), settings, timeout, scope }
    }

    /// The name operators see.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Where a job is among the others, by its name.
pub(crate) type Index = Arc<HashMap<Arc<str>, usize>>;

/// A job inside the runner.
pub(crate) struct Entry<S: Store> {
    pub(crate) name: Arc<str>,
    pub(crate) description: String,
    pub(crate) settings: JobSettings,
    pub(crate) timeout: Duration,
    pub(crate) body: Arc<dyn Body<S>>,
}

impl<S: Store> Entry<S> {
    pub(crate) fn kind(&self) -> Kind {
        self.body.kind()
    }

    /// Whether a dead owner's run goes on in the same row.
    pub(crate) fn resumes(&self) -> bool {
        matches!(self.kind(), Kind::Tick | Kind::Steps | Kind::Local)
    }

    /// Whether its due rows wake the runner.
    pub(crate) fn due_aware(&self) -> bool {
        self.body.wakes_when_due()
    }
}
