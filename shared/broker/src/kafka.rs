//! Kafka behind the traits.

mod client;
mod consumer;
mod examine;
mod producer;

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::{config::FromClientConfigAndContext, consumer::BaseConsumer};

pub use self::examine::{ClusterState, TopicState};
use self::{client::Context, consumer::KafkaConsumer, producer::KafkaProducer};
use crate::{Broker, BrokerError, Consumer, KafkaConfig, Kind, Producer, Start};

/// A Kafka cluster.
pub struct KafkaBroker {
    config: KafkaConfig,
    context: Context,
    producer: Arc<KafkaProducer>,
}

impl KafkaBroker {
    /// A cluster; nothing is connected yet.
    pub fn new(config: KafkaConfig) -> Result<Self, BrokerError> {
        let context = Context::default();
        let producer = Arc::new(KafkaProducer::new(config.clone(), context.clone())?);
        Ok(Self { config, context, producer })
    }
}

#[async_trait]
impl Broker for KafkaBroker {
    fn kind(&self) -> Kind {
        Kind::Kafka
    }

    fn producer(&self) -> Arc<dyn Producer> {
        Arc::clone(&self.producer) as Arc<dyn Producer>
    }

    async fn consumer(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(KafkaConsumer::member(&self.config, self.context.clone(), group, topics)?))
    }

    async fn tail(&self, topics: &[&str], from: Start) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(KafkaConsumer::reader(&self.config, self.context.clone(), topics, from).await?))
    }

    async fn healthy(&self) -> bool {
        let config = client::base(&self.config);
        let context = self.context.clone();
        client::blocking(move || {
            let consumer = BaseConsumer::<Context>::from_config_and_context(&config, context)?;
            rdkafka::consumer::Consumer::fetch_metadata(&consumer, None, client::ANSWER).map(drop)
        })
        .await
        .is_ok()
    }
}
