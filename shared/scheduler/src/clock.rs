//! Time comes in through the front: a clock that follows the database's, and one driven by hand.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{SubsecRound, TimeDelta, Utc};
use tokio::sync::watch;

use crate::Instant;

/// What the runner and the doors know of time.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The database's time as this process estimates it, in whole microseconds.
    fn now(&self) -> Instant;
    /// Time that never steps, from an arbitrary start.
    fn monotonic(&self) -> Duration;
    /// Returns when `monotonic` has reached `until`.
    async fn sleep_until(&self, until: Duration);
    /// Tells the clock what the database said, read between the two monotonic moments. The step found, if more than 60 s.
    fn measured(&self, database: Instant, before: Duration, after: Duration) -> Option<TimeDelta>;
}

/// The difference between database time and expectation that is called a step.
const STEP: TimeDelta = TimeDelta::seconds(60);

/// Monotonic time plus the offset to the database's time.
pub struct DatabaseClock {
    start: std::time::Instant,
    base: Mutex<Instant>,
    measured: std::sync::atomic::AtomicBool,
}

impl DatabaseClock {
    /// A clock that shows the process's time until it has been told the database's.
    pub fn new() -> Arc<Self> {
        #[expect(clippy::disallowed_methods, reason = "the clock is the one place that reads the process's time")]
        let now = Utc::now();
        Arc::new(Self {
            start: std::time::Instant::now(),
            base: Mutex::new(now),
            measured: std::sync::atomic::AtomicBool::new(false),
        })
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[async_trait]
impl Clock for DatabaseClock {
    fn now(&self) -> Instant {
        let base = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        (base + delta(self.start.elapsed())).trunc_subsecs(6)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep_until(&self, until: Duration) {
        #[expect(clippy::disallowed_methods, reason = "the clock is the one place that sleeps")]
        tokio::time::sleep_until((self.start + until).into()).await;
    }

    fn measured(&self, database: Instant, before: Duration, after: Duration) -> Option<TimeDelta> {
        let base = database - delta(before + (after.saturating_sub(before)) / 2);
        let mut held = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let change = base - *held;
        *held = base;
        let first = !self.measured.swap(true, std::sync::atomic::Ordering::Relaxed);
        (!first && change.abs() > STEP).then_some(change)
    }
}

/// A clock driven by hand: time stands still until it is advanced.
pub struct ManualClock {
    state: watch::Sender<(Instant, Duration)>,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Instant) -> Arc<Self> {
        Arc::new(Self { state: watch::Sender::new((now.trunc_subsecs(6), Duration::ZERO)) })
    }

    /// Moves both times on.
    pub fn advance(&self, by: Duration) {
        self.state.send_modify(|(now, monotonic)| {
            *now += delta(by);
            *monotonic += by;
        });
    }

    /// Steps the wall clock alone.
    pub fn step(&self, by: TimeDelta) {
        self.state.send_modify(|(now, _)| *now += by);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.state.borrow().0
    }

    fn monotonic(&self) -> Duration {
        self.state.borrow().1
    }

    async fn sleep_until(&self, until: Duration) {
        let mut changes = self.state.subscribe();
        if changes.wait_for(|(_, monotonic)| *monotonic >= until).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn measured(&self, _database: Instant, _before: Duration, _after: Duration) -> Option<TimeDelta> {
        None
    }
}
