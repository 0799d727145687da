//! An outbox on both databases, before a log whose answers a test can spoil.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use broker::{Broker, BrokerError, EmbeddedBroker, Message, Producer, Record, SendError, Start, Topic};
use chrono::{DateTime, TimeDelta, Utc};
use events::{Event, blog::PostPublished};
use outbox::{Relay, RelayConfig, RelayHandle, Store};
use sea_orm::{DatabaseConnection, DbBackend};
use test_kit::Tables;
use uuid::Uuid;

pub(crate) fn tables(backend: DbBackend) -> Vec<String> {
    let mut statements = outbox::tables::create(backend);
    statements.extend(broker::dead_letters::tables(backend));
    statements
}

/// What the broker answers to records of a key, before the log sees them.
#[derive(Clone)]
pub(crate) enum Spoil {
    /// Not kept.
    Transient,
    /// Never will be.
    Permanent,
    /// The topic is not known yet.
    UnknownTopic,
    /// The first record is not kept, those after it are.
    OnlyFirst,
    /// Kept, but nobody says so.
    KeptUnsaid,
}

/// The log's producer, with answers spoiled by key.
pub(crate) struct Spoiled {
    inner: Arc<dyn Producer>,
    pub(crate) by_key: Mutex<HashMap<String, Spoil>>,
    /// What happens once, just when records are about to be sent.
    pub(crate) meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// How many records each send had.
    pub(crate) sends: Mutex<Vec<usize>>,
}

#[async_trait]
impl Producer for Spoiled {
    async fn send(&self, records: Vec<Record>) -> Vec<Result<(), SendError>> {
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        self.sends.lock().unwrap().push(records.len());
        let spoiled: Vec<Option<Spoil>> = {
            let by_key = self.by_key.lock().unwrap();
            let mut seen = std::collections::HashSet::new();
            let spoil = |record: &Record| match by_key.get(&record.key).cloned() {
                Some(Spoil::OnlyFirst) => seen.insert(record.key.clone()).then_some(Spoil::Transient),
                spoil => spoil,
            };
            records.iter().map(spoil).collect()
        };
        let pass = records.into_iter().zip(&spoiled);
        let through: Vec<Record> = pass
            .filter(|(_, spoil)| !matches!(spoil, Some(Spoil::Transient | Spoil::Permanent | Spoil::UnknownTopic)))
            .map(|(record, _)| record)
            .collect();
        let mut answers = self.inner.send(through).await.into_iter();
        spoiled
            .iter()
            .map(|spoil| match spoil {
                Some(Spoil::Transient) => Err(SendError::Transient("spoiled".to_owned())),
                Some(Spoil::Permanent) => Err(SendError::Permanent("spoiled".to_owned())),
                Some(Spoil::UnknownTopic) => Err(SendError::UnknownTopic("spoiled".to_owned())),
                Some(Spoil::KeptUnsaid) => {
                    answers.next();
                    Err(SendError::Transient("unsaid".to_owned()))
                }
                Some(Spoil::OnlyFirst) | None => answers.next().unwrap(),
            })
            .collect()
    }

    async fn ensure_topics(&self, topics: &[Topic]) -> Result<(), BrokerError> {
        self.inner.ensure_topics(topics).await
    }
}

/// One service's outbox, and the log it leaves by.
pub(crate) struct World {
    pub(crate) tables: Tables,
    pub(crate) producer: Arc<Spoiled>,
    pub(crate) now: Arc<Mutex<DateTime<Utc>>>,
    log: EmbeddedBroker,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn both() -> Vec<Self> {
        let mut worlds = Vec::new();
        for tables in Tables::both(tables).await {
            worlds.push(Self::of(tables).await);
        }
        worlds
    }

    pub(crate) async fn of(tables: Tables) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = EmbeddedBroker::open(&folder.path().join("log.sqlite")).await.unwrap();
        let producer = Arc::new(Spoiled {
            inner: log.producer(),
            by_key: Mutex::default(),
            meanwhile: Mutex::default(),
            sends: Mutex::default(),
        });
        let now = Arc::new(Mutex::new("2026-06-01T00:00:00Z".parse().unwrap()));
        Self { tables, producer, now, log, _folder: folder }
    }

    pub(crate) fn db(&self) -> &DatabaseConnection {
        &self.tables.db
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.db().clone())
    }

    pub(crate) fn time(&self) -> DateTime<Utc> {
        *self.now.lock().unwrap()
    }

    pub(crate) fn pass(&self, seconds: i64) {
        *self.now.lock().unwrap() += TimeDelta::seconds(seconds);
    }

    pub(crate) fn relay(&self) -> Relay {
        self.relay_with(RelayConfig::default())
    }

    pub(crate) fn relay_with(&self, config: RelayConfig) -> Relay {
        let now = Arc::clone(&self.now);
        let clock = Arc::new(move || *now.lock().unwrap());
        let producer = Arc::clone(&self.producer) as Arc<dyn Producer>;
        Relay::new("blog", self.store(), producer, config, clock, RelayHandle::default())
    }

    pub(crate) fn spoil(&self, key: Uuid, spoil: Spoil) {
        self.producer.by_key.lock().unwrap().insert(key.to_string(), spoil);
    }

    pub(crate) fn mend(&self) {
        self.producer.by_key.lock().unwrap().clear();
    }

    /// Records events in a transaction of their own.
    pub(crate) async fn record(&self, events: &[Event]) {
        let tx = database::begin(self.db()).await.unwrap();
        outbox::record(&tx, events).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Everything the log has, in its order.
    pub(crate) async fn arrived(&self) -> Vec<Message> {
        let mut reader = self.log.tail(&["blog.post.published"], Start::Earliest).await.unwrap();
        reader.poll(100_000, Duration::ZERO).await.unwrap()
    }

    /// The sequences that arrived of a key, in their order.
    pub(crate) async fn sequences(&self, key: Uuid) -> Vec<i64> {
        let of_key = self.arrived().await.into_iter().filter(|message| message.key == key.to_string());
        of_key.map(|message| Event::from_json(&message.body).unwrap().sequence).collect()
    }

    /// How many wait.
    pub(crate) async fn waiting(&self) -> usize {
        self.store().list(0, 100_000).await.unwrap().len()
    }
}

/// That a post was published.
pub(crate) fn published(post: Uuid, sequence: i64, now: DateTime<Utc>) -> Event {
    let post = events::blog::Post {
        post_id: post,
        title: "Bells".to_owned(),
        slug: "bells".to_owned(),
        status: "published".to_owned(),
        author_id: None,
        published_at: Some(now),
    };
    Event::of(
        &PostPublished(post),
        sequence,
        now,
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    )
}
