//! A listener on both databases, which adds up what it hears.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use broker::{Broker, EmbeddedBroker, Record};
use chrono::{DateTime, Utc};
use events::{Event, blog::PostPublished};
use inbox::{Listen, ListenError, Listener, ListenerConfig, Order};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement};
use test_kit::{Tables, eventually};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TOPIC: &str = "blog.post.published";

fn tables(backend: DbBackend) -> Vec<String> {
    let mut statements = inbox::tables::create(backend);
    statements
        .push("CREATE TABLE heard (key text PRIMARY KEY, times bigint NOT NULL, sequence bigint NOT NULL)".to_owned());
    statements
}

/// Counts what it hears, by key; some events are more than it can bear.
pub(crate) struct Counting {
    pub(crate) order: Order,
    pub(crate) poison: Mutex<HashSet<Uuid>>,
    /// Every call fails so many times as if the database were away.
    pub(crate) away: AtomicUsize,
    pub(crate) calls: AtomicUsize,
}

#[async_trait]
impl Listen for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn topics(&self) -> Vec<&'static str> {
        vec![TOPIC]
    }

    fn order(&self) -> Order {
        self.order
    }

    async fn on(&self, tx: &DatabaseTransaction, events: &[Event], _now: DateTime<Utc>) -> Result<(), ListenError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        for event in events {
            let sql = "INSERT INTO heard (key, times, sequence) VALUES ($1, 1, $2)
                 ON CONFLICT (key) DO UPDATE SET times = heard.times + 1, sequence = excluded.sequence";
            let values = [event.subject.clone().into(), event.sequence.into()];
            let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
            tx.execute_raw(statement).await.map_err(ListenError::failed)?;
        }
        if self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(ListenError::Transient("away".to_owned()));
        }
        match events.iter().find(|event| self.poison.lock().unwrap().contains(&event.id)) {
            Some(bad) if bad.sequence < 0 => panic!("event {} is too much", bad.id),
            Some(bad) => Err(ListenError::failed(format!("event {} is poison", bad.id))),
            None => Ok(()),
        }
    }
}

/// One service that listens, and the log it hears.
pub(crate) struct World {
    pub(crate) tables: Tables,
    pub(crate) log: Arc<EmbeddedBroker>,
    pub(crate) listen: Arc<Counting>,
    pub(crate) now: DateTime<Utc>,
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn both(order: Order) -> Vec<Self> {
        let mut worlds = Vec::new();
        for tables in Tables::both(tables).await {
            let folder = tempfile::tempdir().unwrap();
            let log = EmbeddedBroker::open(&folder.path().join("log.sqlite")).await.unwrap();
            let topic = broker::Topic::from(events::by_name(TOPIC).unwrap());
            log.producer().ensure_topics(&[topic]).await.unwrap();
            let listen =
                Counting { order, poison: Mutex::default(), away: AtomicUsize::new(0), calls: AtomicUsize::new(0) };
            // Ids carry the real time, so the listener's must not be far from it.
            #[expect(clippy::disallowed_methods, reason = "the time at which this test's ids are made")]
            let now = Utc::now();
            worlds.push(Self { tables, log: Arc::new(log), listen: Arc::new(listen), now, folder });
        }
        worlds
    }

    pub(crate) fn event(&self, key: Uuid, sequence: i64) -> Event {
        let post = events::blog::Post {
            post_id: key,
            title: "Bells".to_owned(),
            slug: "bells".to_owned(),
            status: "published".to_owned(),
            author_id: None,
            published_at: Some(self.now),
        };
        Event::of(&PostPublished(post), sequence, self.now, None)
    }

    /// Puts an event into the log; `again`: as if a relay were not sure, past the log's own memory of ids.
    pub(crate) async fn send(&self, event: &Event, again: &str) {
        self.send_bytes(event.id, &event.subject, event.to_json(), again).await;
    }

    pub(crate) async fn send_bytes(&self, id: Uuid, key: &str, body: Vec<u8>, again: &str) {
        let headers = vec![(broker::REPLAY_HEADER.to_owned(), again.as_bytes().to_vec())];
        let (topic, key) = (TOPIC.to_owned(), key.to_owned());
        let sent = self.log.producer().send(vec![Record { id, topic, key, body: body.into(), headers }]).await;
        assert_eq!(sent, [Ok(())]);
    }

    pub(crate) fn listener(&self) -> Listener {
        let quick = Duration::from_millis(1);
        let config = ListenerConfig { retries: vec![quick, quick], away: quick };
        let (db, log) = (self.tables.db.clone(), Arc::clone(&self.log) as Arc<dyn Broker>);
        let (listen, now) = (Arc::clone(&self.listen) as Arc<dyn Listen>, self.now);
        Listener::new("test", db, log, listen, config, Arc::new(move || now), Box::new(|| {}))
    }

    /// Listens until the group has nothing left to hear.
    pub(crate) async fn hear(&self) {
        let (stop, listener) = (CancellationToken::new(), self.listener());
        let heard = async {
            eventually("everything is heard", async || {
                let sql = "SELECT count(*) AS n FROM events e LEFT JOIN groups g ON g.topic = e.topic AND
                    g.name = 'test.counting' WHERE e.offset >= coalesce(g.next, 0)";
                let left = self.log_rows(sql).await;
                (left == 0).then_some(())
            })
            .await;
            stop.cancel();
        };
        tokio::join!(listener.run(stop.clone()), heard);
    }

    async fn log_rows(&self, sql: &str) -> i64 {
        let file = self.folder.path().join("log.sqlite");
        let db = sea_orm::Database::connect(format!("sqlite://{}", file.display())).await.unwrap();
        let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap().unwrap();
        let n = row.try_get("", "n").unwrap();
        db.close().await.unwrap();
        n
    }

    /// How often a key was heard, and its last sequence.
    pub(crate) async fn heard(&self, key: Uuid) -> Option<(i64, i64)> {
        let backend = self.tables.db.get_database_backend();
        let sql = "SELECT times, sequence FROM heard WHERE key = $1";
        let statement = Statement::from_sql_and_values(backend, sql, [key.to_string().into()]);
        let row = self.tables.db.query_one_raw(statement).await.unwrap()?;
        Some((row.try_get("", "times").unwrap(), row.try_get("", "sequence").unwrap()))
    }
}
