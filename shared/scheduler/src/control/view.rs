//! What operators see: the JSON shapes of jobs and runs.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Instant,
    body::Kind,
    job::Entry,
    ledger::{Attempt, Outcome, RunRow, RunState, ScheduleRow, Wake},
    policy,
    schedule::{Schedule, Spec},
    store::Store,
};

/// A schedule in words.
#[derive(Debug, Clone, Serialize)]
pub struct ScheduleView {
    /// `interval`, `cron` or `none`.
    pub kind: &'static str,
    /// As a person reads it.
    pub text: String,
    /// IANA name.
    pub time_zone: String,
}

impl ScheduleView {
    fn of(spec: &Spec) -> Self {
        let (kind, time_zone) = match &spec.schedule {
            Schedule::Interval { .. } => ("interval", "UTC".to_owned()),
            Schedule::Cron { zone, .. } => ("cron", zone.clone()),
            Schedule::None => ("none", "UTC".to_owned()),
        };
        Self { kind, text: spec.schedule.to_string(), time_zone }
    }
}

/// A pause.
#[derive(Debug, Clone, Serialize)]
pub struct PauseView {
    /// Since when.
    pub at: Instant,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Option<Instant>,
}

/// The live replicas of a job.
#[derive(Debug, Clone, Default)]
pub struct Replicas {
    /// How many run it, of how many.
    pub enabled: String,
    /// Whether those that run it are configured differently.
    pub drift: bool,
}

impl Replicas {
    pub(super) fn of(live: &[(bool, String)]) -> Self {
        let enabled: Vec<&String> = live.iter().filter(|(enabled, _)| *enabled).map(|(_, hash)| hash).collect();
        let drift = enabled.windows(2).any(|pair| pair[0] != pair[1]);
        Self { enabled: format!("{}/{}", enabled.len(), live.len()), drift }
    }
}

/// A job as operators see it.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the documented JSON")]
pub struct JobView {
    /// The service.
    pub service: String,
    /// The job.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Which guarantee it gives.
    pub kind: Kind,
    /// `cluster`: one run for all replicas; `replica`: a run on each.
    pub scope: &'static str,
    /// When it runs.
    pub schedule: ScheduleView,
    /// The policies in force.
    pub policies: Option<Spec>,
    /// Whether this process runs it.
    pub enabled: bool,
    /// How many live replicas run it, such as `1/3`.
    pub enabled_replicas: String,
    /// Whether live replicas are configured differently.
    pub drift: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// By whom, why, until when.
    pub pause: Option<PauseView>,
    /// Whether a run is going somewhere.
    pub running: bool,
    /// When it fires next, with jitter; null while paused or disabled.
    pub next_run_at: Option<Instant>,
    /// The last run that was really made.
    pub last_run: Option<RunView>,
    /// When a run last succeeded.
    pub last_success_at: Option<Instant>,
    /// An operator's override.
    #[serde(rename = "override")]
    pub overrides: Option<Value>,
    /// Before this the ledger has been pruned.
    pub ledger_from: Option<Instant>,
}

impl JobView {
    pub(super) fn new<S: Store>(
        service: &str,
        entry: &Entry<S>,
        row: Option<&ScheduleRow>,
        running: &[&RunRow],
        (last_run, last_success_at): (Option<RunView>, Option<Instant>),
        replicas: Replicas,
    ) -> Self {
        let spec = row.map_or(&entry.settings.spec, |row| &row.spec);
        let pause = row.and_then(|row| row.pause.as_ref());
        let anywhere = entry.settings.enabled || !replicas.enabled.starts_with("0/");
        Self {
            service: service.to_owned(),
            name: entry.name.to_string(),
            description: entry.description.clone(),
            kind: entry.kind(),
            scope: if entry.kind() == Kind::Local { "replica" } else { "cluster" },
            schedule: ScheduleView::of(spec),
            policies: row.map(|row| row.spec.clone()),
            enabled: entry.settings.enabled,
            enabled_replicas: replicas.enabled,
            drift: replicas.drift,
            paused: pause.is_some(),
            pause: pause.map(|pause| PauseView {
                at: pause.at,
                by: pause.by.clone(),
                reason: pause.reason.clone(),
                until: pause.until,
            }),
            running: !running.is_empty(),
            next_run_at: row.filter(|row| anywhere && row.pause.is_none()).and_then(policy::wake_at),
            last_run,
            last_success_at: last_success_at.max(row.and_then(|row| row.last_success_at)),
            overrides: row.and_then(|row| row.overrides.clone()),
            ledger_from: row.map(|row| row.ledger_from),
        }
    }
}

/// A run as operators see it.
#[derive(Debug, Clone, Serialize)]
pub struct RunView {
    /// The ledger row.
    pub id: Uuid,
    /// The job.
    pub job: String,
    /// The instant it stands for; null for due, hint, manual and start runs.
    pub nominal_at: Option<Instant>,
    /// The last instant of a range.
    pub nominal_until: Option<Instant>,
    /// How many instants.
    pub instants: i64,
    /// What woke it.
    pub wake_source: Wake,
    /// Where it stands.
    pub state: RunState,
    /// Null until it is done.
    pub outcome: Option<Outcome>,
    /// Why, in words.
    pub reason: Option<String>,
    /// The run that stood for these instants.
    pub into_run: Option<Uuid>,
    /// From 1.
    pub attempt: i32,
    /// Attempts that ended otherwise.
    pub attempts: Vec<Attempt>,
    /// When it started.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Option<Instant>,
    /// Milliseconds; null for manual and start runs.
    pub lateness_ms: Option<i64>,
    /// Items handled.
    pub items: i64,
    /// Batches committed.
    pub passes: i64,
    /// What went wrong.
    pub error: Option<String>,
    /// Who runs or ran it.
    pub owner: Option<String>,
    /// Under which epoch.
    pub epoch: i64,
}

impl From<RunRow> for RunView {
    fn from(row: RunRow) -> Self {
        Self {
            id: row.id,
            job: row.job,
            nominal_at: row.nominal_at,
            nominal_until: row.nominal_until,
            instants: row.instants,
            wake_source: row.wake_source,
            state: row.state,
            outcome: row.outcome,
            reason: row.reason,
            into_run: row.into_run,
            attempt: row.attempt,
            attempts: row.attempts,
            started_at: row.started_at,
            finished_at: row.finished_at,
            lateness_ms: row.lateness_ms,
            items: row.items,
            passes: row.passes,
            error: row.error,
            owner: row.owner,
            epoch: row.epoch,
        }
    }
}
