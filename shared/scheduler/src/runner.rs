//! The runner: what every kind shares. It decides, starts, watches, renews, recovers and stops.

mod dispatch;
mod due;
mod execution;
pub(crate) mod mail;
mod upkeep;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub(crate) use self::{execution::Executions, mail::Hints};
use crate::{
    body::{Body, Env},
    clock::Clock,
    control::{Control, Handle},
    job::{Entry, Index, Job, Scope},
    runner::dispatch::Dispatcher,
    store::{Store, memory::MemoryStore},
};

/// Runs that are remembered of each job of this replica alone,
const LOCAL_RUNS: usize = 20;
/// and about so many of all of them together, but of each its last.
const LOCAL_RUNS_OF_ALL: usize = 20_000;

/// The jobs of one service, ready to be started.
pub struct Scheduler<S: Store> {
    service: Arc<str>,
    replica: String,
    store: S,
    clock: Arc<dyn Clock>,
    work: Option<tokio::runtime::Handle>,
    work_threads: usize,
    hints: bool,
    ids: Arc<dyn Fn() -> Uuid + Send + Sync>,
    on_effect: Arc<dyn Fn() + Send + Sync>,
    jobs: Vec<Job<S>>,
}

impl<S: Store> Scheduler<S> {
    /// A scheduler for `service` on `store`.
    pub fn new(service: &str, store: S, clock: Arc<dyn Clock>) -> Self {
        let id = Uuid::now_v7().simple().to_string();
        Self {
            service: service.into(),
            replica: format!("{service}-{}-{}", std::process::id(), &id[24..]),
            store,
            clock,
            work: None,
            work_threads: 0,
            hints: true,
            ids: Arc::new(Uuid::now_v7),
            on_effect: Arc::new(|| {}),
            jobs: Vec::new(),
        }
    }

    /// The name of this replica in the ledgers; unique for each start of a process.
    #[must_use]
    pub fn replica(mut self, replica: &str) -> Self {
        replica.clone_into(&mut self.replica);
        self
    }

    /// The runtime on which jobs work, and how many threads it has. Without it they share the scheduler's own.
    #[must_use]
    pub fn work(mut self, work: tokio::runtime::Handle, threads: usize) -> Self {
        self.work = Some(work);
        self.work_threads = threads;
        self
    }

    /// Whether hints are acted on (they are; tests turn them off to show that they are only hints).
    #[must_use]
    pub fn hints(mut self, hints: bool) -> Self {
        self.hints = hints;
        self
    }

    /// Where ids come from; a seeded source makes a simulation repeatable.
    #[must_use]
    pub fn ids(mut self, ids: Arc<dyn Fn() -> Uuid + Send + Sync>) -> Self {
        self.ids = ids;
        self
    }

    /// What is called after each commit of a job's work.
    #[must_use]
    pub fn on_effect(mut self, on_effect: Arc<dyn Fn() + Send + Sync>) -> Self {
        self.on_effect = on_effect;
        self
    }

    /// Adds a job. The name must be unique in the service.
    #[must_use]
    pub fn job(mut self, job: Job<S>) -> Self {
        self.jobs.push(job);
        self
    }

    /// Adds jobs.
    #[must_use]
    pub fn jobs(mut self, jobs: impl IntoIterator<Item = Job<S>>) -> Self {
        self.jobs.extend(jobs);
        self
    }

    /// Starts the loops on the current runtime (the `keep` runtime of a service), which must have its timers and I/O enabled.
    pub fn start(self) -> Running<S> {
        let stop = CancellationToken::new();
        let give_back = CancellationToken::new();
        let tracker = TaskTracker::new();
        let work = self.work.clone().unwrap_or_else(tokio::runtime::Handle::current);
        let (mut cluster, mut local) = (Vec::new(), Vec::new());
        for job in self.jobs {
            let Job { name, description, settings, timeout, scope } = job;
            match scope {
                Scope::Cluster(body) => cluster.push(Entry { name: name.into(), description, settings, timeout, body }),
                Scope::Replica(body) => {
                    let body: Arc<dyn Body<MemoryStore>> = body;
                    local.push(Entry { name: name.into(), description, settings, timeout, body });
                }
            }
        }
        let shared = Shared {
            service: self.service,
            replica: self.replica,
            clock: self.clock,
            ids: self.ids,
            on_effect: self.on_effect,
            work,
            work_threads: self.work_threads,
            hints: self.hints,
            stop,
            give_back,
            tracker,
        };
        let each = (LOCAL_RUNS_OF_ALL / local.len().max(1)).clamp(1, LOCAL_RUNS);
        let memory = MemoryStore::brief(Arc::clone(&shared.clock), each);
        let cluster = shared.start(self.store, cluster, false);
        let local = shared.start(memory, local, true);
        Running { handle: Handle::new(cluster, local), shared }
    }
}

