//! The operator's side of the scheduler: list, why, plan, run, pause, resume, backfill, set-aside rows.

mod view;

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

pub use self::view::{JobView, PauseView, Replicas, RunView, ScheduleView};
use crate::{
    Instant, StoreError,
    body::{Env, Kind},
    job::{Entry, Index},
    ledger::{FailureRow, NewRun, Outcome, Pause, RunRow, ScheduleRow, Wake},
    policy::{self, Planned, ResumeFrom, Why},
    runner::{Executions, Hints, mail},
    store::{Enqueued, Nudge, RunPage, Store, memory::MemoryStore},
};

/// Operators' runs that may wait at once.
const MANUAL_WAITING: u64 = 10;
/// Instants that one backfill may ask for.
pub const BACKFILL_MAX: usize = 1_000;
/// A replica that was not seen for so long does not live.
const LIVE: std::time::Duration = std::time::Duration::from_secs(90);

/// Why an operator's wish is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such job.
    #[error("there is no job {0:?}")]
    UnknownJob(String),
    /// There is no such row.
    #[error("there is no such row")]
    UnknownRow,
    /// It does not fit the job or its present state.
    #[error("{0}")]
    Conflict(String),
    /// What was given cannot be used: the field, and what was expected.
    #[error("{field}: {expected}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What was expected.
        expected: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The operator's side of one store's jobs.
pub(crate) struct Control<S: Store> {
    pub(crate) env: Arc<Env<S>>,
    pub(crate) jobs: Arc<Vec<Entry<S>>>,
    pub(crate) index: Index,
    pub(crate) hints: Arc<Hints>,
    pub(crate) executions: Arc<Executions<S>>,
}

/// The operator's side of a scheduler. Cheap to clone.
pub struct Handle<S: Store> {
    cluster: Arc<Control<S>>,
    local: Arc<Control<MemoryStore>>,
}

impl<S: Store> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self { cluster: Arc::clone(&self.cluster), local: Arc::clone(&self.local) }
    }
}

/// Sends a call to the control that has the job.
macro_rules! on_job {
    ($self:ident, $name:expr, |$control:ident, $job:ident| $call:expr) => {{
        if let Some($job) = $self.cluster.index.get($name).copied() {
            let $control = &$self.cluster;
            $call
        } else if let Some($job) = $self.local.index.get($name).copied() {
            let $control = &$self.local;
            $call
        } else {
            Err(Refused::UnknownJob($name.to_owned()))
        }
    }};
}

impl<S: Store> Handle<S> {
    pub(crate) fn new(cluster: Arc<Control<S>>, local: Arc<Control<MemoryStore>>) -> Self {
        Self { cluster, local }
    }

    /// Something was committed in this process that may have made rows due. Only a hint: losing it costs lateness.
    pub fn changed(&self) {
        self.cluster.hints.give_all(mail::CHANGED);
    }

    /// Resolves when all work threads are stuck.
    pub(crate) async fn exhausted(&self) {
        tokio::select! {
            biased;
            () = self.cluster.executions.exhausted() => {}
            () = self.local.executions.exhausted() => {}
        }
    }

    /// Every job, in the order of the wiring.
    pub async fn jobs(&self) -> Result<Vec<JobView>, Refused> {
        let mut jobs = self.cluster.views(None).await?;
        jobs.extend(self.local.views(None).await?);
        Ok(jobs)
    }

    /// One job.
    pub async fn job(&self, name: &str) -> Result<JobView, Refused> {
        on_job!(self, name, |control, job| control.view(job).await)
    }

    /// A page of a job's runs, newest first, before the run `before` (exclusive).
    pub async fn runs(
        &self,
        name: &str,
        before: Option<Uuid>,
        outcomes: Vec<Outcome>,
        limit: u64,
    ) -> Result<Vec<RunView>, Refused> {
        let page = RunPage { job: name.to_owned(), before, outcomes, limit };
        on_job!(self, name, |control, _job| {
            Ok(control.env.store.runs(&page).await?.into_iter().map(RunView::from).collect())
        })
    }

    /// The next `count` firings.
    pub async fn plan(&self, name: &str, count: usize) -> Result<Vec<Planned>, Refused> {
        on_job!(self, name, |control, job| {
            let row = control.row(job).await?;
            Ok(if row.pause.is_some() { Vec::new() } else { policy::plan(&row, control.env.clock.now(), count) })
        })
    }

    /// Why the job did, did not, or will run at the latest instant at or before `at`.
    pub async fn why(&self, name: &str, at: Instant) -> Result<Why, Refused> {
        on_job!(self, name, |control, job| {
            let row = control.row(job).await?;
            let run = control.env.store.run_at(name, at).await?;
            Ok(policy::why(&row, at, run.as_ref(), control.env.clock.now()))
        })
    }

