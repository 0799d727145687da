//! The relay: what is recorded is sent, oldest first, and marked when the broker has it.

mod keys;
mod upkeep;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use broker::{Producer, Record, SendError, Topic};
use chrono::{DateTime, TimeDelta, Utc};
use database::Fault;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{keys::Blocked, upkeep::Upkeep};
use crate::{RelayConfig, Store, store::OutboxRow};

/// After an error of the database.
const RETRY: Duration = Duration::from_millis(500);
/// How long a stop waits for the broker.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Where the time comes from.
type Now = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// The relay of one service. One is active at a time in the whole cluster.
pub struct Relay {
    service: String,
    owner: String,
    store: Store,
    producer: Arc<dyn Producer>,
    config: RelayConfig,
    now: Now,
    wake: RelayHandle,
    epoch: Option<i64>,
    leased_until: DateTime<Utc>,
    blocked: Blocked,
    topics_made: bool,
    /// Read while those before them were sent.
    ahead: Option<Vec<OutboxRow>>,
}

/// Wakes a relay.
#[derive(Clone, Default)]
pub struct RelayHandle(Arc<Bells>);

#[derive(Default)]
struct Bells {
    here: Notify,
    elsewhere: Notify,
    active: AtomicBool,
    /// When the active relay last looked, nothing waited.
    empty: AtomicBool,
}

impl RelayHandle {
    /// Something was recorded here. Only a hint: losing it costs at most a poll's time.
    pub fn wake(&self) {
        self.0.here.notify_one();
        if !self.0.active.load(Ordering::Relaxed) {
            self.0.elsewhere.notify_one();
        }
    }

    /// Something was recorded by another process.
    pub fn heard(&self) {
        self.0.here.notify_one();
    }

    /// Returns when something was recorded here while the relay of another process is the active one: it should hear.
    pub async fn recorded_for_another(&self) {
        self.0.elsewhere.notified().await;
    }
}

/// What a turn of the relay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It sent rows; there may be more.
    Sent,
    /// Nothing waits that can be sent now.
    Idle,
    /// Another relay is active.
    Standby,
}

impl Relay {
    /// The relay of `service`; `now` is the database's time as the process estimates it, `wake` wakes it.
    pub fn new(
        service: &str,
        store: Store,
        producer: Arc<dyn Producer>,
        config: RelayConfig,
        now: Now,
        wake: RelayHandle,
    ) -> Self {
        let leased_until = now();
        Self {
            service: service.to_owned(),
            owner: format!("{service}-{}-{}", std::process::id(), Uuid::now_v7().simple()),
            store,
            producer,
            config,
            now,
            wake,
            epoch: None,
            leased_until,
            blocked: Blocked::default(),
            topics_made: false,
            ahead: None,
        }
    }

    /// Relays until `stop`; then sends what is in hand and gives the right to relay back.
    pub async fn run(self, stop: CancellationToken) {
        let upkeep = self.upkeep().run(stop.clone());
        tokio::join!(self.relay(stop), upkeep);
    }

    fn upkeep(&self) -> Upkeep {
        let (service, store, retention) = (self.service.clone(), self.store.clone(), self.config.retention);
        Upkeep { service, store, retention, now: Arc::clone(&self.now), wake: self.wake.clone(), prune_rests: 0 }
    }

