//! What goes on beside the dispatcher: renewing leases, seeing who died, pruning the ledger, reading what is due next.

use std::{collections::HashMap, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    JobError,
    body::{Body, Env, Why},
    job::Entry,
    kinds::{Held, LEASE, RENEW_EVERY},
    ledger::{RunRow, RunState},
    runner::{Executions, mail::Next},
    store::{Retention, Store},
};

/// How long ledger rows are kept.
pub(crate) const RETENTION: Retention =
    Retention { age: Duration::from_secs(30 * 24 * 3600), rows: 10_000, batch: 1_000 };

/// Renews the leases of runs and rows in hand; a run that could not be renewed for a whole lease is ended.
pub(crate) async fn renewals<S: Store>(env: Arc<Env<S>>, jobs: Arc<Vec<Entry<S>>>, executions: Arc<Executions<S>>) {
    let mut renewed: HashMap<Uuid, Duration> = HashMap::new();
    let mut next = env.clock.monotonic() + RENEW_EVERY;
    loop {
        if env.stop.is_cancelled() {
            // Runs in hand at a stop are still renewed until they are over.
            if executions.held().is_empty() || env.give_back.is_cancelled() {
                return;
            }
            env.sleep(Duration::from_millis(20)).await;
        } else {
            tokio::select! {
                biased;
                () = env.clock.sleep_until(next) => {}
                () = env.stop.cancelled() => {}
            }
        }
        if env.clock.monotonic() < next {
            continue;
        }
        next = env.clock.monotonic() + RENEW_EVERY;
        let (held, now) = (executions.held(), env.clock.monotonic());
        renewed.retain(|id, _| held.iter().any(|held| held.id == *id));
        for run in &held {
            renewed.entry(run.id).or_insert(now);
        }
        if !held.is_empty() {
            renew(&env, &executions, &held, &mut renewed).await;
        }
        for job in jobs.iter() {
            job.body.renew(&env).await;
        }
    }
}

async fn renew<S: Store>(
    env: &Env<S>,
    executions: &Executions<S>,
    held: &[Held],
    renewed: &mut HashMap<Uuid, Duration>,
) {
    match env.store.renew(held, LEASE).await {
        Ok(renewals) => {
            let now = env.clock.monotonic();
            for renewal in renewals {
                if !renewal.alive {
                    executions.end(renewal.held, Why::Fenced);
                } else if renewal.cancel {
                    executions.end(renewal.held, Why::Cancel);
                }
                renewed.insert(renewal.held.id, now);
            }
        }
        Err(error) => tracing::warn!(%error, "leases of runs were not renewed"),
    }
    let now = env.clock.monotonic();
    for held in held {
        if renewed.get(&held.id).is_some_and(|at| now.saturating_sub(*at) >= LEASE) {
            tracing::error!(run = %held.id, "not renewed for a whole lease; the run is ended here");
            executions.end(*held, Why::Fenced);
        }
    }
}

/// What this process has seen of other owners' runs, on its own monotonic clock.
#[derive(Default)]
pub(crate) struct Observed {
    seen: HashMap<Uuid, (i64, i64, Duration)>,
}

impl Observed {
    /// Notes the running runs; those whose epoch and beat have not changed for a whole lease.
    pub(crate) fn note(&mut self, running: &[RunRow], monotonic: Duration) -> Vec<(Held, i64)> {
        self.seen.retain(|id, _| running.iter().any(|row| row.id == *id));
        let mut stale = Vec::new();
        for row in running.iter().filter(|row| row.state == RunState::Running) {
            let seen = self.seen.entry(row.id).or_insert((row.epoch, row.beat, monotonic));
            if (seen.0, seen.1) != (row.epoch, row.beat) {
                *seen = (row.epoch, row.beat, monotonic);
            } else if monotonic.saturating_sub(seen.2) >= LEASE {
                stale.push((Held { id: row.id, epoch: row.epoch }, row.beat));
            }
        }
        stale
    }
}

/// Deletes old ledger rows of every job, batch by batch.
pub(crate) async fn prune<S: Store>(env: Arc<Env<S>>, jobs: Arc<Vec<Entry<S>>>) {
    for job in jobs.iter() {
        loop {
            if env.stop.is_cancelled() {
                return;
            }
            match env.store.prune(&job.name, RETENTION).await {
                Ok(gone) if gone >= RETENTION.batch => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(job = %job.name, %error, "the ledger was not pruned");
                    break;
                }
            }
        }
    }
}

/// Reading when the next row falls due takes at most this.
const READ: Duration = Duration::from_secs(10);

/// When the job's next row falls due, those that were set aside at their next try. A database that does not answer is
/// not waited for.
pub(crate) async fn read_due<S: Store>(env: &Env<S>, body: &dyn Body<S>, job: &str) -> Result<Next, JobError> {
    let mut read = std::pin::pin!(async { tokio::join!(body.next_due(env), env.store.next_failure(job)) });
    let (due, retry) = tokio::select! {
        biased;
        read = read.as_mut() => read,
        () = env.sleep(READ) => {
            env.store.given_up();
            return Err(JobError::Transient(format!("no answer within {READ:?}")));
        }
    };
    let (due, retry) = (due?, retry?);
    Ok(Next { at: [due, retry].into_iter().flatten().min(), first: due.filter(|_| retry.is_none()) })
}
