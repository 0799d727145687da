//! One batch: take, act, write down, commit; what it came to.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use uuid::Uuid;

use super::{BATCH, Batch, Book, ClaimBody, Lane, Pass, WRITER_TIME};
use crate::{
    Instant, JobError, StoreError,
    body::{Caught, Entered, Env, Why, caught},
    clock::Clock,
    kinds::{Run, Take},
    ledger::Outcome,
    store::{Store, Window},
    tick::roll_back,
};

/// A batch in the job's hands. When it is dropped, or fails, after a timeout that was its own, its rows are suspects.
struct Acting<'a> {
    ids: Vec<Uuid>,
    over_at: Duration,
    pass: &'a Pass<'a>,
    clock: &'a dyn Clock,
    suspects: &'a Mutex<Vec<Vec<Uuid>>>,
}

impl Acting<'_> {
    /// It came back well, so it is no suspect, however late: the process may have been asleep.
    fn well(mut self) -> Vec<Uuid> {
        std::mem::take(&mut self.ids)
    }
}

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        if self.ids.is_empty() || self.pass.watch.why() != Why::Timeout || self.clock.monotonic() < self.over_at {
            return;
        }
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.ids));
    }
}

impl<S: Store, R: Send + Sync + 'static> ClaimBody<S, R> {
    /// One batch under the watch of the timeout.
    pub(super) async fn watched(
        &self,
        env: &Env<S>,
        pass: &Pass<'_>,
        lane: Lane,
        limit: u64,
        only: Option<Vec<Uuid>>,
    ) -> Batch {
        let unit = pass.watch.enter();
        let batch = self.one(env, pass, &unit, lane, limit, only).await;
        if let Batch::Done { rows, lateness_ms } = batch {
            pass.with(|progress| {
                progress.sum.items += i64::try_from(rows).unwrap_or(i64::MAX);
                progress.sum.lateness_ms = progress.sum.lateness_ms.max(lateness_ms);
            });
            self.adapt(env, env.clock.monotonic().saturating_sub(unit.since()), rows, limit);
        }
        batch
    }

    async fn one(
        &self,
        env: &Env<S>,
        pass: &Pass<'_>,
        unit: &Entered<'_>,
        lane: Lane,
        limit: u64,
        only: Option<Vec<Uuid>>,
    ) -> Batch {
        let (mut tx, now) = match self.begin(env, pass, lane).await {
            Ok(Some(begun)) => begun,
            Ok(None) => return Batch::NoTurn,
            Err(error) if error.is_transient() => return Batch::Again(error.to_string()),
            Err(error) => return Batch::Bad(Vec::new(), Outcome::Failed, error.to_string()),
        };
        unit.session(env.store.session(&tx));
        // A run's own now is an estimate of the store's, which may still be behind it: nothing is dealt with early.
        let until = pass.until.map_or(now, |until| until.min(now));
        let (after, from_beginning) = pass.with(|progress| (progress.behind.row(), progress.behind.begins()));
        let after = after.filter(|_| only.is_none());
        let take = Take { job: pass.run.job.clone(), now: until, limit, only, after };
        let rows = match caught(self.job.take(&mut tx, &take)).await {
            Caught::Answer(Ok(rows)) => rows,
            Caught::Answer(Err(error)) => return bad(env, tx, Vec::new(), error).await,
            Caught::Panicked(text) => return panicked(env, tx, Vec::new(), text).await,
        };
        if rows.is_empty() {
            roll_back(env, tx).await;
            return Batch::Nothing { from_beginning };
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| self.job.id(row)).collect();
        if let Some(still) = pass.with(|progress| ids.iter().copied().find(|id| progress.handled.remove(id))) {
            roll_back(env, tx).await;
            return Batch::Bad(vec![still], Outcome::Failed, format!("row {still} was handled and is still due"));
        }
        let late = rows.iter().filter_map(|row| self.job.due_at(row)).map(|due| (now - due).num_milliseconds()).max();
        let last = rows.last().filter(|_| take.only.is_none() && rows.len() as u64 == limit);
        let last = last.and_then(|row| Some((self.job.due_at(row)?, self.job.id(row))));
        let full = pass.with(|progress| {
            progress.behind.go_on(last);
            let much = last.is_some() && progress.batches > 0;
            progress.full.take_if(|_| much)
        });
        if let Some(full) = full {
            let _nobody = full.send(());
        }
        let run = Run { now, ..pass.run.clone() };
        let over_at = unit.since() + self.timeout;
        let acting = Acting { ids, over_at, pass, clock: &*env.clock, suspects: &self.suspects };
        let ids = match caught(self.job.act(&mut tx, rows, &run)).await {
            Caught::Answer(Ok(())) => acting.well(),
            Caught::Answer(Err(error)) => return bad(env, tx, acting.ids.clone(), error).await,
            Caught::Panicked(text) => return panicked(env, tx, acting.ids.clone(), text).await,
        };
        self.write_down(env, pass, tx, ids, now, late.unwrap_or(0).max(0)).await
    }

    /// Begins a batch; before the first it is asked whether rows are set aside, beside it where connections allow. `None`: no
    /// turn is free for a batch beside another.
    async fn begin(&self, env: &Env<S>, pass: &Pass<'_>, lane: Lane) -> Result<Option<(S::Tx, Instant)>, StoreError> {
        if lane == Lane::Beside {
            return env.begin_if_turn(&self.name, self.timeout).await;
        }
        let begun = async { env.begin_in_turn(&self.name, self.timeout).await.map(Some) };
        if pass.with(|progress| progress.aside.is_some()) {
            return begun.await;
        }
        let asked = env.store.failures(&self.name, None, 1);
        let (aside, begun) =
            if env.store.single_writer() { (asked.await, begun.await) } else { tokio::join!(asked, begun) };
        pass.with(|progress| progress.aside = Some(!aside.is_ok_and(|aside| aside.is_empty())));
        begun
    }

    /// The ledger and the commit of a batch that went well.
    async fn write_down(
        &self,
        env: &Env<S>,
        pass: &Pass<'_>,
        mut tx: S::Tx,
        ids: Vec<Uuid>,
        now: Instant,
        lateness_ms: i64,
    ) -> Batch {
        let items = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let cleared = if pass.with(|progress| progress.aside) == Some(true) {
            env.store.clear_failures(&mut tx, &pass.run.job, &ids).await
        } else {
            Ok(())
        };
        let written = match (cleared, pass.book) {
            (Err(error), _) => Err(error),
            (Ok(()), Book::Run(held)) => env.store.checkpoint(&mut tx, held, items, None).await,
            (Ok(()), Book::Window(wake)) => {
                let (run, started_at, wake) = self.windows.at(env, wake, now);
                let job = pass.run.job.clone();
                let owner = env.replica.clone();
                let window = Window { job, run, owner, wake, started_at, items, lateness_ms };
                env.store.window(&mut tx, &window).await.map(|()| true)
            }
        };
        match written {
            Ok(true) => {}
            Ok(false) => {
                roll_back(env, tx).await;
                return Batch::Fenced;
            }
            Err(error) => return bad(env, tx, ids, error.into()).await,
        }
        let rows = ids.len() as u64;
        // Whatever became of an unknown commit, the rows say it: they are due or they are not.
        if let Err(error) = env.store.commit(tx).await {
            return Batch::Again(error.to_string());
        }
        (env.on_effect)();
        pass.with(|progress| progress.handled.extend(ids));
        Batch::Done { rows, lateness_ms }
    }

    pub(super) fn batch_size(&self, env: &Env<S>) -> u64 {
        if env.store.single_writer() { *self.batch.lock().unwrap_or_else(PoisonError::into_inner) } else { BATCH }
    }

    /// Keeps a batch on a single-writer store under [`WRITER_TIME`].
    fn adapt(&self, env: &Env<S>, took: Duration, rows: u64, limit: u64) {
        if !env.store.single_writer() || rows < limit {
            return;
        }
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        *batch = if took > WRITER_TIME { (*batch / 2).max(10) } else { (*batch * 5 / 4).min(BATCH) };
    }
}

async fn bad<S: Store>(env: &Env<S>, tx: S::Tx, ids: Vec<Uuid>, error: JobError) -> Batch {
    roll_back(env, tx).await;
    if error.is_transient() {
        Batch::Again(error.to_string())
    } else {
        Batch::Bad(ids, Outcome::Failed, error.to_string())
    }
}

async fn panicked<S: Store>(env: &Env<S>, tx: S::Tx, ids: Vec<Uuid>, text: String) -> Batch {
    roll_back(env, tx).await;
    Batch::Bad(ids, Outcome::Panicked, text)
}
