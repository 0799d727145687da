//! How a replica begins: it says what it is configured to do, and makes the run on start.

use std::time::Duration;

use super::{Dispatcher, RETRY};
use crate::{
    ledger::{ReplicaRow, ScheduleRow},
    policy,
    runner::mail::CHANGED,
    store::{Announcement, Store},
};

/// A replica that was not seen for so long does not live.
pub(super) const LIVE: Duration = Duration::from_secs(90);

impl<S: Store> Dispatcher<S> {
    /// Announces this replica, and starts what runs on start. False: stopped before the store answered.
    pub(super) async fn begin(&mut self) -> bool {
        let mut told = false;
        loop {
            match self.announce(true).await {
                Ok(()) => break,
                Err(error) if told => tracing::debug!(%error, "the schedules cannot be read yet"),
                Err(error) => {
                    told = true;
                    tracing::warn!(%error, "the schedules cannot be read yet; trying again every second");
                }
            }
            tokio::select! {
                biased;
                () = self.env.stop.cancelled() => return false,
                () = self.env.sleep(RETRY) => {}
            }
        }
        self.account_for_disabled().await;
        self.run_on_start().await;
        let all: Vec<usize> = (0..self.jobs.len()).collect();
        self.take_queued(&all).await;
        for job in self.due_aware.clone() {
            self.hints.give(job, CHANGED);
            self.states[job].due.sweep(self.env.clock.monotonic());
        }
        true
    }

    /// Says that this replica lives and how it is configured; measures the clock.
    pub(super) async fn announce(&mut self, starting: bool) -> Result<(), crate::StoreError> {
        self.measure().await?;
        let said: Vec<Announcement> = self
            .jobs
            .iter()
            .map(|job| Announcement {
                job: job.name.to_string(),
                enabled: job.settings.enabled,
                spec: job.settings.spec.clone(),
                starting,
            })
            .collect();
        let rows = self.env.store.announce(&self.env.replica, &said).await?;
        for row in rows {
            if let Some(job) = self.job(&row.job) {
                self.keep(job, row);
            }
        }
        Ok(())
    }

    async fn run_on_start(&mut self) {
        let now = self.env.clock.now();
        let mut decisions = Vec::new();
        for (at, (job, state)) in self.jobs.iter().zip(&self.states).enumerate() {
            if !(job.settings.enabled && job.settings.run_on_start) {
                continue;
            }
            let row = state.row.as_ref();
            let decision = row.and_then(|row| policy::start(row, now, &mut || (self.env.ids)()));
            decisions.extend(decision.map(|decision| (at, decision)));
        }
        for batch in decisions.chunks(super::BATCH) {
            self.decide(batch.to_vec()).await;
        }
    }

    /// Instants that passed while no live replica had a job enabled, but a disabled one lived, are `disabled`.
    async fn account_for_disabled(&mut self) {
        for job in 0..self.jobs.len() {
            if !self.jobs[job].settings.enabled {
                continue;
            }
            let Some(row) = self.states[job].row.clone() else { continue };
            let overdue = row.next_at.is_some_and(|next| next <= self.env.clock.now());
            if !overdue {
                continue;
            }
            match self.env.store.replicas(&row.job).await {
                Ok(replicas) => {
                    if let Some(from) = self.disabled_since(&replicas) {
                        self.write_disabled(job, &row, from).await;
                    }
                }
                Err(error) => tracing::warn!(job = %row.job, %error, "the replicas of the job could not be read"),
            }
        }
    }

    /// Since when only disabled replicas have lived; `None`: an enabled one lives, or none lived (an outage).
    fn disabled_since(&self, replicas: &[ReplicaRow]) -> Option<crate::Instant> {
        let now = self.env.clock.now();
        let others = || replicas.iter().filter(|row| row.replica != self.env.replica);
        let enabled = others().filter(|row| row.enabled).map(|row| row.seen_at).max();
        if enabled.is_some_and(|seen| (now - seen).to_std().unwrap_or_default() < LIVE) {
            return None;
        }
        let disabled = others().filter(|row| !row.enabled && enabled.is_none_or(|seen| row.seen_at > seen));
        let first = disabled.map(|row| row.started_at).min()?;
        Some(enabled.unwrap_or(first))
    }

    async fn write_disabled(&mut self, job: usize, row: &ScheduleRow, from: crate::Instant) {
        let now = self.env.clock.now();
        if let Some(decision) = policy::disabled(row, from, now, &mut || (self.env.ids)()) {
            self.decide(vec![(job, decision)]).await;
        }
    }
}