/// What the loops of the cluster's jobs and of this replica's jobs share.
struct Shared {
    service: Arc<str>,
    replica: String,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Fn() -> Uuid + Send + Sync>,
    on_effect: Arc<dyn Fn() + Send + Sync>,
    work: tokio::runtime::Handle,
    work_threads: usize,
    hints: bool,
    stop: CancellationToken,
    give_back: CancellationToken,
    tracker: TaskTracker,
}

impl Shared {
    fn start<T: Store>(&self, store: T, jobs: Vec<Entry<T>>, private: bool) -> Arc<Control<T>> {
        let env = Arc::new(Env {
            store,
            clock: Arc::clone(&self.clock),
            service: Arc::clone(&self.service),
            replica: self.replica.clone(),
            ids: Arc::clone(&self.ids),
            on_effect: Arc::clone(&self.on_effect),
            work: self.work.clone(),
            private,
            stop: self.stop.clone(),
            give_back: self.give_back.clone(),
        });
        let index: Index = Arc::new(jobs.iter().enumerate().map(|(at, job)| (Arc::clone(&job.name), at)).collect());
        let jobs = Arc::new(jobs);
        let hints = Arc::new(Hints::new(jobs.len()));
        let (mail, inbox) = mpsc::unbounded_channel();
        let executions = Arc::new(Executions::new(
            Arc::clone(&env),
            Arc::clone(&jobs),
            mail.clone(),
            self.tracker.clone(),
            self.work_threads,
        ));
        let control = Arc::new(Control {
            env: Arc::clone(&env),
            jobs: Arc::clone(&jobs),
            index: Arc::clone(&index),
            hints: Arc::clone(&hints),
            executions: Arc::clone(&executions),
        });
        if !jobs.is_empty() {
            self.tracker.spawn(mail::listen(Arc::clone(&env), Arc::clone(&index), Arc::clone(&hints), self.hints));
            self.tracker.spawn(upkeep::renewals(Arc::clone(&env), Arc::clone(&jobs), Arc::clone(&executions)));
            let dispatcher =
                Dispatcher::new(env, jobs, index, hints, executions, mail, inbox, self.tracker.clone(), self.hints);
            self.tracker.spawn(dispatcher.run());
        }
        control
    }
}

/// A scheduler that runs.
pub struct Running<S: Store> {
    handle: Handle<S>,
    shared: Shared,
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything in hand was finished or given back.
    Cleanly,
    /// The grace ended first; what was in hand is recovered by others.
    Abandoned,
}

impl<S: Store> Running<S> {
    /// The operator's side of it.
    pub fn handle(&self) -> Handle<S> {
        self.handle.clone()
    }

    /// Resolves when the process cannot do its work any more (all work threads are stuck): it should exit 1.
    pub async fn exhausted(&self) {
        self.handle.exhausted().await;
    }

    /// Stops: no new work; rows in hand are finished, runs given back; asks get until 5 s before the end of `grace`.
    pub async fn stop(self, grace: Duration) -> Stopped {
        self.shared.stop.cancel();
        self.shared.tracker.close();
        let clock = Arc::clone(&self.shared.clock);
        let began = clock.monotonic();
        let patience =
            if grace > Duration::from_secs(10) { grace.saturating_sub(Duration::from_secs(5)) } else { grace / 2 };
        tokio::select! {
            biased;
            () = self.shared.tracker.wait() => return Stopped::Cleanly,
            () = clock.sleep_until(began + patience) => self.shared.give_back.cancel(),
        }
        tokio::select! {
            biased;
            () = self.shared.tracker.wait() => Stopped::Cleanly,
            () = clock.sleep_until(began + grace) => Stopped::Abandoned,
        }
    }
}
