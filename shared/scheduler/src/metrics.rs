//! What the runner counts. Names are the platform's; labels are `service` and `job`.

use std::{sync::Arc, time::Duration};

use metrics::{SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::{
    Instant,
    ledger::{Outcome, Wake},
};

/// Says what each metric means; called once a process, after a recorder is installed.
pub fn describe() {
    describe_counter!("background_job_executions_total", "Runs of a job that ended, by outcome and wake source");
    describe_counter!("background_job_failures_total", "Runs that failed, timed out or panicked");
    describe_histogram!("background_job_duration_seconds", Unit::Seconds, "How long runs took");
    describe_counter!("background_job_items_total", "Items that runs handled");
    describe_gauge!("background_job_last_success_timestamp_seconds", Unit::Seconds, "When a run last succeeded here");
    describe_gauge!("background_jobs_running", "Runs going on in this process");
    describe_histogram!("scheduler_fire_lateness_seconds", Unit::Seconds, "Start of a run minus its instant");
    describe_histogram!(
        "scheduler_due_lateness_seconds",
        Unit::Seconds,
        "When a due row took effect minus when it was due"
    );
    describe_counter!("scheduler_fenced_total", "Writes of owners that came back too late, refused");
    describe_counter!("scheduler_recovered_total", "Runs of dead owners taken over or ended");
    describe_counter!("scheduler_rescued_total", "Rows handled late by a sweep that no hint had announced");
    describe_counter!("scheduler_clock_steps_total", "Steps of the database's or this machine's clock");
    describe_gauge!("scheduler_spec_drift", "1 while live replicas are configured differently");
    describe_gauge!("scheduler_stuck_runs", "Runs that do not react to their timeout");
}

/// A name as a label: shared, not copied, for a run has many.
fn label(name: &Arc<str>) -> SharedString {
    SharedString::from_shared(Arc::clone(name))
}

pub(crate) fn ended(
    service: &Arc<str>,
    job: &Arc<str>,
    wake: Wake,
    outcome: Outcome,
    took: Duration,
    items: i64,
    now: Instant,
) {
    counter!("background_job_executions_total", "service" => label(service), "job" => label(job),
        "outcome" => outcome.as_str(), "wake" => wake.as_str())
    .increment(1);
    if matches!(outcome, Outcome::Failed | Outcome::TimedOut | Outcome::Panicked) {
        counter!("background_job_failures_total", "service" => label(service), "job" => label(job)).increment(1);
    }
    if outcome == Outcome::Succeeded {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
        gauge!("background_job_last_success_timestamp_seconds", "service" => label(service), "job" => label(job))
            .set(now.timestamp_millis() as f64 / 1000.0);
    }
    histogram!("background_job_duration_seconds", "service" => label(service), "job" => label(job))
        .record(took.as_secs_f64());
    counter!("background_job_items_total", "service" => label(service), "job" => label(job))
        .increment(u64::try_from(items).unwrap_or(0));
}

pub(crate) fn running(service: &Arc<str>, job: &Arc<str>, change: f64) {
    gauge!("background_jobs_running", "service" => label(service), "job" => label(job)).increment(change);
}

pub(crate) fn fire_lateness(service: &Arc<str>, job: &Arc<str>, ms: i64) {
    histogram!("scheduler_fire_lateness_seconds", "service" => label(service), "job" => label(job)).record(seconds(ms));
}

pub(crate) fn due_lateness(service: &str, job: &str, ms: i64) {
    histogram!("scheduler_due_lateness_seconds", "service" => service.to_owned(), "job" => job.to_owned())
        .record(seconds(ms));
}

#[expect(clippy::cast_precision_loss, reason = "a lateness in milliseconds fits")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

pub(crate) fn fenced(service: &str, job: &str, count: u64) {
    counter!("scheduler_fenced_total", "service" => service.to_owned(), "job" => job.to_owned()).increment(count);
}

pub(crate) fn recovered(service: &str, job: &str) {
    counter!("scheduler_recovered_total", "service" => service.to_owned(), "job" => job.to_owned()).increment(1);
}

pub(crate) fn rescued(service: &str, job: &str, rows: i64) {
    counter!("scheduler_rescued_total", "service" => service.to_owned(), "job" => job.to_owned())
        .increment(u64::try_from(rows).unwrap_or(0));
}

pub(crate) fn clock_step(service: &str) {
    counter!("scheduler_clock_steps_total", "service" => service.to_owned()).increment(1);
}

pub(crate) fn drift(service: &str, job: &str, differs: bool) {
    gauge!("scheduler_spec_drift", "service" => service.to_owned(), "job" => job.to_owned())
        .set(f64::from(u8::from(differs)));
}

pub(crate) fn stuck(service: &str, runs: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    gauge!("scheduler_stuck_runs", "service" => service.to_owned()).set(runs as f64);
}
