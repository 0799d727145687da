//! The regular look at everything: what hints may have missed, what dead owners left, clocks that stepped.

use std::{sync::Arc, time::Duration};

use super::{ANNOUNCE, Dispatcher, PRUNE, RETRY, SWEEP, start::LIVE};
use crate::{
    StoreError,
    ledger::RunRow,
    metrics, policy,
    runner::upkeep,
    store::{Recovery, Store},
};

/// A run of ours that is not in hand after this was started by a decision whose answer was lost.
const ADOPT: Duration = Duration::from_secs(2);
/// A reading of the database's time that took longer says little (the process may have been asleep): it is taken again,
const SLOW: Duration = Duration::from_millis(500);
/// so often at most.
const READINGS: u32 = 5;
/// An estimate of the database's time that is older is not decided by.
const STALE: Duration = Duration::from_secs(60);
/// A forward step of the clock is believed when a second reading after this agrees.
const AGREE: Duration = Duration::from_secs(5);

impl<S: Store> Dispatcher<S> {
    /// Does what is regular and whose time has come.
    pub(super) async fn upkeep(&mut self) {
        let now = self.env.clock.monotonic();
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "the sweep failed; it comes again in 5 s");
            }
        }
        if now >= self.next_announce {
            self.next_announce = now + ANNOUNCE;
            let announced = if self.env.private { self.measure().await } else { self.announce(false).await };
            match announced {
                Ok(()) if self.env.private => {}
                Ok(()) => self.drift().await,
                Err(error) => tracing::warn!(%error, "this replica could not say that it lives"),
            }
        }
        if now >= self.next_prune {
            self.next_prune = now + PRUNE;
            self.tracker.spawn(upkeep::prune(Arc::clone(&self.env), Arc::clone(&self.jobs)));
        }
    }

    /// Reads the database's time; a step of more than 60 s is reported, and a forward one holds decisions until a
    /// second reading agrees.
    pub(super) async fn measure(&mut self) -> Result<(), StoreError> {
        let (mut step, mut after);
        let mut tries = 0;
        loop {
            let before = self.env.clock.monotonic();
            let now = self.env.store.now().await?;
            after = self.env.clock.monotonic();
            step = self.env.clock.measured(now, before, after);
            tries += 1;
            if after.saturating_sub(before) < SLOW || tries >= READINGS {
                break;
            }
        }
        self.measured = after;
        if let Some(step) = step {
            metrics::clock_step(&self.env.service);
            tracing::warn!(step_s = step.num_seconds(), "the clock stepped");
            if step > chrono::TimeDelta::zero() {
                self.hold = after + AGREE;
                self.next_announce = self.hold;
            }
        }
        Ok(())
    }

    /// Whether the estimate of the database's time is fresh enough to decide by: after an outage or a long sleep of the
    /// process it is read first.
    pub(super) async fn knows_the_time(&mut self) -> bool {
        let now = self.env.clock.monotonic();
        if now < self.measured + STALE {
            return true;
        }
        match self.measure().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the database's time cannot be read; nothing is decided");
                self.hold = now + RETRY;
                false
            }
        }
    }

    async fn sweep(&mut self) -> Result<(), StoreError> {
        self.set_back().await?;
        self.resume_ended_pauses().await;
        if self.env.private {
            return Ok(());
        }
        let all: Vec<usize> = (0..self.jobs.len()).collect();
        // What was observed of owners is kept where nothing could be read.
        let Some(any) = self.look(&all).await else { return Ok(()) };
        let running = if any {
            let enabled: Vec<String> =
                self.jobs.iter().filter(|job| job.settings.enabled).map(|job| job.name.to_string()).collect();
            self.env.store.running(&enabled).await?
        } else {
            Vec::new()
        };
        self.adopt(&running);
        self.recover(&running).await?;
        for job in self.due_aware.clone() {
            self.states[job].due.sweep(self.env.clock.monotonic());
        }
        Ok(())
    }

    /// Runs that a decision started for us, but whose answer never came.
    fn adopt(&mut self, running: &[RunRow]) {
        let now = self.env.clock.now();
        for row in running {
            let ours = row.owner.as_deref() == Some(&self.env.replica);
            let old = row.started_at.is_some_and(|at| (now - at).to_std().unwrap_or_default() > ADOPT);
            if ours
                && old
                && !self.executions.has(row.id)
                && let Some(job) = self.job(&row.job)
            {
                self.executions.launch([(job, row.clone())]);
            }
        }
    }

    /// Takes over or ends what dead owners left.
    async fn recover(&mut self, running: &[RunRow]) -> Result<(), StoreError> {
        let (now, monotonic) = (self.env.clock.now(), self.env.clock.monotonic());
        let stale = self.observed.note(running, monotonic);
        let dead: Vec<&RunRow> = running
            .iter()
            .filter(|row| {
                let expired = row.lease_until.is_some_and(|until| until < now);
                expired || stale.iter().any(|(held, _)| held.id == row.id)
            })
            .collect();
        let mut recoveries: Vec<Recovery> = Vec::new();
        for row in dead {
            let Some(job) = self.job(&row.job) else { continue };
            let schedule = self.states[job].row.as_ref();
            let next = schedule.and_then(|schedule| policy::superseded_at(schedule, row));
            let at = recoveries.iter().position(|recovery| recovery.job == row.job).unwrap_or_else(|| {
                let (job, resume) = (row.job.clone(), self.jobs[job].resumes());
                recoveries.push(Recovery { job, resume, runs: Vec::new() });
                recoveries.len() - 1
            });
            recoveries[at].runs.push((row.id, next));
        }
        if recoveries.is_empty() {
            return Ok(());
        }
        let recovered = self.env.store.recover(&recoveries, &stale, &self.env.replica, crate::kinds::LEASE).await?;
        for row in recovered.ended {
            tracing::warn!(job = %row.job, run = %row.id, reason = row.reason, "a dead owner's run ended as lost");
            metrics::recovered(&self.env.service, &row.job);
        }
        for row in recovered.resumed {
            tracing::warn!(job = %row.job, run = %row.id, attempt = row.attempt, "a dead owner's run goes on here");
            metrics::recovered(&self.env.service, &row.job);
            if let Some(job) = self.job(&row.job) {
                self.executions.launch([(job, row)]);
            }
        }
        Ok(())
    }

    /// After a step back of the clock a next instant may lie too far ahead. It is this replica that may not have heard of
    /// a step forward, so the time is read before anything is set back.
    async fn set_back(&mut self) -> Result<(), StoreError> {
        if self.too_far_ahead().is_empty() {
            return Ok(());
        }
        self.measure().await?;
        let decisions = self.too_far_ahead();
        if !decisions.is_empty() {
            tracing::warn!(jobs = decisions.len(), "next instants lie too far ahead; they are set back");
            self.decide(decisions).await;
        }
        Ok(())
    }

    fn too_far_ahead(&mut self) -> Vec<(usize, policy::Decision)> {
        let now = self.env.clock.now();
        let states = self.jobs.iter().zip(&mut self.states).enumerate();
        let enabled = states.filter(|(_, (job, _))| job.settings.enabled);
        let looked = enabled.filter(|(_, (_, state))| state.sound.is_none_or(|at| at > now));
        let looked = looked.filter_map(|(job, (_, state))| {
            let decision = policy::set_back(state.row.as_ref()?, now);
            state.sound = decision.is_none().then_some(now);
            decision.map(|decision| (job, decision))
        });
        looked.collect()
    }

    /// A pause with an end resumes from now by itself.
    async fn resume_ended_pauses(&mut self) {
        let now = self.env.clock.now();
        for job in 0..self.jobs.len() {
            let row = self.states[job].row.as_ref().filter(|_| self.jobs[job].settings.enabled);
            let until = row.and_then(|row| row.pause.as_ref()?.until);
            if until.is_none_or(|until| until > now) {
                continue;
            }
            let Some(row) = row.cloned() else { continue };
            let resume = policy::resume(&row, now, policy::ResumeFrom::Now, &mut || (self.env.ids)());
            match self.env.store.resume(&row.job, &resume).await {
                Ok(_) => self.reload(&[job]).await,
                Err(error) => tracing::warn!(job = %row.job, %error, "a pause that is over could not be ended"),
            }
        }
    }

    /// Whether live replicas are configured differently.
    async fn drift(&mut self) {
        let now = self.env.clock.now();
        for job in self.jobs.iter().filter(|job| job.settings.enabled) {
            let Ok(replicas) = self.env.store.replicas(&job.name).await else { return };
            let mut hashes: Vec<&str> = replicas
                .iter()
                .filter(|row| row.enabled && (now - row.seen_at).to_std().unwrap_or_default() < LIVE)
                .map(|row| row.spec_hash.as_str())
                .collect();
            hashes.sort_unstable();
            hashes.dedup();
            metrics::drift(&self.env.service, &job.name, hashes.len() > 1);
            if hashes.len() > 1 {
                tracing::warn!(job = %job.name, "live replicas are configured differently; the last that started counts");
            }
        }
    }
}
