//! What is counted, for Prometheus. Names are those the platform's users already alert on.

use std::{sync::OnceLock, time::Duration};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Latencies from a millisecond to a minute.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0];
/// How often histograms are folded; without it they grow.
pub(crate) const UPKEEP: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// The recorder of this process, made at the first call.
///
/// # Errors
/// When another recorder was installed before.
pub fn recorder() -> anyhow::Result<PrometheusHandle> {
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        describe();
    }
    Ok(HANDLE.get_or_init(|| handle).clone())
}

fn describe() {
    scheduler::metrics::describe();
    describe_counter!("http_requests_total", "Requests, by service, method, route and status");
    describe_histogram!("http_request_duration_seconds", Unit::Seconds, "How long requests took");
    describe_counter!("kafka_messages_produced_total", "Events the broker acknowledged");
    describe_counter!("kafka_messages_consumed_total", "Events taken");
    describe_gauge!("kafka_consumer_lag", "Records a consumer is behind");
    describe_gauge!("outbox_pending", "Events recorded and not acknowledged by the broker");
    describe_gauge!("outbox_oldest_seconds", Unit::Seconds, "Age of the oldest event not acknowledged");
    describe_gauge!("database_connections_in_use", "Connections that are lent out, by pool");
    describe_counter!("inbox_dead_letters_total", "Events that a listener could not take");
    describe_counter!("loop_restarts_total", "Loops that ended before they were asked to");
}
