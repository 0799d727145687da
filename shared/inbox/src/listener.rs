//! The runner of a listener: poll, take, commit; what fails is tried again, then set aside as a dead letter.

use std::{sync::Arc, time::Duration};

use broker::{
    Broker, BrokerError, Consumer, Message, Position,
    dead_letters::{self, DeadLetter, Direction},
};
use chrono::{DateTime, TimeDelta, Utc};
use database::Fault;
use events::Event;
use sea_orm::DatabaseConnection;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Error, Listen,
    apply::{Applied, apply},
    store,
};

/// Messages that one poll brings at most.
const BATCH: usize = 500;
/// How long a poll waits.
const POLL: Duration = Duration::from_secs(1);
/// An event older than this cannot be told from one that was taken: ids are forgotten after it.
pub const REMEMBERED: TimeDelta = TimeDelta::days(30);
/// Ids forgotten by one statement.
const PRUNE_BATCH: u64 = 1_000;
/// Such statements in one upkeep at most: more than the ids that came since the one before.
const PRUNE_BATCHES: usize = 10;

/// How a listener treats what fails.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Waits before each further try of a single event.
    pub retries: Vec<Duration>,
    /// First wait while the database or the broker is away, doubling to 30 s.
    pub away: Duration,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self { retries: vec![Duration::from_secs(1), Duration::from_secs(5)], away: Duration::from_millis(200) }
    }
}

/// Where the time comes from.
type Now = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Runs one listener of one service.
pub struct Listener {
    service: String,
    group: String,
    db: DatabaseConnection,
    broker: Arc<dyn Broker>,
    listen: Arc<dyn Listen>,
    config: ListenerConfig,
    now: Now,
    taken: Box<dyn Fn() + Send + Sync>,
}

/// A message that is an event, or why it is not.
enum Read {
    Event(Box<Event>),
    Letter(String),
}

impl Listener {
    /// The listener of `service`; `taken` is called after each batch that was committed (to nudge the scheduler).
    pub fn new(
        service: &str,
        db: DatabaseConnection,
        broker: Arc<dyn Broker>,
        listen: Arc<dyn Listen>,
        config: ListenerConfig,
        now: Now,
        taken: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let group = format!("{service}.{}", listen.name());
        Self { service: service.to_owned(), group, db, broker, listen, config, now, taken }
    }

