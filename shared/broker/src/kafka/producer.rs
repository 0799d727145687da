//! Sending: the queue is filled, the reports are read together.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _},
};

use super::client::{self, ANSWER, Context};
use crate::{BrokerError, KafkaConfig, Producer, RECORD_BYTES_MAX, Record, SendError, Topic};

type Client = FutureProducer<Context>;

/// Records that wait in the client's memory at most; more wait at their sender.
const QUEUE_RECORDS: &str = "20000";
const QUEUE_KILOBYTES: &str = "65536";
/// A record that is not kept within this is reported; whoever sent it tries again.
const MESSAGE_TIMEOUT_MS: &str = "60000";

pub(super) struct KafkaProducer {
    config: KafkaConfig,
    context: Context,
    client: Mutex<Option<Arc<Client>>>,
}

/// A record on its way.
enum Way {
    Sent(DeliveryFuture),
    Not(SendError),
}

impl KafkaProducer {
    pub(super) fn new(config: KafkaConfig, context: Context) -> Result<Self, BrokerError> {
        let producer = Self { config, context, client: Mutex::new(None) };
        // Settings that the client refuses are told at start, not at the first event.
        producer.client()?;
        Ok(producer)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Client>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Result<Arc<Client>, BrokerError> {
        let mut slot = self.slot();
        if let Some(client) = &*slot {
            return Ok(Arc::clone(client));
        }
        let mut settings = client::base(&self.config);
        settings
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "zstd")
            .set("linger.ms", "1")
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
            .set("queue.buffering.max.messages", QUEUE_RECORDS)
            .set("queue.buffering.max.kbytes", QUEUE_KILOBYTES);
        let client = Client::from_config_and_context(&settings, self.context.clone());
        let client = Arc::new(client.map_err(|error| BrokerError::Refused(error.to_string()))?);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    /// After a failure the order of what is still queued cannot be told: the next send begins with a new client.
    async fn forget(&self, failed: &Arc<Client>) {
        let old = {
            let mut slot = self.slot();
            slot.take_if(|client| Arc::ptr_eq(client, failed))
        };
        if let Some(old) = old {
            old.client();
            // What waits would only be sent by a client that nobody hears: drop it. Closing a client blocks.
            let purged = client::blocking(move || {
                rdkafka::producer::Producer::purge(&*old, rdkafka::producer::PurgeConfig::default().queue().inflight());
                drop(old);
                Ok(())
            });
            if let Err(error) = purged.await {
                tracing::debug!(%error, "an old producer was not closed");
            }
        }
    }
}

/// Puts a record into the client's queue; waits for the oldest on its way while the queue is full.
async fn enqueue(
    client: &Client,
    record: &Record,
    ways: &mut VecDeque<Way>,
    done: &mut Vec<Result<(), SendError>>,
) -> Way {
    if record.body.len() > RECORD_BYTES_MAX {
        return Way::Not(SendError::Permanent(format!("{} bytes are more than {RECORD_BYTES_MAX}", record.body.len())));
    }
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (key, value) in &record.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let mut message =
        FutureRecord::to(&record.topic).key(record.key.as_bytes()).payload(&record.body[..]).headers(headers);
    loop {
        match client.send_result(message) {
            Ok(way) => return Way::Sent(way),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                message = back;
                match ways.pop_front() {
                    Some(way) => done.push(arrive(way).await),
                    None => client.poll_once().await,
                }
            }
            Err((error, _)) => return Way::Not(failed(&error)),
        }
    }
}

/// Lets another sender's records leave a full queue.
trait PollOnce {
    async fn poll_once(&self);
}

impl PollOnce for Client {
    async fn poll_once(&self) {
        tokio::task::yield_now().await;
        self.poll(Duration::from_millis(10));
    }
}

async fn arrive(way: Way) -> Result<(), SendError> {
    match way {
        Way::Not(error) => Err(error),
        Way::Sent(report) => match report.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(failed(&error)),
            Err(_) => Err(SendError::Transient("the producer was closed".to_owned())),
        },
    }
}

/// Whether a record may be kept later.
fn failed(error: &KafkaError) -> SendError {
    use RDKafkaErrorCode::{
        ClusterAuthorizationFailed, InvalidRecord, InvalidTopic, MessageSizeTooLarge, TopicAuthorizationFailed,
        UnknownTopic, UnknownTopicOrPartition,
    };
    match error.rdkafka_error_code() {
        Some(
            MessageSizeTooLarge | InvalidRecord | InvalidTopic | TopicAuthorizationFailed | ClusterAuthorizationFailed,
        ) => SendError::Permanent(error.to_string()),
        Some(UnknownTopic | UnknownTopicOrPartition) => SendError::UnknownTopic(error.to_string()),
        _ => SendError::Transient(error.to_string()),
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn send(&self, records: Vec<Record>) -> Vec<Result<(), SendError>> {
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return vec![Err(SendError::Transient(error.to_string())); records.len()],
        };
        let mut done = Vec::with_capacity(records.len());
        let mut ways = VecDeque::with_capacity(records.len());
        for record in &records {
            let way = enqueue(&client, record, &mut ways, &mut done).await;
            ways.push_back(way);
        }
        for way in ways {
            done.push(arrive(way).await);
        }
        if done.iter().any(Result::is_ok) {
            self.context.well();
        }
        if done.iter().any(|result| matches!(result, Err(SendError::Transient(_) | SendError::UnknownTopic(_)))) {
            self.forget(&client).await;
        }
        done
    }

    async fn ensure_topics(&self, topics: &[Topic]) -> Result<(), BrokerError> {
        let config = client::base(&self.config);
        let context = self.context.clone();
        let admin = AdminClient::from_config_and_context(&config, context)
            .map_err(|error| BrokerError::Refused(error.to_string()))?;
        let client = self.client()?;
        let brokers = {
            let client = Arc::clone(&client);
            client::blocking(move || Ok(client.client().fetch_metadata(None, ANSWER)?.brokers().len())).await?
        };
        let replication = i32::try_from(brokers.clamp(1, 3)).unwrap_or(1);
        let retention: Vec<String> = topics.iter().map(|topic| topic.retention.as_millis().to_string()).collect();
        let bytes = RECORD_BYTES_MAX.to_string();
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .zip(&retention)
            .map(|(topic, retention)| {
                NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(replication))
                    .set("retention.ms", retention)
                    .set("cleanup.policy", "delete")
                    .set("max.message.bytes", &bytes)
            })
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER));
        let made = admin.create_topics(&new, &options).await.map_err(|error| client::refused(&error))?;
        for made in made {
            match made {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, error)) => return Err(BrokerError::Refused(format!("topic {topic}: {error}"))),
            }
        }
        Ok(())
    }
}
