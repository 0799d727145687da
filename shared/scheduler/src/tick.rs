//! How a [`Tick`] is run: batch by batch, each committed with the ledger, fenced at its end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    body::{Backoff, Body, Caught, Ended, Entered, Env, Kind, Watch, Why, caught},
    kinds::{Held, Run, Step, Tick},
    ledger::{Ending, Outcome, RunState},
    store::Store,
};

pub(crate) struct TickBody<S: Store> {
    pub(crate) job: Arc<dyn Tick<S::Tx>>,
    pub(crate) timeout: Duration,
}

/// What one batch came to.
enum Batch {
    Go(Box<Run>),
    End(Ended),
    /// Nobody's fault: again after a back-off.
    Again(String),
}

#[async_trait]
impl<S: Store> Body<S> for TickBody<S> {
    fn kind(&self) -> Kind {
        Kind::Tick
    }

    async fn attempt(&self, env: &Env<S>, mut run: Run, held: Held, watch: &Watch) -> Ended {
        let mut backoff = Backoff::new();
        let unit = watch.enter();
        loop {
            if watch.why() != Why::Nothing {
                return Ended::Asked;
            }
            match self.batch(env, run.clone(), held, (watch, &unit)).await {
                Batch::Go(next) => {
                    run = *next;
                    backoff = Backoff::new();
                }
                Batch::End(ended) => return ended,
                Batch::Again(error) => {
                    tracing::warn!(job = %run.job, run = %run.id, error, "the store is away; trying the batch again");
                    tokio::select! {
                        biased;
                        () = watch.stop.cancelled() => return Ended::Asked,
                        () = env.sleep(backoff.next()) => {}
                    }
                }
            }
        }
    }
}

impl<S: Store> TickBody<S> {
    async fn batch(&self, env: &Env<S>, mut run: Run, held: Held, (watch, unit): (&Watch, &Entered<'_>)) -> Batch {
        let (mut tx, now) = match env.begin(self.timeout).await {
            Ok(begun) => begun,
            Err(error) if error.is_transient() => return Batch::Again(error.to_string()),
            Err(error) => return Batch::End(Ended::With(Ending::error(Outcome::Failed, error))),
        };
        unit.session(env.store.session(&tx));
        run.now = now;
        match caught(self.job.tick(&mut tx, &run)).await {
            Caught::Answer(Ok(Step::Done(items))) => {
                let ending = Ending::succeeded(i64::try_from(items).unwrap_or(i64::MAX));
                finish(env, tx, held, ending).await
            }
            Caught::Answer(Ok(Step::More { items, cursor })) => {
                let items = i64::try_from(items).unwrap_or(i64::MAX);
                match env.store.checkpoint(&mut tx, held, items, Some(&cursor)).await {
                    Ok(true) => {}
                    Ok(false) => return fenced(env, tx).await,
                    Err(error) => return after_error(env, tx, error.into(), watch).await,
                }
                if let Err(error) = env.store.commit(tx).await {
                    return unknown_commit(env, held, &error.to_string(), Some(&cursor), run).await;
                }
                run.cursor = Some(cursor);
                Batch::Go(Box::new(run))
            }
            Caught::Answer(Err(error)) => after_error(env, tx, error, watch).await,
            Caught::Panicked(text) => {
                roll_back(env, tx).await;
                Batch::End(Ended::With(Ending::error(Outcome::Panicked, text)))
            }
        }
    }
}

async fn finish<S: Store>(env: &Env<S>, mut tx: S::Tx, held: Held, ending: Ending) -> Batch {
    match env.store.complete(&mut tx, held, &ending).await {
        Ok(true) => {}
        Ok(false) => return fenced(env, tx).await,
        Err(error) => {
            roll_back(env, tx).await;
            return if error.is_transient() {
                Batch::Again(error.to_string())
            } else {
                Batch::End(Ended::With(Ending::error(Outcome::Failed, error)))
            };
        }
    }
    match env.store.commit(tx).await {
        Ok(()) => Batch::End(Ended::Completed { items: ending.items }),
        Err(error) => match committed(env, held).await {
            Some(true) => Batch::End(Ended::Completed { items: ending.items }),
            _ => Batch::Again(error.to_string()),
        },
    }
}

/// The answer to COMMIT was lost: the ledger says whether the batch was done.
async fn unknown_commit<S: Store>(
    env: &Env<S>,
    held: Held,
    error: &str,
    cursor: Option<&serde_json::Value>,
    mut run: Run,
) -> Batch {
    match env.store.run(held.id).await {
        Ok(Some(row)) if row.epoch != held.epoch || row.state != RunState::Running => Batch::End(Ended::Fenced),
        Ok(Some(row)) if row.cursor.as_ref() == cursor => {
            run.cursor = row.cursor;
            Batch::Go(Box::new(run))
        }
        _ => Batch::Again(error.to_owned()),
    }
}

/// Whether the run is done under our epoch; `None` when the store does not say.
pub(crate) async fn committed<S: Store>(env: &Env<S>, held: Held) -> Option<bool> {
    let row = env.store.run(held.id).await.ok()??;
    Some(row.epoch == held.epoch && row.state == RunState::Done)
}

async fn fenced<S: Store>(env: &Env<S>, tx: S::Tx) -> Batch {
    roll_back(env, tx).await;
    Batch::End(Ended::Fenced)
}

async fn after_error<S: Store>(env: &Env<S>, tx: S::Tx, error: crate::JobError, watch: &Watch) -> Batch {
    roll_back(env, tx).await;
    if watch.why() != Why::Nothing {
        Batch::End(Ended::Asked)
    } else if error.is_transient() {
        Batch::Again(error.to_string())
    } else {
        Batch::End(Ended::With(Ending::error(Outcome::Failed, error)))
    }
}

/// Rolls back; a connection that is gone has rolled back by itself.
pub(crate) async fn roll_back<S: Store>(env: &Env<S>, tx: S::Tx) {
    if let Err(error) = env.store.rollback(tx).await {
        tracing::debug!(%error, "a rollback on a lost connection");
    }
}
