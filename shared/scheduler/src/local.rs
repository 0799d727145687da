//! How a [`Local`] job is run: on every replica, with a ledger of its own in memory.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    body::{Body, Caught, Ended, Env, Kind, Watch, caught},
    kinds::{Held, Local, Run},
    ledger::{Ending, Outcome},
    store::Store,
};

pub(crate) struct LocalBody {
    pub(crate) job: Arc<dyn Local>,
}

#[async_trait]
impl<S: Store> Body<S> for LocalBody {
    fn kind(&self) -> Kind {
        Kind::Local
    }

    async fn attempt(&self, env: &Env<S>, mut run: Run, _held: Held, watch: &Watch) -> Ended {
        let _unit = watch.enter();
        run.now = env.clock.now();
        // No transaction is open: a run that is asked to end is dropped at its next await.
        let answer = tokio::select! {
            biased;
            answer = caught(self.job.run(&run)) => answer,
            () = watch.stop.cancelled() => return Ended::Asked,
        };
        Ended::With(match answer {
            Caught::Answer(Ok(items)) => Ending::succeeded(i64::try_from(items).unwrap_or(i64::MAX)),
            Caught::Answer(Err(error)) => Ending::error(Outcome::Failed, error),
            Caught::Panicked(text) => Ending::error(Outcome::Panicked, text),
        })
    }
}
