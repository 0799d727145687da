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
const PRUNE_RESTS: u32 = 12;
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
        let waiting =
            if self.wake.0.empty.load(Ordering::Relaxed) { Waiting::default() } else { self.store.backlog().await? };
        let lag = waiting.oldest.map_or(0.0, |oldest| (now - oldest).as_seconds_f64().max(0.0));
        #[expect(clippy::cast_precision_loss, reason = "a count for people")]
        self.tell(waiting.rows as f64, lag);
        Ok(())
    }

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
