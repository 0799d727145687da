//! Three runtimes, so that a job which blocks its threads stops neither HTTP nor renewals.

use std::time::Duration;

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};

/// Threads of jobs.
pub(super) const WORK_THREADS: usize = 4;
/// Threads of HTTP, relays and listeners.
const FRONT_THREADS: usize = 2;

/// The runtimes of a process.
pub(super) struct Runtimes {
    /// What callers see: HTTP, relays, listeners.
    pub(super) front: Runtime,
    /// What jobs do.
    pub(super) work: Runtime,
    /// What the scheduler itself does: decisions, renewals, watching, health. One thread.
    pub(super) keep: Handle,
    keep_end: Option<oneshot::Sender<()>>,
    keep_thread: Option<std::thread::JoinHandle<()>>,
}

impl Runtimes {
    pub(super) fn start() -> anyhow::Result<Self> {
        let many = |threads: usize, name: &str| {
            Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
        };
        let front = many(FRONT_THREADS, "front")?;
        let work = many(WORK_THREADS, "work")?;
        let one = Builder::new_current_thread().enable_all().build()?;
        let keep = one.handle().clone();
        let (keep_end, ended) = oneshot::channel::<()>();
        let keep_thread = std::thread::Builder::new().name("keep".to_owned()).spawn(move || {
            // Ends when told, or when whoever would tell is gone.
            one.block_on(async { drop(ended.await) });
            one.shutdown_timeout(Duration::from_millis(200));
        })?;
        Ok(Self { front, work, keep, keep_end: Some(keep_end), keep_thread: Some(keep_thread) })
    }

    /// Ends them; a job that blocks a thread does not hold the process.
    pub(super) fn end(mut self) {
        drop(self.keep_end.take());
        if let Some(thread) = self.keep_thread.take() {
            drop(thread.join());
        }
        self.work.shutdown_timeout(Duration::from_millis(200));
        self.front.shutdown_timeout(Duration::from_millis(200));
    }
}
