//! Bells between the relays of one service: whichever process records, the active relay hears of it.

use std::time::Duration;

use outbox::RelayHandle;
use scheduler::store::{Nudge, Store, sql::SqlStore};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What nudges of the outbox are named; no job has such a name.
const OUTBOX: &str = "@outbox";
/// What is recorded within this is one bell.
const GATHER: Duration = Duration::from_millis(2);

/// Rings and hears until `stop`. Only hints: the relay looks every 5 s by itself.
pub(super) async fn ring(store: SqlStore, relay: RelayHandle, stop: CancellationToken) {
    let (mut nudges, me) = (store.nudges(), Uuid::now_v7().to_string());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = relay.recorded_for_another() => {
                let _stopped = tokio::time::timeout(GATHER, stop.cancelled()).await;
                let nudge = Nudge { job: OUTBOX.to_owned(), due: None, by: me.clone() };
                if let Err(error) = store.nudge(&nudge).await {
                    tracing::debug!(%error, "the relay of another process was not told; it looks every 5 s");
                }
            }
            heard = nudges.recv() => match heard {
                Ok(nudge) if nudge.job == OUTBOX && nudge.by != me => relay.heard(),
                Ok(_) => {}
                // Something may have been missed.
                Err(RecvError::Lagged(_)) => relay.heard(),
                Err(RecvError::Closed) => return,
            },
        }
    }
}
