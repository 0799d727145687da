//! Events as a consumer of Kafka sees them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use broker::{Broker, Consumer, KafkaBroker, KafkaConfig, Message, Start};
use events::Event;

/// Everything in some topics, from the beginning or from now on.
pub struct Recorded {
    consumer: Box<dyn Consumer>,
    messages: Vec<Message>,
}

impl Recorded {
    /// Begins to read these topics of the test run's Kafka with what comes from now on. They are made where missing.
    ///
    /// # Panics
    /// When Kafka does not answer.
    pub async fn of(topics: &[&str]) -> Self {
        let broker = KafkaBroker::new(KafkaConfig::new(&crate::kafka())).expect("a client can be made");
        let known: Vec<broker::Topic> =
            topics.iter().filter_map(|name| events::by_name(name)).map(broker::Topic::from).collect();
        broker.producer().ensure_topics(&known).await.expect("topics can be made");
        let consumer = broker.tail(topics, Start::Latest).await.expect("topics can be read");
        Self { consumer, messages: Vec::new() }
    }

    /// Reads until `enough` says so, at most `patience`; all messages so far.
    ///
    /// # Panics
    /// When there is not enough by then.
    pub async fn until(&mut self, patience: Duration, mut enough: impl FnMut(&[Message]) -> bool) -> &[Message] {
        let began = Instant::now();
        while !enough(&self.messages) {
            assert!(began.elapsed() < patience, "{} messages within {patience:?}", self.messages.len());
            self.messages.extend(self.consumer.poll(5_000, Duration::from_millis(200)).await.expect("Kafka answers"));
        }
        &self.messages
    }

    /// Reads what comes within a moment in which nothing comes; all messages so far.
    ///
    /// # Panics
    /// When Kafka does not answer.
    pub async fn settled(&mut self) -> &[Message] {
        loop {
            let more = self.consumer.poll(5_000, Duration::from_millis(800)).await.expect("Kafka answers");
            if more.is_empty() {
                return &self.messages;
            }
            self.messages.extend(more);
        }
    }

    /// The events so far, by key.
    ///
    /// # Panics
    /// When one of them is none.
    pub fn by_key(&self) -> HashMap<String, Vec<Event>> {
        let mut by_key: HashMap<String, Vec<Event>> = HashMap::new();
        for message in &self.messages {
            let event = Event::from_json(&message.body).expect("an event");
            by_key.entry(message.key.clone()).or_default().push(event);
        }
        by_key
    }
}