    /// Listens until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut wait = self.config.away;
        while !stop.is_cancelled() {
            let Err(error) = self.session(&stop).await else { return };
            tracing::warn!(service = %self.service, listener = self.listen.name(), %error, "events are not heard; trying again");
            pause(&stop, wait).await;
            wait = (wait * 2).min(Duration::from_secs(30));
        }
    }

    /// One membership of the group, until it must be begun anew.
    async fn session(&self, stop: &CancellationToken) -> Result<(), Error> {
        let mut consumer = self.broker.consumer(&self.group, &self.listen.topics()).await?;
        let ended = self.hear(consumer.as_mut(), stop).await;
        consumer.close().await;
        ended
    }

    async fn hear(&self, consumer: &mut dyn Consumer, stop: &CancellationToken) -> Result<(), Error> {
        let mut away = self.config.away;
        let mut turns = 0_u32;
        while !stop.is_cancelled() {
            let messages = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                messages = consumer.poll(BATCH, POLL) => messages?,
            };
            turns += 1;
            if turns.is_multiple_of(15) {
                self.upkeep(consumer).await;
            }
            if messages.is_empty() {
                continue;
            }
            match self.take(&messages, stop).await {
                Ok(()) => {
                    away = self.config.away;
                    match consumer.commit(&positions(&messages)).await {
                        // Somebody else has the partition and takes these again; the inbox knows them.
                        Ok(()) | Err(BrokerError::Lost(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                    (self.taken)();
                }
                Err(error) => {
                    tracing::warn!(service = %self.service, %error, "events wait for the database");
                    consumer.rewind(&positions(&messages)).await?;
                    pause(stop, away).await;
                    away = (away * 2).min(Duration::from_secs(30));
                }
            }
        }
        Ok(())
    }

    /// Takes a batch in the order it came; the error is the database's, and nothing is decided then.
    async fn take(&self, messages: &[Message], stop: &CancellationToken) -> Result<(), Fault> {
        let mut batch = Vec::with_capacity(messages.len());
        for message in messages {
            match self.read(message) {
                Read::Event(event) => batch.push((*event, message)),
                Read::Letter(why) => self.bury(message, None, &why, 1).await?,
            }
        }
        let events: Vec<Event> = batch.iter().map(|(event, _)| event.clone()).collect();
        let count = events.len();
        match apply(&self.db, &self.listen, &self.group, events, (self.now)()).await {
            Applied::Done => {}
            Applied::Away(text) => return Err(Fault::Unavailable(text)),
            Applied::Failed(failed) => {
                for (event, why) in failed {
                    if let Some((_, message)) = batch.iter().find(|(other, _)| other.id == event.id) {
                        self.retry(event, message, why, stop).await?;
                    }
                }
            }
        }
        metrics::counter!("kafka_messages_consumed_total", "service" => self.service.clone(), "consumer" => self.group.clone())
            .increment(count as u64);
        Ok(())
    }

    fn read(&self, message: &Message) -> Read {
        match Event::from_json(&message.body) {
            Err(error) => Read::Letter(error.to_string()),
            Ok(event) if born(event.id).is_some_and(|born| (self.now)() - born > REMEMBERED) => {
                Read::Letter("too old to deduplicate".to_owned())
            }
            Ok(event) => Read::Event(Box::new(event)),
        }
    }

    /// A single event that failed: again after each wait, then a dead letter.
    async fn retry(
        &self,
        event: Event,
        message: &Message,
        mut why: String,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        for wait in &self.config.retries {
            pause(stop, *wait).await;
            if stop.is_cancelled() {
                return Err(Fault::Unavailable("stopping".to_owned()));
            }
            match apply(&self.db, &self.listen, &self.group, vec![event.clone()], (self.now)()).await {
                Applied::Done => return Ok(()),
                Applied::Away(text) => return Err(Fault::Unavailable(text)),
                Applied::Failed(failed) => why = failed.into_iter().next().map_or(why, |(_, why)| why),
            }
        }
        let attempts = i32::try_from(self.config.retries.len() + 1).unwrap_or(i32::MAX);
        self.bury(message, Some(event.id), &why, attempts).await
    }

    async fn bury(&self, message: &Message, event_id: Option<Uuid>, why: &str, attempts: i32) -> Result<(), Fault> {
        tracing::error!(service = %self.service, listener = self.listen.name(), topic = %message.topic,
            partition = message.partition, offset = message.offset, why, "an event cannot be taken; it is among the dead letters");
        metrics::counter!("inbox_dead_letters_total", "service" => self.service.clone(), "consumer" => self.group.clone())
            .increment(1);
        let letter = DeadLetter {
            id: Uuid::now_v7(),
            direction: Direction::In,
            consumer: self.group.clone(),
            topic: message.topic.clone(),
            partition: Some(message.partition),
            offset: Some(message.offset),
            key: message.key.clone(),
            event_id,
            body: message.body.to_vec(),
            headers: dead_letters::headers_to_json(&message.headers),
            error: why.to_owned(),
            attempts,
            given_up_at: (self.now)(),
        };
        let db = self.db.clone();
        database::uncancelled(async move {
            let tx = database::begin(&db).await?;
            dead_letters::keep(&tx, &letter).await?;
            Ok::<(), Fault>(tx.commit().await?)
        })
        .await
    }

    /// Takes a dead letter of this listener out and tries it once more. False: it is not this listener's, or not there.
    ///
    /// # Errors
    /// The reason it failed again; the letter stays.
    pub async fn replay(&self, letter: &DeadLetter) -> Result<bool, crate::ListenError> {
        if letter.consumer != self.group || letter.direction != Direction::In {
            return Ok(false);
        }
        let event = Event::from_json(&letter.body).map_err(crate::ListenError::failed)?;
        match apply(&self.db, &self.listen, &self.group, vec![event], (self.now)()).await {
            Applied::Done => {}
            Applied::Away(text) => return Err(crate::ListenError::Transient(text)),
            Applied::Failed(failed) => {
                let why = failed.into_iter().next().map_or_else(String::new, |(_, why)| why);
                return Err(crate::ListenError::Failed(why));
            }
        }
        let (db, id) = (self.db.clone(), letter.id);
        let gone = database::uncancelled(async move {
            let tx = database::begin(&db).await?;
            let gone = dead_letters::take(&tx, id).await?.is_some();
            tx.commit().await?;
            Ok::<bool, Fault>(gone)
        });
        Ok(gone.await?)
    }

    /// Says how far behind it is, and forgets old ids.
    async fn upkeep(&self, consumer: &mut dyn Consumer) {
        match consumer.lag().await {
            Ok(lag) => {
                for ((topic, partition), behind) in lag {
                    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
                    metrics::gauge!("kafka_consumer_lag", "service" => self.service.clone(), "consumer" => self.group.clone(),
                        "topic" => topic, "partition" => partition.to_string())
                    .set(behind as f64);
                }
            }
            Err(error) => tracing::debug!(%error, "the lag could not be read"),
        }
        for _ in 0..PRUNE_BATCHES {
            match store::prune(&self.db, (self.now)() - REMEMBERED, PRUNE_BATCH).await {
                Ok(PRUNE_BATCH) => {}
                Ok(_) => break,
                Err(fault) => {
                    tracing::debug!(%fault, "old ids were not forgotten");
                    break;
                }
            }
        }
    }
}

/// When a UUIDv7 was made.
fn born(id: Uuid) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

fn positions(messages: &[Message]) -> Vec<Position> {
    messages
        .iter()
        .map(|message| Position { topic: message.topic.clone(), partition: message.partition, offset: message.offset })
        .collect()
}

async fn pause(stop: &CancellationToken, wait: Duration) {
    let _either = tokio::time::timeout(wait, stop.cancelled()).await;
}
