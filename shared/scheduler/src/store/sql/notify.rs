//! Nudges between replicas on PostgreSQL: one listening connection a URL, shared by all services of a process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{Instant, store::Nudge};

/// The one channel of all services.
const CHANNEL: &str = "belfry";
/// A connection on which nothing was said for so long is asked whether it still is one.
const QUIET: Duration = Duration::from_secs(60);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// After a lost connection.
const RETRY: Duration = Duration::from_secs(1);

/// A listening connection.
pub struct Notifications {
    services: Mutex<HashMap<String, broadcast::Sender<Nudge>>>,
}

impl Notifications {
    /// Begins to listen on the current runtime, until `stop`.
    pub fn listen(options: PgConnectOptions, stop: CancellationToken) -> Arc<Self> {
        let this = Arc::new(Self { services: Mutex::default() });
        let listening = Arc::clone(&this);
        #[expect(clippy::disallowed_methods, reason = "the one listener of a process, ended by its token")]
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = listening.run(options) => {}
            }
        });
        this
    }

    /// Where nudges for `service` are heard.
    pub(super) fn of(&self, service: &str) -> broadcast::Sender<Nudge> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.entry(service.to_owned()).or_insert_with(|| broadcast::Sender::new(super::NUDGES)).clone()
    }

    async fn run(&self, options: PgConnectOptions) {
        loop {
            if let Err(error) = self.hear(&options).await {
                tracing::warn!(%error, "notifications are not heard; due rows are looked for every 5 s");
            }
            #[expect(clippy::disallowed_methods, reason = "back-off of a loop that owns its connection")]
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn hear(&self, options: &PgConnectOptions) -> Result<(), sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5));
        let pool = pool.connect_with(options.clone()).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        listener.listen(CHANNEL).await?;
        // What was said before this connection listened is lost: look.
        self.look_everywhere();
        loop {
            let Ok(said) = tokio::time::timeout(QUIET, listener.try_recv()).await else {
                // Nothing was said, or nobody is there any more: only a question tells.
                let asked = tokio::time::timeout(ANSWER, listener.execute("SELECT 1")).await;
                asked.map_err(|_| sqlx::Error::PoolTimedOut)??;
                continue;
            };
            match said? {
                Some(said) => self.pass_on(said.payload()),
                None => self.look_everywhere(),
            }
        }
    }

    fn pass_on(&self, payload: &str) {
        let Some((service, nudge)) = parse(payload) else {
            tracing::debug!(payload = crate::ledger::hostile(payload), "a notification that is not ours");
            return;
        };
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = services.get(service) {
            // Nobody listens yet: a nudge is only a hint.
            let _heard = sender.send(nudge);
        }
    }

    /// Tells every service that it may have missed something.
    fn look_everywhere(&self) {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in services.values() {
            let _heard = sender.send(Nudge { job: EVERY_JOB.to_owned(), due: None, by: String::new() });
        }
    }
}

/// Stands for every job of a service.
pub(crate) const EVERY_JOB: &str = "*";

/// `{service}/{job}/{due or nothing}/{replica}`
pub(super) fn payload(service: &str, nudge: &Nudge) -> String {
    let due = nudge.due.map(|due| due.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)).unwrap_or_default();
    format!("{service}/{}/{due}/{}", nudge.job, nudge.by)
}

pub(super) const SQL: &str = "SELECT pg_notify('belfry', $1)";

fn parse(payload: &str) -> Option<(&str, Nudge)> {
    let mut parts = payload.splitn(4, '/');
    let (service, job, due, by) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let due: Option<Instant> = match due {
        "" => None,
        due => Some(DateTime::parse_from_rfc3339(due).ok()?.with_timezone(&Utc)),
    };
    Some((service, Nudge { job: job.to_owned(), due, by: by.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_back_as_it_was_written() {
        for due in [None, Some(DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap())] {
            let nudge = Nudge { job: "post_publisher".to_owned(), due, by: "blog-1-a".to_owned() };
            assert_eq!(parse(&payload("blog", &nudge)), Some(("blog", nudge)));
        }
    }

    #[test]
    fn strange_payloads_are_nothing() {
        for strange in ["", "blog", "blog/job", "blog/job/", "blog/job/yesterday/a"] {
            assert_eq!(parse(strange), None, "{strange:?}");
        }
    }
}
