//! Health by deadline: each loop says within its own period that it lives.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

/// What is known of the parts of a process.
#[derive(Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<String, Part>>>,
    ready: Arc<Mutex<BTreeMap<String, Result<(), String>>>>,
}

struct Part {
    period: Duration,
    said: Instant,
}

/// What `/healthz` and `/readyz` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `ok` or `failing`.
    pub status: &'static str,
    /// What is wrong, by part.
    pub failing: BTreeMap<String, String>,
}

impl Report {
    /// Whether all is well.
    pub fn ok(&self) -> bool {
        self.failing.is_empty()
    }

    fn of(failing: BTreeMap<String, String>) -> Self {
        Self { status: if failing.is_empty() { "ok" } else { "failing" }, failing }
    }
}

impl Health {
    /// A part lives, and will say so again within `period`.
    pub fn alive(&self, part: &str, period: Duration) {
        let said = Part { period, said: Instant::now() };
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part.to_owned(), said);
    }

    /// A part ended, as it should.
    pub fn ended(&self, part: &str) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Whether something the process needs is there; the reason when it is not.
    pub fn ready(&self, part: &str, state: Result<(), String>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(part.to_owned(), state);
    }

    /// Whether every loop keeps its word. A job that fails is not unhealthy: restarting the process would not mend it.
    pub fn health(&self) -> Report {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let late = parts.iter().filter(|(_, part)| part.said.elapsed() > part.period);
        Report::of(late.map(|(name, part)| (name.clone(), format!("silent for {:?}", part.said.elapsed()))).collect())
    }

    /// Whether requests can be answered.
    pub fn readiness(&self) -> Report {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let away = ready.iter().filter_map(|(name, state)| Some((name.clone(), state.clone().err()?)));
        Report::of(away.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_silent_for_longer_than_its_period_is_failing() {
        let health = Health::default();
        health.alive("quick", Duration::ZERO);
        health.alive("slow", Duration::from_secs(60));
        let report = health.health();
        assert_eq!(report.failing.keys().collect::<Vec<_>>(), ["quick"]);
        health.ended("quick");
        assert!(health.health().ok());
    }

    #[test]
    fn readiness_tells_what_is_missing() {
        let health = Health::default();
        health.ready("blog database", Err("run `belfry migrate`".to_owned()));
        assert_eq!(health.readiness().failing["blog database"], "run `belfry migrate`");
        health.ready("blog database", Ok(()));
        assert!(health.readiness().ok());
    }
}
