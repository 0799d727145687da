//! What every Kafka client here has in common: settings, quiet logs, and calls that block.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{BrokerError, KafkaConfig};

/// How long an answer to a question about the cluster may take.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// The same complaint is logged once in this time: a client whose broker is away complains twice a second.
const COMPLAINT_EVERY_MS: u64 = 30_000;

/// Settings of every client.
pub(super) fn base(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", "belfry")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "2000")
        .set("topic.metadata.propagation.max.ms", "1000")
        .set_log_level(RDKafkaLogLevel::Warning);
    let login = [
        ("security.protocol", &config.security_protocol),
        ("sasl.mechanism", &config.sasl_mechanism),
        ("sasl.username", &config.sasl_username),
        ("sasl.password", &config.sasl_password),
    ];
    for (name, value) in login {
        if let Some(value) = value {
            client.set(name, value);
        }
    }
    client
}

/// What clients tell of themselves.
#[derive(Clone)]
pub(super) struct Context {
    shared: Arc<Shared>,
}

struct Shared {
    since: Instant,
    complained_ms: AtomicU64,
    connected: AtomicBool,
}

impl Default for Context {
    fn default() -> Self {
        let shared =
            Shared { since: Instant::now(), complained_ms: AtomicU64::new(0), connected: AtomicBool::new(false) };
        Self { shared: Arc::new(shared) }
    }
}

impl Context {
    /// Something was acknowledged: the next complaint is news again.
    pub(super) fn well(&self) {
        if !self.shared.connected.swap(true, Ordering::Relaxed) {
            self.shared.complained_ms.store(0, Ordering::Relaxed);
            tracing::info!("kafka answers");
        }
    }

    fn complain(&self, what: &str) {
        self.shared.connected.store(false, Ordering::Relaxed);
        let now = u64::try_from(self.shared.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let last = self.shared.complained_ms.load(Ordering::Relaxed);
        if last == 0 || now.saturating_sub(last) >= COMPLAINT_EVERY_MS {
            self.shared.complained_ms.store(now, Ordering::Relaxed);
            tracing::warn!(what, "kafka does not answer; trying on");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                self.complain(message);
            }
            _ => tracing::debug!(fac, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        self.complain(reason);
    }
}

impl ConsumerContext for Context {}

/// Runs a call that blocks on a thread made for such calls.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, BrokerError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(refused(&error)),
        Err(error) => Err(BrokerError::Unavailable(error.to_string())),
    }
}

/// What a client's error means.
pub(super) fn refused(error: &KafkaError) -> BrokerError {
    use RDKafkaErrorCode::{
        GroupAuthorizationFailed, IllegalGeneration, RebalanceInProgress, TopicAuthorizationFailed, UnknownMemberId,
        UnknownPartition,
    };
    match error.rdkafka_error_code() {
        Some(IllegalGeneration | RebalanceInProgress | UnknownMemberId | UnknownPartition) => {
            BrokerError::Lost(error.to_string())
        }
        Some(RDKafkaErrorCode::NoOffset) => BrokerError::Lost(error.to_string()),
        Some(TopicAuthorizationFailed | GroupAuthorizationFailed) => BrokerError::Refused(error.to_string()),
        _ => BrokerError::Unavailable(error.to_string()),
    }
}