    async fn relay(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // A send may wait a minute for a broker that is away; a stop does not. Dropping a turn loses nothing: what
            // was not marked is sent again.
            let turn = tokio::select! {
                turn = self.turn() => turn,
                () = patience(&stop) => break,
            };
            let pause = match turn {
                Ok(Turn::Sent) => continue,
                Ok(Turn::Idle) => self.blocked.next_in().map_or(self.config.poll, |next| next.min(self.config.poll)),
                Ok(Turn::Standby) => self.config.poll,
                Err(fault) => {
                    tracing::warn!(service = %self.service, %fault, "the outbox cannot be read; trying again");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.0.here.notified() => {}
                _ = tokio::time::timeout(pause, std::future::pending::<()>()) => {}
            }
        }
        // A last look, for what was recorded by the requests and runs that ended meanwhile.
        match tokio::time::timeout(STOP_PATIENCE, self.drain()).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!(service = %self.service, %fault, "the outbox was not emptied at the stop"),
            Err(_) => {
                tracing::warn!(service = %self.service, "the broker does not answer; events leave after the next start");
            }
        }
        self.resign().await;
    }

    /// Sends until nothing waits that can be sent, and does the upkeep once; for tests and for a stop.
    pub async fn drain(&mut self) -> Result<(), Fault> {
        self.upkeep().once().await?;
        while self.turn().await? == Turn::Sent {}
        Ok(())
    }

    async fn resign(&mut self) {
        self.wake.0.active.store(false, Ordering::Relaxed);
        if let Some(epoch) = self.epoch.take()
            && let Err(fault) = self.store.resign(&self.owner, epoch, (self.now)()).await
        {
            tracing::debug!(service = %self.service, %fault, "the relay's lease ends by itself");
        }
    }

    async fn turn(&mut self) -> Result<Turn, Fault> {
        let ahead = self.ahead.take();
        let Some(epoch) = self.lease().await? else {
            // What it saw when it was the active one is not so any more.
            self.wake.0.empty.store(false, Ordering::Relaxed);
            return Ok(Turn::Standby);
        };
        self.make_topics().await;
        let blocked = self.blocked.keys();
        let all_may_leave = blocked.is_empty();
        let rows = match ahead {
            Some(rows) => rows,
            None => self.store.waiting(self.limits(), &blocked, &[]).await?,
        };
        let (read, full) = (rows.len(), self.is_full(&rows));
        let rows = self.capped(rows);
        self.wake.0.empty.store(rows.is_empty() && all_may_leave, Ordering::Relaxed);
        if rows.is_empty() {
            return Ok(Turn::Idle);
        }
        // Where more waits, and none of these was left out, the next are read while these are sent and marked.
        let more = full && read == rows.len();
        let next = self.next(&rows);
        let next = async { if more { next.await.ok() } else { None } };
        let (sent, next) = tokio::join!(self.send(rows, epoch), next);
        // Of a key that did not leave, none that comes after may leave first.
        self.ahead = next.filter(|_| matches!(sent, Ok(true)));
        sent.map(|_| Turn::Sent)
    }

    /// Rows and bytes of one read.
    fn limits(&self) -> (u64, u64) {
        (self.config.batch, self.config.batch_bytes)
    }

    /// Whether a read brought as much as it may, so that there may be more.
    fn is_full(&self, rows: &[OutboxRow]) -> bool {
        let bytes: usize = rows.iter().map(|row| row.body.len()).sum();
        rows.len() as u64 >= self.config.batch || bytes as u64 >= self.config.batch_bytes
    }

    /// What waits beside these, which are on their way. By their positions, not after the last of them: one of a lower
    /// position may have been committed since.
    fn next(&self, sent: &[OutboxRow]) -> impl Future<Output = Result<Vec<OutboxRow>, Fault>> + use<> {
        let (store, limits) = (self.store.clone(), self.limits());
        let blocked: Vec<String> = self.blocked.keys().into_iter().map(str::to_owned).collect();
        let sent: Vec<i64> = sent.iter().map(|row| row.position).collect();
        async move { store.waiting(limits, &blocked, &sent).await }
    }

    /// Sends rows and marks what arrived. Whether that is all of them, and this relay is still the active one.
    async fn send(&mut self, rows: Vec<OutboxRow>, epoch: i64) -> Result<bool, Fault> {
        let (rows, records): (Vec<Sent>, Vec<Record>) = rows.into_iter().map(sent).unzip();
        let answers = self.producer.send(records).await;
        self.settle(&rows, &answers, epoch).await?;
        Ok(self.epoch.is_some() && answers.iter().all(Result::is_ok))
    }

    /// The epoch under which this relay is active; renewed at a third of the lease.
    async fn lease(&mut self) -> Result<Option<i64>, Fault> {
        let now = (self.now)();
        let lease = TimeDelta::from_std(self.config.lease).unwrap_or(TimeDelta::seconds(15));
        if self.epoch.is_none() || now > self.leased_until - lease * 2 / 3 {
            let epoch = self.store.lease(&self.owner, now, now + lease).await?;
            if epoch.is_some() && self.epoch != epoch {
                tracing::info!(service = %self.service, epoch, "this replica relays events now");
            }
            self.epoch = epoch;
            self.wake.0.active.store(epoch.is_some(), Ordering::Relaxed);
            self.leased_until = now + lease;
        }
        Ok(self.epoch)
    }

    /// Keeps the first rows of each key, so that one key cannot fill every read.
    fn capped(&self, rows: Vec<OutboxRow>) -> Vec<OutboxRow> {
        let mut of_key: HashMap<String, u64> = HashMap::new();
        let cap = self.config.batch_of_key;
        rows.into_iter()
            .filter(|row| {
                let count = of_key.entry(row.key.clone()).or_default();
                *count += 1;
                *count <= cap
            })
            .collect()
    }

    async fn make_topics(&mut self) {
        if self.topics_made {
            return;
        }
        let topics: Vec<Topic> = events::said_by(&self.service).map(Topic::from).collect();
        match self.producer.ensure_topics(&topics).await {
            Ok(()) => self.topics_made = true,
            Err(error) => tracing::debug!(service = %self.service, %error, "topics could not be made yet"),
        }
    }

    /// Marks the unbroken beginning of each key; refused rows are buried and their key goes on; the rest waits.
    async fn settle(&mut self, rows: &[Sent], answers: &[Result<(), SendError>], epoch: i64) -> Result<(), Fault> {
        let (mut marked, mut refused) = (Vec::new(), Vec::new());
        let mut broken: HashMap<&str, &str> = HashMap::new();
        for (row, answer) in rows.iter().zip(answers) {
            if broken.contains_key(row.key.as_str()) {
                continue;
            }
            match answer {
                Ok(()) => marked.push(row),
                Err(SendError::Permanent(why)) if self.topics_made => refused.push((row, why)),
                Err(SendError::UnknownTopic(why)) => {
                    // Just made and not known everywhere, or taken away: nothing that waits is to blame.
                    self.topics_made = false;
                    broken.insert(&row.key, why);
                }
                Err(SendError::Permanent(why) | SendError::Transient(why)) => {
                    broken.insert(&row.key, why);
                }
            }
        }
        let positions: Vec<i64> = marked.iter().map(|row| row.position).collect();
        if !self.store.mark(&positions, &self.owner, epoch).await? {
            // The marks were refused: another relay is active, and sends these rows again with the same ids.
            self.epoch = None;
            self.wake.0.active.store(false, Ordering::Relaxed);
            tracing::warn!(service = %self.service, "another replica relays events; this one came back too late");
            return Ok(());
        }
        let mut of_topic: HashMap<&str, u64> = HashMap::new();
        for row in &marked {
            *of_topic.entry(&row.topic).or_default() += 1;
            self.blocked.free(&row.key);
        }
        for (topic, count) in of_topic {
            metrics::counter!("kafka_messages_produced_total", "service" => self.service.clone(), "topic" => topic.to_owned())
                .increment(count);
        }
        for (row, why) in refused {
            tracing::error!(service = %self.service, event = %row.id, topic = %row.topic, why, "the broker refuses an event; it is among the dead letters");
            self.store.bury(row.id, why, (self.now)()).await.map_err(as_fault)?;
        }
        if let Some((key, why)) = broken.iter().next() {
            tracing::debug!(service = %self.service, keys = broken.len(), key, why, "events wait for the broker");
        }
        for key in broken.into_keys() {
            self.blocked.block(key);
        }
        Ok(())
    }
}

/// A stop waits so long for what is being sent.
async fn patience(stop: &CancellationToken) {
    stop.cancelled().await;
    let _elapsed = tokio::time::timeout(STOP_PATIENCE, std::future::pending::<()>()).await;
}

fn as_fault(error: crate::Error) -> Fault {
    match error {
        crate::Error::Database(fault) => fault,
        other => Fault::Broken(other.to_string()),
    }
}

/// What the relay keeps of an event that is on its way.
struct Sent {
    position: i64,
    id: Uuid,
    topic: String,
    key: String,
}

/// An event as it is sent, and what is kept of it; its body and headers are not copied.
fn sent(row: OutboxRow) -> (Sent, Record) {
    let OutboxRow { position, id, topic, key, body, headers, .. } = row;
    let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    (Sent { position, id, topic: topic.clone(), key: key.clone() }, Record { id, topic, key, body, headers })
}
