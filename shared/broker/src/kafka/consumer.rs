//! Receiving: a member of a group, or a reader of everything.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{CommitMode, Consumer as _, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
    topic_partition_list::TopicPartitionListElem,
};

use super::client::{self, ANSWER, Context};
use crate::{BrokerError, Consumer, KafkaConfig, Message, Position, Start};

/// After the first record of a poll, so long is waited for more.
const GATHER: Duration = Duration::from_millis(5);

pub(super) struct KafkaConsumer {
    client: Arc<StreamConsumer<Context>>,
    context: Context,
    member: bool,
}

impl KafkaConsumer {
    pub(super) fn member(
        config: &KafkaConfig,
        context: Context,
        group: &str,
        topics: &[&str],
    ) -> Result<Self, BrokerError> {
        let consumer = Self::new(config, context, group, true)?;
        consumer.client.subscribe(topics).map_err(|error| client::refused(&error))?;
        Ok(consumer)
    }

    pub(super) async fn reader(
        config: &KafkaConfig,
        context: Context,
        topics: &[&str],
        from: Start,
    ) -> Result<Self, BrokerError> {
        let consumer = Self::new(config, context, "belfry-readers", false)?;
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let client = Arc::clone(&consumer.client);
        client::blocking(move || {
            let mut assigned = TopicPartitionList::new();
            for topic in &topics {
                let metadata = client.fetch_metadata(Some(topic), ANSWER)?;
                for partition in metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions) {
                    let offset = match from {
                        Start::Earliest => Offset::Beginning,
                        // The end is fixed now; what comes between now and the first poll is not skipped.
                        Start::Latest => Offset::Offset(client.fetch_watermarks(topic, partition.id(), ANSWER)?.1),
                    };
                    assigned.add_partition_offset(topic, partition.id(), offset)?;
                }
            }
            client.assign(&assigned)
        })
        .await?;
        Ok(consumer)
    }

    fn new(config: &KafkaConfig, context: Context, group: &str, member: bool) -> Result<Self, BrokerError> {
        let mut settings = client::base(config);
        settings
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("max.poll.interval.ms", "300000")
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.message.max.bytes", "1048576")
            .set("allow.auto.create.topics", "false");
        let client = StreamConsumer::from_config_and_context(&settings, context.clone());
        let client = Arc::new(client.map_err(|error| BrokerError::Refused(error.to_string()))?);
        Ok(Self { client, context, member })
    }
}

fn message(message: &BorrowedMessage<'_>) -> Message {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
    });
    Message {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default(),
        body: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        headers: headers.unwrap_or_default(),
        timestamp: message.timestamp().to_millis().and_then(DateTime::from_timestamp_millis),
    }
}

/// Where these partitions begin or end.
fn edges(
    client: &StreamConsumer<Context>,
    partitions: &TopicPartitionList,
    edge: Offset,
) -> Result<HashMap<(String, i32), i64>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    for part in partitions.elements() {
        // In the protocol, -1 and -2 are the times of the end and of the beginning.
        asked.add_partition_offset(part.topic(), part.partition(), edge)?;
    }
    if asked.count() == 0 {
        return Ok(HashMap::new());
    }
    let offset = |part: TopicPartitionListElem<'_>| {
        part.error()?;
        let at = part.offset().to_raw().filter(|at| *at >= 0);
        let at = at.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset))?;
        Ok(((part.topic().to_owned(), part.partition()), at))
    };
    client.offsets_for_times(asked, ANSWER)?.elements().into_iter().map(offset).collect()
}

/// Errors that pass by themselves: a topic that is not there yet, a broker that is away.
fn passes(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
    )
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Message>, BrokerError> {
        let mut messages = Vec::new();
        let mut patience = wait;
        while messages.len() < max {
            match tokio::time::timeout(patience, self.client.recv()).await {
                Err(_) => break,
                Ok(Ok(received)) => messages.push(message(&received)),
                Ok(Err(error)) if passes(&error) => continue,
                Ok(Err(_)) if !messages.is_empty() => break,
                Ok(Err(error)) => return Err(client::refused(&error)),
            }
            patience = GATHER;
        }
        if !messages.is_empty() {
            self.context.well();
        }
        Ok(messages)
    }

    async fn commit(&mut self, done: &[Position]) -> Result<(), BrokerError> {
        if !self.member || done.is_empty() {
            return Ok(());
        }
        let mut newest: HashMap<(&str, i32), i64> = HashMap::new();
        for position in done {
            let next = newest.entry((&position.topic, position.partition)).or_insert(0);
            *next = (*next).max(position.offset + 1);
        }
        let mut list = TopicPartitionList::new();
        for ((topic, partition), next) in newest {
            list.add_partition_offset(topic, partition, Offset::Offset(next))
                .map_err(|error| client::refused(&error))?;
        }
        let client = Arc::clone(&self.client);
        client::blocking(move || client.commit(&list, CommitMode::Sync)).await
    }

    async fn rewind(&mut self, to: &[Position]) -> Result<(), BrokerError> {
        let mut lowest: HashMap<(String, i32), i64> = HashMap::new();
        for position in to {
            let offset = lowest.entry((position.topic.clone(), position.partition)).or_insert(i64::MAX);
            *offset = (*offset).min(position.offset);
        }
        let client = Arc::clone(&self.client);
        client::blocking(move || {
            for ((topic, partition), offset) in lowest {
                client.seek(&topic, partition, Offset::Offset(offset), ANSWER)?;
            }
            Ok(())
        })
        .await
    }

    async fn lag(&mut self) -> Result<HashMap<(String, i32), i64>, BrokerError> {
        let client = Arc::clone(&self.client);
        client::blocking(move || {
            let position = client.position()?;
            // All partitions in one question: one by one, each would wait behind a fetch that waits for records.
            let (low, high) = (edges(&client, &position, Offset::Beginning)?, edges(&client, &position, Offset::End)?);
            let mut lag = HashMap::new();
            for part in position.elements() {
                let partition = (part.topic().to_owned(), part.partition());
                let (Some(low), Some(end)) = (low.get(&partition), high.get(&partition)) else {
                    return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition));
                };
                let at = part.offset().to_raw().filter(|at| *at >= 0).unwrap_or(*low);
                lag.insert(partition, (end - at).max(0));
            }
            Ok(lag)
        })
        .await
    }

    async fn close(self: Box<Self>) {
        let closed = client::blocking(move || {
            self.client.unsubscribe();
            drop(self);
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::debug!(%error, "a consumer was not closed");
        }
    }
}
