//! Virtual time: one true clock, timers in a fixed order, and a clock for each replica that drifts.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use chrono::TimeDelta;
use scheduler::{
    Instant,
    clock::{Clock, Estimate},
};

/// Microseconds of true time since the world began.
pub(crate) type Micros = i64;

pub(crate) const SECOND: Micros = 1_000_000;
pub(crate) const MINUTE: Micros = 60 * SECOND;
pub(crate) const HOUR: Micros = 60 * MINUTE;

/// The true time of a world, and who waits for it.
pub(crate) struct Time {
    /// What the database's clock shows at true zero.
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Micros,
    /// How far the database's clock has been stepped.
    step: Micros,
    serial: u64,
    /// By moment, then by who came first: the order of waking never depends on anything else.
    timers: BTreeMap<(Micros, u64), (usize, Waker)>,
}

impl Time {
    pub(crate) fn new(start: Instant) -> Arc<Self> {
        Arc::new(Self { start, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn now(&self) -> Micros {
        self.state().now
    }

    /// What the database's clock shows.
    pub(crate) fn database(&self) -> Instant {
        let state = self.state();
        self.start + TimeDelta::microseconds(state.now + state.step)
    }

    /// Steps the database's clock.
    pub(crate) fn step(&self, by: Micros) {
        self.state().step += by;
    }

    pub(crate) fn next_timer(&self) -> Option<Micros> {
        self.state().timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Moves on; the replicas whose timers rang.
    pub(crate) fn advance(&self, to: Micros) -> Vec<usize> {
        let mut rung = Vec::new();
        let due = {
            let mut state = self.state();
            state.now = state.now.max(to);
            let later = state.timers.split_off(&(to + 1, 0));
            std::mem::replace(&mut state.timers, later)
        };
        for (replica, waker) in due.into_values() {
            waker.wake();
            rung.push(replica);
        }
        rung
    }

    /// Has `advance` name the replica at that moment.
    pub(crate) fn ring(&self, replica: usize, at: Micros) {
        let mut state = self.state();
        state.serial += 1;
        let key = (at, state.serial);
        state.timers.insert(key, (replica, Waker::noop().clone()));
    }

    pub(crate) fn sleep(self: &Arc<Self>, replica: usize, until: Micros) -> Sleep {
        Sleep { time: Arc::clone(self), replica, until, key: None }
    }
}

/// A wait for a true moment.
pub(crate) struct Sleep {
    time: Arc<Time>,
    replica: usize,
    until: Micros,
    key: Option<(Micros, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let time = Arc::clone(&self.time);
        let mut state = time.state();
        if state.now >= self.until {
            self.key.take().map(|key| state.timers.remove(&key));
            return Poll::Ready(());
        }
        let until = self.until;
        let key = *self.key.get_or_insert_with(|| {
            state.serial += 1;
            (until, state.serial)
        });
        state.timers.insert(key, (self.replica, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.time.state().timers.remove(&key);
        }
    }
}

/// The database's own clock.
pub(crate) struct DatabaseTime(pub(crate) Arc<Time>);

#[async_trait]
impl Clock for DatabaseTime {
    fn now(&self) -> Instant {
        self.0.database()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.now().unsigned_abs())
    }

    async fn sleep_until(&self, _until: Duration) {
        unreachable!("the database does not sleep");
    }

    fn measured(&self, _database: Instant, _before: Duration, _after: Duration) -> Option<TimeDelta> {
        None
    }
}

/// A replica's clock: it runs a little fast or slow, and shows a wrong time until it has heard the database's.
pub(crate) struct ReplicaClock {
    time: Arc<Time>,
    replica: usize,
    boot: Micros,
    ppm: i64,
    estimate: Estimate,
}

impl ReplicaClock {
    pub(crate) fn new(time: &Arc<Time>, replica: usize, ppm: i64, wrong_by: Micros) -> Arc<Self> {
        let estimate = Estimate::new(time.database() + TimeDelta::microseconds(wrong_by));
        Arc::new(Self { time: Arc::clone(time), replica, boot: time.now(), ppm, estimate })
    }
}

#[async_trait]
impl Clock for ReplicaClock {
    fn now(&self) -> Instant {
        self.estimate.at(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        let since = self.time.now() - self.boot;
        Duration::from_micros((since + since * self.ppm / 1_000_000).unsigned_abs())
    }

    async fn sleep_until(&self, until: Duration) {
        loop {
            let left = until.saturating_sub(self.monotonic());
            if left.is_zero() {
                return;
            }
            let left = i64::try_from(left.as_micros()).unwrap_or(i64::MAX / 4) + 1;
            let left = left - left / 1_000_000 * self.ppm;
            self.time.sleep(self.replica, self.time.now() + left.max(1)).await;
        }
    }

    fn measured(&self, database: Instant, before: Duration, after: Duration) -> Option<TimeDelta> {
        self.estimate.measured(database, before, after)
    }
}
