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
    /// Like [`Clock::sleep_until`], as exactly as the machine can: for the one sleep that decides how late a job begins.
    async fn alarm(&self, until: Duration) {
        self.sleep_until(until).await;
    }
    /// Tells the clock what the database said, read between the two monotonic moments. The step found, if more than 60 s.
    fn measured(&self, database: Instant, before: Duration, after: Duration) -> Option<TimeDelta>;
}

/// The difference between database time and expectation that is called a step.
const STEP: TimeDelta = TimeDelta::seconds(60);

/// How fast an estimate loses its worth: clocks of machines run apart by at most 500 millionths; twice that is allowed.
const DRIFT_DIVISOR: u32 = 1_000;
/// A reading is never better than this, however fast the answer came.
const RESOLUTION: Duration = Duration::from_millis(1);

/// What a process believes the database's time to be: its own monotonic time plus an offset.
///
/// A reading is only as good as half of its round trip. One that took long does not replace a better one, unless the two
/// contradict each other.
pub struct Estimate {
    held: Mutex<Reading>,
}

/// The database's time at monotonic zero, how far it may be off, and when that was found.
#[derive(Clone, Copy)]
struct Reading {
    base: Instant,
    off: Option<Duration>,
    at: Duration,
}

impl Estimate {
    /// Until it is told the database's time, it believes that monotonic zero was at `start`.
    pub fn new(start: Instant) -> Self {
        Self { held: Mutex::new(Reading { base: start, off: None, at: Duration::ZERO }) }
    }

    /// The database's time at a monotonic moment, in whole microseconds.
    pub fn at(&self, monotonic: Duration) -> Instant {
        let base = self.held.lock().unwrap_or_else(PoisonError::into_inner).base;
        (base + delta(monotonic)).trunc_subsecs(6)
    }

    /// See [`Clock::measured`].
    pub fn measured(&self, database: Instant, before: Duration, after: Duration) -> Option<TimeDelta> {
        let trip = after.saturating_sub(before);
        let off = trip / 2 + trip / DRIFT_DIVISOR;
        let new = Reading { base: database - delta(before + trip / 2), off: Some(off), at: after };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let change = new.base - held.base;
        let Some(known) = held.off else {
            *held = new;
            return None;
        };
        let known = known + after.saturating_sub(held.at) / DRIFT_DIVISOR + RESOLUTION;
        if off <= known || change.abs() > delta(known + off) {
            *held = new;
        }
        (change.abs() > STEP).then_some(change)
    }
}

/// The process's monotonic time, with an [`Estimate`] of the database's.
pub struct DatabaseClock {
    start: std::time::Instant,
    estimate: Estimate,
}

impl DatabaseClock {
    /// A clock that shows the process's time until it has been told the database's.
    pub fn new() -> Arc<Self> {
        #[expect(clippy::disallowed_methods, reason = "the clock is the one place that reads the process's time")]
        let now = Utc::now();
        Arc::new(Self { start: std::time::Instant::now(), estimate: Estimate::new(now) })
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[async_trait]
impl Clock for DatabaseClock {
    fn now(&self) -> Instant {
        self.estimate.at(self.start.elapsed())
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep_until(&self, until: Duration) {
        #[expect(clippy::disallowed_methods, reason = "the clock is the one place that sleeps")]
        tokio::time::sleep_until((self.start + until).into()).await;
    }

    async fn alarm(&self, until: Duration) {
        let coarse = until.saturating_sub(ROUNDED);
        if coarse > self.monotonic() {
            self.sleep_until(coarse).await;
        }
        let rest = until.saturating_sub(self.monotonic());
        if !rest.is_zero() && exactly(rest).await.is_err() {
            self.sleep_until(until).await;
        }
    }

    fn measured(&self, database: Instant, before: Duration, after: Duration) -> Option<TimeDelta> {
        self.estimate.measured(database, before, after)
    }
}

/// The runtime's timer counts whole milliseconds and rounds up; what is left of a sleep after it is slept by the kernel's.
const ROUNDED: Duration = Duration::from_millis(2);

/// A sleep by a timer of the kernel.
#[cfg(target_os = "linux")]
async fn exactly(rest: Duration) -> std::io::Result<()> {
    use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
    let timer =
        rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let rest =
        Timespec { tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX), tv_nsec: rest.subsec_nanos().into() };
    rustix::time::timerfd_settime(
        &timer,
        TimerfdTimerFlags::empty(),
        &Itimerspec { it_interval: once, it_value: rest },
    )?;
    #[expect(deprecated, reason = "for descriptors that are closed early; this one is owned until the sleep is over")]
    let timer = tokio::io::unix::AsyncFd::with_interest(timer, tokio::io::Interest::READABLE)?;
    timer.readable().await.map(drop)
}

/// Elsewhere the runtime's timer has to do.
#[cfg(not(target_os = "linux"))]
async fn exactly(_rest: Duration) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reading_does_not_spoil_a_good_one_but_one_that_contradicts_it_counts() {
        let start: Instant = "2026-06-01T00:00:00Z".parse().unwrap();
        let at = |ms: i64| start + TimeDelta::milliseconds(ms);
        let ms = Duration::from_millis;
        let estimate = Estimate::new(at(-3_600_000));
        assert_eq!(estimate.measured(at(1_000), ms(1_000), ms(1_002)), None, "the first is no step");
        assert_eq!(estimate.at(ms(2_000)), at(1_999));
        estimate.measured(at(2_000), ms(2_000), ms(5_000));
        assert_eq!(estimate.at(ms(6_000)), at(5_999), "it may be 1.5 s off, which the first is not");
        estimate.measured(at(7_000), ms(7_000), ms(7_004));
        assert_eq!(estimate.at(ms(7_000)), at(6_998), "as good, for the first has aged");
        let step = estimate.measured(at(100_000), ms(8_000), ms(11_000)).unwrap();
        assert_eq!((step.num_seconds(), estimate.at(ms(9_500))), (90, at(100_000)));
    }

    #[tokio::test]
    async fn an_alarm_is_never_early_whether_it_is_far_near_or_past() {
        let clock = DatabaseClock::new();
        for ahead in [5_000, 1_500, 300, 1, 0] {
            let until = clock.monotonic() + Duration::from_micros(ahead);
            clock.alarm(until).await;
            assert!(clock.monotonic() >= until, "{ahead} µs ahead");
        }
        clock.alarm(Duration::ZERO).await;
    }
}
