//! Deadlines on this side of the connection: a peer that froze, or a route that was lost, answers nothing, and no limit of
//! the server ends the wait.
//!
//! Whoever gives up says so with [`suspect`] *before* it drops what it waited for. While there is suspicion, connections
//! that come back to a pool are closed instead of lent again: what state they are in is unknown.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::Fault;

/// A statement takes at most this, seen from here; the server ends it after 10 s if it can.
pub(crate) const STATEMENT: Duration = Duration::from_secs(12);
/// BEGIN takes at most this, with the wait for a connection.
pub(crate) const BEGIN: Duration = Duration::from_secs(5);
/// How long suspicion lasts.
const SUSPICION: Duration = Duration::from_secs(10);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static UNTIL: AtomicU64 = AtomicU64::new(0);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Somebody gave up waiting for a database of this process.
pub fn suspect() {
    UNTIL.fetch_max(millis(START.elapsed() + SUSPICION), Ordering::AcqRel);
}

/// Whether connections that come back are to be closed.
pub fn suspected() -> bool {
    UNTIL.load(Ordering::Acquire) > millis(START.elapsed())
}

/// Waits at most `limit`.
///
/// # Errors
/// [`Fault::Unavailable`] when the time is over; whether the work was done is then unknown.
pub async fn within<T, E: From<Fault>>(limit: Duration, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    // Pinned outside the timeout, so that it is dropped after the suspicion was raised.
    let mut work = std::pin::pin!(work);
    let Ok(done) = tokio::time::timeout(limit, work.as_mut()).await else {
        suspect();
        return Err(Fault::Unavailable(format!("no answer within {limit:?}")).into());
    };
    done
}
