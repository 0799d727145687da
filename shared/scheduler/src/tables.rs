//! The scheduler's tables. Each service has them beside its own.

use sea_orm::DbBackend;

/// The statements that create them, for a migration to run. Times are UTC; JSON columns hold what the name says.
pub fn create(backend: DbBackend) -> Vec<String> {
    TABLES.iter().map(|statement| typed(statement, backend)).collect()
}

/// Puts the engine's names of types into a statement.
fn typed(statement: &str, backend: DbBackend) -> String {
    let types = if backend == DbBackend::Sqlite {
        [("{uuid}", "blob"), ("{time}", "text"), ("{json}", "text"), ("{bool}", "integer"), ("{big}", "integer")]
    } else {
        [("{uuid}", "uuid"), ("{time}", "timestamptz"), ("{json}", "jsonb"), ("{bool}", "boolean"), ("{big}", "bigint")]
    };
    types.iter().fold(statement.to_owned(), |text, (name, engine)| text.replace(name, engine))
}

const TABLES: &[&str] = &[
    "CREATE TABLE job_schedules (
        job text PRIMARY KEY,
        spec {json} NOT NULL,
        spec_hash text NOT NULL,
        spec_by text NOT NULL,
        spec_at {time} NOT NULL,
        override {json},
        anchor_at {time} NOT NULL,
        next_at {time},
        epoch {big} NOT NULL,
        last_start_at {time},
        paused_at {time},
        paused_by text,
        pause_reason text,
        paused_until {time},
        last_run_id {uuid},
        last_success_at {time},
        ledger_from {time} NOT NULL
    )",
    "CREATE TABLE job_runs (
        id {uuid} PRIMARY KEY,
        job text NOT NULL,
        run_key text NOT NULL,
        wake_source text NOT NULL,
        nominal_at {time},
        nominal_until {time},
        instants {big} NOT NULL DEFAULT 1,
        fire_at {time} NOT NULL,
        state text NOT NULL,
        outcome text,
        reason text,
        into_run {uuid},
        attempt integer NOT NULL DEFAULT 1,
        attempts {json} NOT NULL,
        exclusive {bool} NOT NULL,
        owner text,
        epoch {big} NOT NULL,
        beat {big} NOT NULL DEFAULT 0,
        lease_until {time},
        cancel_at {time},
        input {json},
        cursor {json},
        items {big} NOT NULL DEFAULT 0,
        passes {big} NOT NULL DEFAULT 0,
        lateness_ms {big},
        queued_at {time},
        started_at {time},
        finished_at {time},
        error text,
        UNIQUE (job, run_key)
    )",
    // At most one run of a job goes on at a time, whatever the replicas think. Leases and beats are in no index.
    "CREATE UNIQUE INDEX job_runs_running ON job_runs (job) WHERE state = 'running' AND exclusive",
    "CREATE INDEX job_runs_going ON job_runs (job) WHERE state = 'running'",
    "CREATE INDEX job_runs_queued ON job_runs (job, fire_at, id) WHERE state = 'queued'",
    "CREATE INDEX job_runs_newest ON job_runs (job, id)",
    "CREATE INDEX job_runs_nominal ON job_runs (job, nominal_at) WHERE nominal_at IS NOT NULL",
    "CREATE TABLE job_replicas (
        job text NOT NULL,
        replica text NOT NULL,
        enabled {bool} NOT NULL,
        spec_hash text NOT NULL,
        started_at {time} NOT NULL,
        seen_at {time} NOT NULL,
        PRIMARY KEY (job, replica)
    )",
    "CREATE TABLE job_failures (
        job text NOT NULL,
        row_id {uuid} NOT NULL,
        attempts integer NOT NULL,
        next_attempt_at {time},
        given_up_at {time},
        error text NOT NULL,
        PRIMARY KEY (job, row_id)
    )",
];