    /// Queues a run; any enabled replica takes it. The same key within 24 h is the same run.
    pub async fn run(&self, name: &str, key: Option<&str>, input: Option<Value>) -> Result<RunView, Refused> {
        on_job!(self, name, |control, job| control.enqueue(job, key, input).await)
    }

    /// Pauses tick, start, due and hint on all replicas; a run that is going ends by itself.
    pub async fn pause(&self, name: &str, by: &str, reason: &str, until: Option<Instant>) -> Result<JobView, Refused> {
        on_job!(self, name, |control, job| {
            let at = control.env.clock.now();
            if until.is_some_and(|until| until <= at) {
                return Err(Refused::Invalid { field: "until", expected: "a time in the future".to_owned() });
            }
            let pause = Pause { at, by: by.to_owned(), reason: crate::ledger::hostile(reason), until };
            control.env.store.pause(name, &pause).await?;
            control.tell(job).await;
            control.view(job).await
        })
    }

    /// Resumes; Claim and Lease jobs make a pass at once.
    pub async fn resume(&self, name: &str, from: ResumeFrom) -> Result<JobView, Refused> {
        on_job!(self, name, |control, job| {
            control.resume(job, from).await?;
            control.tell(job).await;
            control.view(job).await
        })
    }

    /// Queues a run for each instant in `[from, to]`, also for those that ran.
    pub async fn backfill(&self, name: &str, from: Instant, to: Instant) -> Result<Vec<RunView>, Refused> {
        on_job!(self, name, |control, job| control.backfill(job, from, to).await)
    }

    /// Rows set aside, newest first, after `after` (exclusive).
    pub async fn failures(&self, name: &str, after: Option<Uuid>, limit: u64) -> Result<Vec<FailureRow>, Refused> {
        on_job!(self, name, |control, _job| Ok(control.env.store.failures(name, after, limit).await?))
    }

    /// Makes a row that was set aside claimable again.
    pub async fn retry_failure(&self, name: &str, row_id: Uuid) -> Result<(), Refused> {
        on_job!(self, name, |control, job| {
            if !control.env.store.retry_failure(name, row_id).await? {
                return Err(Refused::UnknownRow);
            }
            control.hints.give(job, mail::CHANGED);
            Ok(())
        })
    }
}

impl<S: Store> Control<S> {
    async fn row(&self, job: usize) -> Result<ScheduleRow, Refused> {
        let name = &self.jobs[job].name;
        let rows = self.env.store.schedules(&[name.to_string()]).await?;
        rows.into_iter()
            .next()
            .ok_or_else(|| StoreError::Unavailable(format!("job {name:?} has not announced itself yet")).into())
    }

    /// Tells this process and the others that the job's row or queue changed.
    async fn tell(&self, job: usize) {
        self.hints.give(job, mail::LOOK | mail::CHANGED);
        let (job, by) = (self.jobs[job].name.to_string(), self.env.replica.clone());
        let nudge = Nudge { job, due: None, by };
        if let Err(error) = self.env.store.nudge(&nudge).await {
            tracing::debug!(job = %nudge.job, %error, "other replicas were not told; they look every 5 s");
        }
    }

    /// Whether some live replica runs the job; a run asked for where none does would wait for ever.
    async fn enabled_somewhere(&self, job: usize) -> Result<bool, Refused> {
        if self.jobs[job].settings.enabled {
            return Ok(true);
        }
        Ok(self.live(&self.jobs[job].name).await?.iter().any(|(enabled, _)| *enabled))
    }

    /// The live replicas of a job: enabled, digest of their spec.
    async fn live(&self, name: &str) -> Result<Vec<(bool, String)>, Refused> {
        let now = self.env.clock.now();
        let rows = self.env.store.replicas(name).await?;
        let live = rows.into_iter().filter(|row| (now - row.seen_at).to_std().unwrap_or_default() < LIVE);
        Ok(live.map(|row| (row.enabled, row.spec_hash)).collect())
    }

    fn new_run(&self, run_key: String, wake: Wake, nominal_at: Option<Instant>, input: Option<Value>) -> NewRun {
        let now = self.env.clock.now();
        NewRun {
            id: (self.env.ids)(),
            run_key,
            wake,
            nominal_at,
            nominal_until: None,
            instants: 1,
            fire_at: nominal_at.unwrap_or(now),
            outcome: None,
            reason: None,
            into_run: None,
            input,
        }
    }

