//! How [`Steps`] are run: ask without a transaction, settle with the cursor, go on, wait or be done.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    JobError,
    body::{Backoff, Body, Caught, Ended, Env, Kind, Watch, Why, caught},
    kinds::{Held, Next, Run, Steps},
    ledger::{Ending, Outcome},
    store::Store,
    tick::{committed, roll_back},
};

pub(crate) struct StepsBody<S: Store, J: Steps<S::Tx>> {
    pub(crate) job: Arc<J>,
    pub(crate) timeout: Duration,
    pub(crate) store: std::marker::PhantomData<fn(S)>,
}

/// What one step came to.
enum Stepped {
    Go(Value),
    End(Ended),
    Again(String),
}

#[async_trait]
impl<S: Store, J: Steps<S::Tx>> Body<S> for StepsBody<S, J> {
    fn kind(&self) -> Kind {
        Kind::Steps
    }

    async fn attempt(&self, env: &Env<S>, mut run: Run, held: Held, watch: &Watch) -> Ended {
        let input: J::Input = match typed(run.input.clone(), "input") {
            Ok(input) => input,
            Err(ending) => return Ended::With(ending),
        };
        let mut backoff = Backoff::new();
        loop {
            if watch.why() != Why::Nothing {
                return Ended::Asked;
            }
            match self.step(env, &input, run.clone(), held, watch).await {
                Stepped::Go(cursor) => {
                    run.cursor = Some(cursor);
                    backoff = Backoff::new();
                }
                Stepped::End(ended) => return ended,
                Stepped::Again(error) => {
                    tracing::warn!(job = %run.job, run = %run.id, error, "trying the step again");
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

/// What the ledger holds, as the job's type; nothing is the default.
fn typed<T: DeserializeOwned + Default>(value: Option<Value>, what: &str) -> Result<T, Ending> {
    match value {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => serde_json::from_value(value)
            .map_err(|error| Ending::error(Outcome::Failed, format!("the {what} cannot be read: {error}"))),
    }
}

fn failed(error: &JobError) -> Stepped {
    if error.is_transient() {
        Stepped::Again(error.to_string())
    } else {
        Stepped::End(Ended::With(Ending::error(Outcome::Failed, error)))
    }
}

fn panicked(text: String) -> Stepped {
    Stepped::End(Ended::With(Ending::error(Outcome::Panicked, text)))
}

impl<S: Store, J: Steps<S::Tx>> StepsBody<S, J> {
    async fn step(&self, env: &Env<S>, input: &J::Input, mut run: Run, held: Held, watch: &Watch) -> Stepped {
        let cursor: J::Cursor = match typed(run.cursor.clone(), "cursor") {
            Ok(cursor) => cursor,
            Err(ending) => return Stepped::End(Ended::With(ending)),
        };
        let unit = watch.enter();
        run.now = env.clock.now();
        // No transaction is open, so the ask may be dropped when the run is asked to end.
        let asked = tokio::select! {
            biased;
            asked = caught(self.job.ask(input, &cursor, &run)) => asked,
            () = watch.stop.cancelled() => return Stepped::End(Ended::Asked),
        };
        let answer = match asked {
            Caught::Answer(Ok(answer)) => answer,
            // A run that was asked to end and says "I could not" ends as it was asked to.
            Caught::Answer(Err(_)) if watch.why() != Why::Nothing => return Stepped::End(Ended::Asked),
            Caught::Answer(Err(error)) => return failed(&error),
            Caught::Panicked(text) => return panicked(text),
        };
        let (mut tx, now) = match env.begin(self.timeout).await {
            Ok(begun) => begun,
            Err(error) => return failed(&error.into()),
        };
        unit.session(env.store.session(&tx));
        run.now = now;
        match caught(self.job.settle(&mut tx, cursor, answer, &run)).await {
            Caught::Answer(Ok(next)) => self.settle(env, tx, held, next).await,
            Caught::Answer(Err(error)) => {
                roll_back(env, tx).await;
                if watch.why() == Why::Nothing { failed(&error) } else { Stepped::End(Ended::Asked) }
            }
            Caught::Panicked(text) => {
                roll_back(env, tx).await;
                panicked(text)
            }
        }
    }

    /// The cursor or the end, fenced, in the transaction of the step.
    async fn settle(&self, env: &Env<S>, mut tx: S::Tx, held: Held, next: Next<J::Cursor>) -> Stepped {
        let (written, after) = match next {
            Next::Continue { cursor, items } => match serde_json::to_value(&cursor) {
                Ok(cursor) => {
                    (env.store.checkpoint(&mut tx, held, count(items), Some(&cursor)).await, Stepped::Go(cursor))
                }
                Err(error) => return unwritable(env, tx, &error).await,
            },
            Next::Wait { cursor, until, items } => match serde_json::to_value(&cursor) {
                Ok(cursor) => {
                    (env.store.wait(&mut tx, held, count(items), &cursor, until).await, Stepped::End(Ended::Waiting))
                }
                Err(error) => return unwritable(env, tx, &error).await,
            },
            Next::Done { items } => {
                let ending = Ending::succeeded(count(items));
                let end = Stepped::End(Ended::Completed { items: ending.items });
                (env.store.complete(&mut tx, held, &ending).await, end)
            }
        };
        match written {
            Ok(true) => {}
            Ok(false) => {
                roll_back(env, tx).await;
                return Stepped::End(Ended::Fenced);
            }
            Err(error) => {
                roll_back(env, tx).await;
                return failed(&error.into());
            }
        }
        match env.store.commit(tx).await {
            Ok(()) => after,
            Err(error) => after_unknown_commit(env, held, after, &error.to_string()).await,
        }
    }
}

/// The answer to COMMIT was lost: the ledger says whether the step was done.
async fn after_unknown_commit<S: Store>(env: &Env<S>, held: Held, after: Stepped, error: &str) -> Stepped {
    match (&after, env.store.run(held.id).await) {
        (Stepped::Go(cursor), Ok(Some(row))) if row.epoch == held.epoch && row.cursor.as_ref() == Some(cursor) => after,
        (Stepped::End(Ended::Waiting), Ok(Some(row))) if row.state == crate::ledger::RunState::Queued => after,
        (Stepped::End(Ended::Completed { .. }), _) if committed(env, held).await == Some(true) => after,
        _ => Stepped::Again(error.to_owned()),
    }
}

async fn unwritable<S: Store>(env: &Env<S>, tx: S::Tx, error: &serde_json::Error) -> Stepped {
    roll_back(env, tx).await;
    let text = format!("the cursor cannot be written: {error}");
    Stepped::End(Ended::With(Ending::error(Outcome::Failed, text)))
}

fn count(items: u64) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}
