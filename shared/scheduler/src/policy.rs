//! Pure: what becomes of each nominal instant. No clock, no I/O.

use uuid::Uuid;

use crate::{
    Instant,
    ledger::{NewRun, ScheduleRow},
    schedule::{Overlap, Spec},
};

/// What a replica wants to happen to a job's instants; the store carries it out by compare-and-set.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The job.
    pub job: String,
    /// The epoch of the row it was computed from.
    pub seen_epoch: i64,
    /// The first instant after now.
    pub next_at: Option<Instant>,
    /// Sets `last_start_at` to now.
    pub stamp_start: bool,
    /// Finished range rows: `missed`, `coalesced`, `paused`, `disabled`.
    pub ledger: Vec<NewRun>,
    /// Runs to start, oldest first; each meets `overlap`.
    pub starts: Vec<NewRun>,
    /// What happens to a start when a run is going.
    pub overlap: Overlap,
    /// The time it was computed for.
    pub now: Instant,
}

/// What resuming does; its runs are queued for any enabled replica.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    /// The epoch of the row it was computed from.
    pub seen_epoch: i64,
    /// The first instant after now.
    pub next_at: Option<Instant>,
    /// Finished range rows.
    pub ledger: Vec<NewRun>,
    /// Runs that catch up.
    pub queued: Vec<NewRun>,
}

/// Where a resume takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeFrom {
    /// Instants of the pause become one `paused` range.
    Now,
    /// They are decided without grace, by coalesce.
    CatchUp,
}

/// A future firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Planned {
    /// The instant of the schedule.
    pub nominal_at: Instant,
    /// With jitter.
    pub fire_at: Instant,
}

/// Decides all instants in `[next_at, now]`; `None` when there is nothing to decide (paused, not due yet).
pub fn decide(_row: &ScheduleRow, _now: Instant, _ids: &mut dyn FnMut() -> Uuid) -> Option<Decision> {
    None
}

/// The run at the start of a process, which stands for all fresh overdue instants; `None` when another replica's was
/// less than min(interval, 60 s) ago, or the job is paused.
pub fn start(_row: &ScheduleRow, _now: Instant, _ids: &mut dyn FnMut() -> Uuid) -> Option<Decision> {
    None
}

/// What resuming does.
pub fn resume(row: &ScheduleRow, _now: Instant, _from: ResumeFrom, _ids: &mut dyn FnMut() -> Uuid) -> Resume {
    Resume { seen_epoch: row.epoch, next_at: row.next_at, ledger: Vec::new(), queued: Vec::new() }
}

/// Anchor and next instant of a row that has never been (first start ever).
pub fn first(_job: &str, _spec: &Spec, now: Instant) -> (Instant, Option<Instant>) {
    (now, None)
}

/// Anchor and next instant after a changed spec. No instant is missed because of a change.
pub fn respec(row: &ScheduleRow, _spec: &Spec, _now: Instant) -> (Instant, Option<Instant>) {
    (row.anchor_at, row.next_at)
}

/// When the runner should wake for the row: its next instant with jitter. `None` while paused without end.
pub fn wake_at(row: &ScheduleRow) -> Option<Instant> {
    row.next_at
}

/// The next `count` firings after `now`.
pub fn plan(_row: &ScheduleRow, _now: Instant, _count: usize) -> Vec<Planned> {
    Vec::new()
}
