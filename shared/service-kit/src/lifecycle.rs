//! Signals, and loops that must not end before they are asked to.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A loop that ends so often within [`WINDOW`] stops the process.
const RESTARTS_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);
/// Wait before a restart, doubling to [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// SIGTERM and Ctrl-C.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns when the process is asked to stop.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Makes a loop's future, also again after it ended.
type Make = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs loops and restarts those that end too early.
pub(crate) struct Supervisor {
    front: Handle,
    stop: CancellationToken,
    tracker: TaskTracker,
    failed: Arc<(Mutex<Option<String>>, Notify)>,
}

impl Supervisor {
    pub(crate) fn new(front: Handle, stop: CancellationToken) -> Self {
        Self { front, stop, tracker: TaskTracker::new(), failed: Arc::default() }
    }

    /// Runs a loop, which ends by a token of its own.
    pub(crate) fn run(&self, name: &str, make: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        self.spawn(name, Box::new(make));
    }

    fn spawn(&self, name: &str, make: Make) {
        let (name, stop, failed) = (name.to_owned(), self.stop.clone(), Arc::clone(&self.failed));
        let front = self.front.clone();
        self.tracker.spawn_on(
            async move {
                let (mut ends, mut backoff): (Vec<Instant>, Duration) = (Vec::new(), BACKOFF);
                loop {
                    let ended = front.spawn(make()).await;
                    if stop.is_cancelled() {
                        return;
                    }
                    let why = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
                    tracing::error!(name, why, "a loop ended before it was asked to; starting it again");
                    metrics::counter!("loop_restarts_total", "name" => name.clone()).increment(1);
                    ends.retain(|end| end.elapsed() < WINDOW);
                    ends.push(Instant::now());
                    if ends.len() >= RESTARTS_MAX {
                        let text = format!("{name} ended {RESTARTS_MAX} times within {WINDOW:?}: {why}");
                        *failed.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                        failed.1.notify_one();
                        return;
                    }
                    let _stopped = tokio::time::timeout(backoff, stop.cancelled()).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            },
            &self.front,
        );
    }

    /// Returns when a loop ended too often, with which and why.
    pub(crate) async fn failed(&self) -> String {
        self.failed.1.notified().await;
        self.failed.0.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    /// Returns when every loop has ended.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_keeps_ending_stops_the_process_and_is_named() {
        let supervisor = Supervisor::new(Handle::current(), CancellationToken::new());
        supervisor.run("restless", || Box::pin(async {}));
        let why = supervisor.failed().await;
        assert!(why.starts_with("restless ended 5 times"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_started_again() {
        let stop = CancellationToken::new();
        let supervisor = Supervisor::new(Handle::current(), stop.clone());
        let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (seen, ending) = (Arc::clone(&runs), stop.clone());
        supervisor.run("shaky", move || {
            let (seen, ending) = (Arc::clone(&seen), ending.clone());
            Box::pin(async move {
                assert!(seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0, "the first run fails");
                ending.cancel();
            })
        });
        supervisor.ended().await;
        assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 2);
    }
}
