//! Rows of the tables as values.

use sea_orm::{DbErr, QueryResult};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    Instant, StoreError,
    ledger::{FailureRow, Pause, ReplicaRow, RunRow, ScheduleRow},
};

/// The columns of `job_runs` that [`run`] reads.
pub(super) const RUN: &str = "id, job, run_key, wake_source, nominal_at, nominal_until, instants, fire_at, state, outcome, \
    reason, into_run, attempt, attempts, owner, epoch, beat, lease_until, cancel_at, input, cursor, items, passes, \
    lateness_ms, queued_at, started_at, finished_at, error";

fn column<T: sea_orm::TryGetable>(row: &QueryResult, name: &str) -> Result<T, StoreError> {
    row.try_get("", name).map_err(|error: DbErr| StoreError::Broken(error.to_string()))
}

fn word<T: std::str::FromStr<Err = String>>(row: &QueryResult, name: &str) -> Result<T, StoreError> {
    column::<String>(row, name)?.parse().map_err(StoreError::Broken)
}

fn typed<T: DeserializeOwned>(value: serde_json::Value, name: &str) -> Result<T, StoreError> {
    serde_json::from_value(value).map_err(|error| StoreError::Broken(format!("column {name}: {error}")))
}

pub(super) fn schedule(row: &QueryResult) -> Result<ScheduleRow, StoreError> {
    let paused_at: Option<Instant> = column(row, "paused_at")?;
    let pause = match paused_at {
        None => None,
        Some(at) => Some(Pause {
            at,
            by: column::<Option<String>>(row, "paused_by")?.unwrap_or_default(),
            reason: column::<Option<String>>(row, "pause_reason")?.unwrap_or_default(),
            until: column(row, "paused_until")?,
        }),
    };
    Ok(ScheduleRow {
        job: column(row, "job")?,
        spec: typed(column(row, "spec")?, "spec")?,
        spec_hash: column(row, "spec_hash")?,
        spec_by: column(row, "spec_by")?,
        spec_at: column(row, "spec_at")?,
        overrides: column(row, "override")?,
        anchor_at: column(row, "anchor_at")?,
        next_at: column(row, "next_at")?,
        epoch: column(row, "epoch")?,
        last_start_at: column(row, "last_start_at")?,
        pause,
        last_run_id: column(row, "last_run_id")?,
        last_success_at: column(row, "last_success_at")?,
        ledger_from: column(row, "ledger_from")?,
    })
}

pub(super) fn run(row: &QueryResult) -> Result<RunRow, StoreError> {
    let outcome: Option<String> = column(row, "outcome")?;
    Ok(RunRow {
        id: column(row, "id")?,
        job: column(row, "job")?,
        run_key: column(row, "run_key")?,
        wake_source: word(row, "wake_source")?,
        nominal_at: column(row, "nominal_at")?,
        nominal_until: column(row, "nominal_until")?,
        instants: column(row, "instants")?,
        fire_at: column(row, "fire_at")?,
        state: word(row, "state")?,
        outcome: outcome.map(|word| word.parse()).transpose().map_err(StoreError::Broken)?,
        reason: column(row, "reason")?,
        into_run: column::<Option<Uuid>>(row, "into_run")?,
        attempt: column(row, "attempt")?,
        attempts: typed(column(row, "attempts")?, "attempts")?,
        owner: column(row, "owner")?,
        epoch: column(row, "epoch")?,
        beat: column(row, "beat")?,
        lease_until: column(row, "lease_until")?,
        cancel_at: column(row, "cancel_at")?,
        input: column(row, "input")?,
        cursor: column(row, "cursor")?,
        items: column(row, "items")?,
        passes: column(row, "passes")?,
        lateness_ms: column(row, "lateness_ms")?,
        queued_at: column(row, "queued_at")?,
        started_at: column(row, "started_at")?,
        finished_at: column(row, "finished_at")?,
        error: column(row, "error")?,
    })
}

pub(super) fn replica(row: &QueryResult) -> Result<ReplicaRow, StoreError> {
    Ok(ReplicaRow {
        job: column(row, "job")?,
        replica: column(row, "replica")?,
        enabled: column(row, "enabled")?,
        spec_hash: column(row, "spec_hash")?,
        started_at: column(row, "started_at")?,
        seen_at: column(row, "seen_at")?,
    })
}

pub(super) fn failure(row: &QueryResult) -> Result<FailureRow, StoreError> {
    Ok(FailureRow {
        job: column(row, "job")?,
        row_id: column(row, "row_id")?,
        attempts: column(row, "attempts")?,
        next_attempt_at: column(row, "next_attempt_at")?,
        given_up_at: column(row, "given_up_at")?,
        error: column(row, "error")?,
    })
}

/// All rows by one of the above.
pub(super) fn each<T>(
    rows: &[QueryResult],
    one: impl Fn(&QueryResult) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    rows.iter().map(one).collect()
}
