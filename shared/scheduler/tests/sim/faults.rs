//! What can go wrong at an await: drawn from the seed, counted by kind.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use scheduler::StoreError;

use crate::{
    checker::Checker,
    plan::Plan,
    time::{Micros, SECOND, Time},
};

/// How a replica and its way to the store are.
#[derive(Default, Clone)]
pub(crate) struct Health {
    pub(crate) crashed: bool,
    pub(crate) frozen_until: Micros,
    pub(crate) cut_until: Micros,
}

pub(crate) struct State {
    pub(crate) rng: fastrand::Rng,
    pub(crate) replicas: Vec<Health>,
    /// Until when operations go wrong, and how many of 10,000.
    pub(crate) storm: (Micros, u32),
    pub(crate) away_until: Micros,
    /// Of 100 nudges so many are lost.
    pub(crate) nudges_lost: u32,
    pub(crate) nudged: bool,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) checker: Checker,
}

/// A world: its time, its faults, and what is known of it.
pub(crate) struct World {
    pub(crate) time: Arc<Time>,
    state: Mutex<State>,
}

/// What happens to an operation after it took effect.
pub(crate) enum After {
    Nothing,
    Delay(Micros),
    Error(Micros),
    Crash,
    Freeze(Micros),
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("a fault of the simulation".to_owned())
}

impl World {
    pub(crate) fn new(plan: &Plan, time: Arc<Time>, tell: bool) -> Arc<Self> {
        let state = State {
            rng: fastrand::Rng::with_seed(plan.seed),
            replicas: Vec::new(),
            storm: (0, 0),
            away_until: 0,
            nudges_lost: plan.nudges_lost,
            nudged: false,
            counts: BTreeMap::new(),
            checker: Checker::new(plan.seed, tell),
        };
        Arc::new(Self { time, state: Mutex::new(state) })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Notes a fault, which lasts until `until`.
    pub(crate) fn fault(&self, kind: &'static str, replica: usize, until: Micros) {
        let now = self.time.now();
        let mut state = self.state();
        *state.counts.entry(kind).or_default() += 1;
        state.checker.disturbed = state.checker.disturbed.max(until).max(now);
        state.checker.say(now, || format!("r{replica} {kind} until {:.3}", until as f64 / 1e6));
    }

    /// Returns when the replica is neither frozen nor dead; of the dead, never.
    async fn alive(&self, replica: usize) {
        loop {
            let (crashed, frozen_until) = {
                let state = self.state();
                (state.replicas[replica].crashed, state.replicas[replica].frozen_until)
            };
            if crashed {
                std::future::pending::<()>().await;
            }
            if frozen_until <= self.time.now() {
                return;
            }
            self.time.sleep(replica, frozen_until).await;
        }
    }

    fn crash(&self, replica: usize, kind: &'static str) {
        self.fault(kind, replica, self.time.now());
        self.state().replicas[replica].crashed = true;
    }

    fn freeze(&self, replica: usize, kind: &'static str, by: Micros) {
        let until = self.time.now() + by;
        self.fault(kind, replica, until);
        self.state().replicas[replica].frozen_until = until;
    }

    /// Before an operation takes effect: it may never come to it, or what comes after is drawn.
    pub(crate) async fn before(&self, replica: usize) -> Result<After, StoreError> {
        self.alive(replica).await;
        let now = self.time.now();
        let (cut, fate, amount, hangs) = {
            let mut state = self.state();
            let cut = state.replicas[replica].cut_until.max(state.away_until);
            let storm = now < state.storm.0 && state.rng.u32(0..10_000) < state.storm.1;
            let latency = !storm && state.rng.u8(0..8) == 0;
            let fate = if storm { state.rng.u8(1..=8) } else { u8::from(latency) * 9 };
            (cut, fate, state.rng.i64(0..1_000_000), state.rng.u8(0..3))
        };
        if cut > now {
            let answer_lost = hangs == 2;
            if answer_lost {
                return Ok(After::Error(cut.min(now + 5 * SECOND) - now));
            }
            let wait = if hangs == 0 { 1_000 } else { cut.min(now + 5 * SECOND) - now };
            self.time.sleep(replica, now + wait).await;
            self.alive(replica).await;
            return Err(unavailable());
        }
        match fate {
            1 => {
                self.fault("delay before the effect", replica, now + amount * 3);
                self.time.sleep(replica, now + amount * 3).await;
                self.alive(replica).await;
            }
            2 => {
                self.fault("error before the effect", replica, now);
                return Err(unavailable());
            }
            3 => {
                self.fault("error after the effect", replica, now);
                return Ok(After::Error(amount));
            }
            4 => return Ok(After::Delay(amount * 3)),
            5 => {
                self.crash(replica, "crash before the effect");
                std::future::pending::<()>().await;
            }
            6 => return Ok(After::Crash),
            7 => {
                self.freeze(replica, "pause before the effect", (amount + 200_000) * 75);
                self.alive(replica).await;
            }
            8 => return Ok(After::Freeze((amount + 200_000) * 75)),
            9 => self.time.sleep(replica, now + amount / 500 + 100).await,
            _ => {}
        }
        Ok(After::Nothing)
    }

    /// After the effect: the answer may come late or never, or say that it failed.
    pub(crate) async fn after(&self, replica: usize, after: After) -> Result<(), StoreError> {
        let now = self.time.now();
        match after {
            After::Nothing => return Ok(()),
            After::Delay(by) => {
                self.fault("delay after the effect", replica, now + by);
                self.time.sleep(replica, now + by).await;
            }
            After::Error(by) => {
                self.time.sleep(replica, now + by).await;
                self.alive(replica).await;
                return Err(unavailable());
            }
            After::Crash => self.crash(replica, "crash after the effect"),
            After::Freeze(by) => self.freeze(replica, "pause after the effect", by),
        }
        self.alive(replica).await;
        Ok(())
    }
}
