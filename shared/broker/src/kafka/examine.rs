//! What a cluster says of itself: for whoever checks whether it keeps what it is given.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication},
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};

use super::{
    KafkaBroker,
    client::{self, ANSWER, Context, refused},
};
use crate::BrokerError;

/// The topic that tells the broker's time: it stamps its records itself.
const CLOCK: &str = "belfry.doctor.clock";
const CLOCK_RETENTION_MS: &str = "3600000";

/// What a topic is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// Its name.
    pub name: String,
    /// Its partitions; 0: it does not exist.
    pub partitions: usize,
    /// Copies of each partition, of the partition that has the fewest.
    pub replicas: usize,
    /// Its settings, by their names in Kafka's documentation.
    pub settings: HashMap<String, String>,
}

/// What a cluster is like.
#[derive(Debug, Clone)]
pub struct ClusterState {
    /// How many brokers answer for it.
    pub brokers: usize,
    /// The topics that were asked for.
    pub topics: Vec<TopicState>,
}

impl KafkaBroker {
    /// Looks at the cluster and at these topics.
    pub async fn examine(&self, topics: &[&str]) -> Result<ClusterState, BrokerError> {
        let config = client::base(&self.config);
        let context = self.context.clone();
        let metadata = client::blocking(move || {
            let client = BaseConsumer::<Context>::from_config_and_context(&config, context)?;
            let metadata = client.fetch_metadata(None, ANSWER)?;
            let topics: HashMap<String, (usize, usize)> = metadata
                .topics()
                .iter()
                .map(|topic| {
                    let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
                    (topic.name().to_owned(), (topic.partitions().len(), replicas.unwrap_or(0)))
                })
                .collect();
            Ok((metadata.brokers().len(), topics))
        });
        let (brokers, found) = metadata.await?;
        let there: Vec<&str> = topics.iter().copied().filter(|topic| found.contains_key(*topic)).collect();
        let mut settings = self.settings(&there).await?;
        let state = |name: &&str| {
            let (partitions, replicas) = found.get(*name).copied().unwrap_or_default();
            TopicState {
                name: (*name).to_owned(),
                partitions,
                replicas,
                settings: settings.remove(*name).unwrap_or_default(),
            }
        };
        Ok(ClusterState { brokers, topics: topics.iter().map(state).collect() })
    }

    async fn settings(&self, topics: &[&str]) -> Result<HashMap<String, HashMap<String, String>>, BrokerError> {
        let admin = AdminClient::<Context>::from_config_and_context(&client::base(&self.config), self.context.clone())
            .map_err(|error| refused(&error))?;
        let asked: Vec<ResourceSpecifier<'_>> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER));
        let mut all = HashMap::new();
        if asked.is_empty() {
            return Ok(all);
        }
        for answer in admin.describe_configs(&asked, &options).await.map_err(|error| refused(&error))? {
            let answer = answer.map_err(|code| BrokerError::Refused(code.to_string()))?;
            let settings = answer.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
            if let OwnedResourceSpecifier::Topic(topic) = answer.specifier {
                all.insert(topic, settings.collect());
            }
        }
        Ok(all)
    }

    /// The broker's time, as it stamps a record that is sent to it now, and how long that took. It makes a topic of its
    /// own for this.
    pub async fn time(&self) -> Result<(DateTime<Utc>, Duration), BrokerError> {
        let config = client::base(&self.config);
        let admin = AdminClient::<Context>::from_config_and_context(&config, self.context.clone())
            .map_err(|error| refused(&error))?;
        let topic = NewTopic::new(CLOCK, 1, TopicReplication::Fixed(-1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("retention.ms", CLOCK_RETENTION_MS);
        let options = AdminOptions::new().operation_timeout(Some(ANSWER));
        // That it is there already is fine; whatever else is wrong shows when it is sent to.
        drop(admin.create_topics([&topic], &options).await.map_err(|error| refused(&error))?);
        let producer = FutureProducer::<Context>::from_config_and_context(&config, self.context.clone())
            .map_err(|error| refused(&error))?;
        let mut fastest: Option<(DateTime<Utc>, Duration)> = None;
        for _ in 0..3 {
            let began = std::time::Instant::now();
            let record = FutureRecord::<str, str>::to(CLOCK).payload("now");
            let kept = producer.send(record, ANSWER).await.map_err(|(error, _)| refused(&error))?;
            let took = began.elapsed();
            let at = kept.timestamp.to_millis().and_then(DateTime::from_timestamp_millis);
            let at = at.ok_or_else(|| BrokerError::Refused("it stamps no record".to_owned()))?;
            if fastest.is_none_or(|(_, before)| took < before) {
                fastest = Some((at, took));
            }
        }
        fastest.ok_or_else(|| BrokerError::Unavailable("it does not tell the time".to_owned()))
    }
}
