//! What every door needs.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use scheduler::clock::Clock;
use service_kit::{Setup, database::Db};

use crate::config::Config;

/// What every door needs.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) db: Db,
    pub(crate) config: Arc<Config>,
    clock: Arc<dyn Clock>,
}

impl App {
    pub(crate) fn new(setup: &Setup) -> Self {
        Self { db: setup.db.clone(), config: Arc::new(setup.settings()), clock: Arc::clone(&setup.clock) }
    }

    /// The database's time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}
