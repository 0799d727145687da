//! What the relay does beside the sending: old events go, and what waits is counted.

use std::{sync::atomic::Ordering, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use database::Fault;
use tokio_util::sync::CancellationToken;

use super::{Now, RelayHandle};
use crate::store::{Store, Waiting};

/// Rows deleted by one statement.
const PRUNE_BATCH: u64 = 1_000;
/// Such statements in one upkeep at most.
const PRUNE_BATCHES: usize = 200;
/// How often old rows are deleted and the backlog is counted.
const UPKEEP: Duration = Duration::from_secs(5);
/// Where nothing was old enough, it is looked for again after so many.
const PRUNE_RESTS: u32 = 11;
/// How soon it is looked whether this relay became the active one.
const FIRST_UPKEEP: Duration = Duration::from_millis(200);

/// What goes on beside the sending, also while a send waits for a broker that is away.
pub(super) struct Upkeep {
    pub(super) service: String,
    pub(super) store: Store,
    pub(super) retention: Duration,
    pub(super) now: Now,
    pub(super) wake: RelayHandle,
    /// So many upkeeps to come look for nothing old.
    pub(super) prune_rests: u32,
}

impl Upkeep {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.tell(0.0, 0.0);
        let mut wait = FIRST_UPKEEP;
        while !stop.is_cancelled() {
            if self.wake.0.active.load(Ordering::Relaxed) {
                wait = UPKEEP;
                if let Err(fault) = self.once().await {
                    tracing::debug!(service = %self.service, %fault, "the outbox was not counted");
                }
            }
            let _stopped = tokio::time::timeout(wait, stop.cancelled()).await;
        }
    }

    /// Deletes old published rows and counts what waits.
    pub(super) async fn once(&mut self) -> Result<(), Fault> {
        let now = (self.now)();
        self.prune(now).await?;
        let waiting = self.waiting().await?;
        let lag = waiting.oldest.map_or(0.0, |oldest| (now - oldest).as_seconds_f64().max(0.0));
        #[expect(clippy::cast_precision_loss, reason = "a count for people")]
        self.tell(waiting.rows as f64, lag);
        Ok(())
    }

    /// What waits; it is not asked again where the active relay has just seen that nothing does.
    async fn waiting(&self) -> Result<Waiting, Fault> {
        if self.wake.0.empty.load(Ordering::Relaxed) { Ok(Waiting::default()) } else { self.store.backlog().await }
    }

    /// Deletes old published rows, unless there were none a minute ago.
    async fn prune(&mut self, now: DateTime<Utc>) -> Result<(), Fault> {
        if self.prune_rests > 0 {
            self.prune_rests -= 1;
            return Ok(());
        }
        let before = now - TimeDelta::from_std(self.retention).unwrap_or(TimeDelta::days(7));
        let young = self.store.first_since(before).await?;
        // As fast as rows come, or the table grows; but not for ever.
        for batch in 0..PRUNE_BATCHES {
            let gone = self.store.prune(young, PRUNE_BATCH).await?;
            if gone < PRUNE_BATCH {
                self.prune_rests = if batch == 0 && gone == 0 { PRUNE_RESTS } else { 0 };
                break;
            }
        }
        Ok(())
    }

    fn tell(&self, pending: f64, oldest_seconds: f64) {
        metrics::gauge!("outbox_pending", "service" => self.service.clone()).set(pending);
        metrics::gauge!("outbox_oldest_seconds", "service" => self.service.clone()).set(oldest_seconds);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on panics; that is how it tells")]

    use std::{
        path::Path,
        sync::{Arc, Mutex},
    };

    use broker::{Broker, EmbeddedBroker};
    use events::{Event, blog::Post, blog::PostPublished};
    use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};
    use uuid::Uuid;

    use super::*;
    use crate::{Relay, RelayConfig};

    type Time = Arc<Mutex<DateTime<Utc>>>;

    async fn outbox(folder: &Path) -> (DatabaseConnection, Time) {
        let db = database::sqlite(&folder.join("outbox.sqlite"));
        for statement in crate::tables::create(DbBackend::Sqlite) {
            db.execute_unprepared(&statement).await.unwrap();
        }
        (db, Arc::new(Mutex::new("2026-06-01T00:00:00Z".parse().unwrap())))
    }

    async fn relay(db: &DatabaseConnection, folder: &Path, time: &Time) -> Relay {
        let log = EmbeddedBroker::open(&folder.join("log.sqlite")).await.unwrap();
        let (store, time) = (Store::new(db.clone()), Arc::clone(time));
        let now = Arc::new(move || *time.lock().unwrap());
        Relay::new("blog", store, log.producer(), RelayConfig::default(), now, RelayHandle::default())
    }

    async fn say(db: &DatabaseConnection, time: &Time) {
        let (title, slug, status) = ("Bells".to_owned(), "bells".to_owned(), "published".to_owned());
        let post = Post { post_id: Uuid::now_v7(), title, slug, status, author_id: None, published_at: None };
        let event = Event::of(&PostPublished(post), 1, *time.lock().unwrap(), None);
        let tx = database::begin(db).await.unwrap();
        crate::record(&tx, &[event]).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn what_has_become_old_goes_within_a_minute_also_when_nothing_was_old_before() {
        let folder = tempfile::tempdir().unwrap();
        let (db, time) = outbox(folder.path()).await;
        say(&db, &time).await;
        let mut relay = relay(&db, folder.path(), &time).await;
        relay.drain().await.unwrap();
        let mut upkeep = relay.upkeep();
        upkeep.once().await.unwrap();
        *time.lock().unwrap() += TimeDelta::days(8);
        say(&db, &time).await;
        let before = upkeep.store.newest().await.unwrap();
        for _ in 0..60 / UPKEEP.as_secs() {
            upkeep.once().await.unwrap();
        }
        let left = upkeep.store.history(0, None, None, None, 10).await.unwrap();
        assert_eq!(left.iter().map(|row| row.position).collect::<Vec<_>>(), [before], "the young one stays");
    }

    #[tokio::test]
    async fn a_relay_that_was_replaced_does_not_say_for_ever_that_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (db, time) = outbox(folder.path()).await;
        let mut first = relay(&db, folder.path(), &time).await;
        first.drain().await.unwrap();
        assert_eq!(first.upkeep().waiting().await.unwrap().rows, 0);
        *time.lock().unwrap() += TimeDelta::minutes(1);
        let mut second = relay(&db, folder.path(), &time).await;
        second.drain().await.unwrap();
        say(&db, &time).await;
        first.drain().await.unwrap();
        assert_eq!(first.upkeep().waiting().await.unwrap().rows, 1);
    }
}
