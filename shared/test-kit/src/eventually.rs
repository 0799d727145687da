//! The one wait of tests: bounded, and it tells what it waited for.

use std::time::Duration;

/// How long a test waits unless it says otherwise.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until there is something, at most 20 s.
///
/// # Panics
/// When there is nothing by then.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// Looks until there is something, at most `patience`.
///
/// # Panics
/// When there is nothing by then.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < patience, "waited {patience:?} for {what}");
        let _never = tokio::time::timeout(LOOK, std::future::pending::<()>()).await;
    }
}