    async fn enqueue(&self, job: usize, key: Option<&str>, input: Option<Value>) -> Result<RunView, Refused> {
        let entry = &self.jobs[job];
        if !self.enabled_somewhere(job).await? {
            return Err(Refused::Conflict(format!("no live replica has job {:?} enabled", entry.name)));
        }
        if input.is_some() && entry.kind() != Kind::Steps {
            return Err(Refused::Invalid { field: "input", expected: "nothing: this job takes no input".to_owned() });
        }
        let key = key.map_or_else(|| (self.env.ids)().to_string(), str::to_owned);
        let run = self.new_run(format!("manual:{key}"), Wake::Manual, None, input);
        match self.env.store.enqueue(&entry.name, run, MANUAL_WAITING).await? {
            Enqueued::New(row) => {
                self.tell(job).await;
                Ok(row.into())
            }
            Enqueued::Existing(row) => Ok(row.into()),
            Enqueued::Full => Err(Refused::Conflict(format!("{MANUAL_WAITING} runs wait already"))),
        }
    }

    async fn resume(&self, job: usize, from: ResumeFrom) -> Result<(), Refused> {
        loop {
            let row = self.row(job).await?;
            if row.pause.is_none() {
                return Ok(());
            }
            let resume = policy::resume(&row, self.env.clock.now(), from, &mut || (self.env.ids)());
            if self.env.store.resume(&row.job, &resume).await? {
                return Ok(());
            }
        }
    }

    async fn backfill(&self, job: usize, from: Instant, to: Instant) -> Result<Vec<RunView>, Refused> {
        let entry = &self.jobs[job];
        if matches!(entry.kind(), Kind::Claim | Kind::Lease | Kind::Local) {
            let text = "its rows are due or not, whatever the instant; only Tick and Steps jobs can be backfilled";
            return Err(Refused::Conflict(text.to_owned()));
        }
        if !self.enabled_somewhere(job).await? {
            return Err(Refused::Conflict(format!("no live replica has job {:?} enabled", entry.name)));
        }
        if from > to {
            return Err(Refused::Invalid { field: "from", expected: "a time at or before `to`".to_owned() });
        }
        if to > self.env.clock.now() {
            return Err(Refused::Invalid { field: "to", expected: "a time that is not in the future".to_owned() });
        }
        let row = self.row(job).await?;
        let instants = policy::instants_between(&row, from, to, BACKFILL_MAX + 1);
        if instants.len() > BACKFILL_MAX {
            let expected = format!("at most {BACKFILL_MAX} instants in the range");
            return Err(Refused::Invalid { field: "to", expected });
        }
        let request = (self.env.ids)();
        let mut queued = Vec::new();
        for nominal in instants {
            let key = format!("backfill:{request}:{}", nominal.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
            let run = self.new_run(key, Wake::Backfill, Some(nominal), None);
            if let Enqueued::New(row) = self.env.store.enqueue(&entry.name, run, BACKFILL_MAX as u64).await? {
                queued.push(RunView::from(row));
            }
        }
        self.tell(job).await;
        Ok(queued)
    }

    async fn view(&self, job: usize) -> Result<JobView, Refused> {
        self.views(Some(job)).await?.pop().ok_or_else(|| Refused::UnknownJob(self.jobs[job].name.to_string()))
    }

    /// The jobs as operators see them, all or one.
    async fn views(&self, only: Option<usize>) -> Result<Vec<JobView>, Refused> {
        let wanted: Vec<usize> = (0..self.jobs.len()).filter(|job| only.is_none_or(|only| only == *job)).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = wanted.iter().map(|job| self.jobs[*job].name.to_string()).collect();
        let rows = self.env.store.schedules(&names).await?;
        let running = self.env.store.running(&names).await?;
        let mut views = Vec::with_capacity(wanted.len());
        for job in wanted {
            let entry = &self.jobs[job];
            let row = rows.iter().find(|row| *row.job == *entry.name);
            let last = self.last_runs(&entry.name).await?;
            let replicas = Replicas::of(&self.live(&entry.name).await?);
            let running: Vec<&RunRow> = running.iter().filter(|run| *run.job == *entry.name).collect();
            views.push(JobView::new(&self.env.service, entry, row, &running, last, replicas));
        }
        Ok(views)
    }

    /// The last run that was really made, and when one last succeeded: passes over due rows are in the ledger only.
    async fn last_runs(&self, name: &str) -> Result<(Option<RunView>, Option<Instant>), Refused> {
        let last = self.newest(name, Outcome::ALL.iter().copied().filter(|outcome| outcome.ran()).collect()).await?;
        let succeeded = match &last {
            Some(run) if run.outcome != Some(Outcome::Succeeded) => {
                self.newest(name, vec![Outcome::Succeeded]).await?.and_then(|run| run.finished_at)
            }
            last => last.as_ref().and_then(|run| run.finished_at),
        };
        Ok((last, succeeded))
    }

    async fn newest(&self, name: &str, outcomes: Vec<Outcome>) -> Result<Option<RunView>, Refused> {
        let page = RunPage { job: name.to_owned(), before: None, outcomes, limit: 1 };
        Ok(self.env.store.runs(&page).await?.pop().map(RunView::from))
    }
}
