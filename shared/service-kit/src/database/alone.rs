//! One process a database, where events travel in the embedded log: each process would have half of them otherwise.

use std::{sync::Arc, time::Duration};

use database::Fault;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connect_options;
use crate::config::Secret;

/// The lock's key: `belfry` in ASCII.
const KEY: i64 = 0x6265_6c66_7279;
/// How often the connection that holds it is asked for life, and tried anew.
const LOOK: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Tells when another process took the database over.
#[derive(Clone, Default)]
pub struct Alone(Arc<Notify>);

/// What an attempt came to.
enum Try {
    Held(Box<PgConnection>),
    Another,
}

impl Alone {
    /// Takes the lock, or waits for a database that is away. False: another process holds it.
    pub async fn take(&self, url: Secret, stop: CancellationToken) -> bool {
        let held = match attempt(&url).await {
            Ok(Try::Held(connection)) => Some(connection),
            Ok(Try::Another) => return false,
            Err(fault) => {
                tracing::warn!(%fault, "whether this process is alone on its database is seen when it is there");
                None
            }
        };
        let lost = self.clone();
        #[expect(clippy::disallowed_methods, reason = "one loop a process, ended by its token")]
        tokio::spawn(async move { lost.hold(url, held, stop).await });
        true
    }

    /// Returns when another process holds the lock.
    pub async fn lost(&self) {
        self.0.notified().await;
    }

    async fn hold(&self, url: Secret, mut held: Option<Box<PgConnection>>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::timeout(LOOK, std::future::pending::<()>())).await.is_some() {
            let alive = match &mut held {
                Some(connection) => {
                    tokio::time::timeout(ANSWER, connection.ping()).await.is_ok_and(|answer| answer.is_ok())
                }
                None => false,
            };
            if alive {
                continue;
            }
            held = None;
            match attempt(&url).await {
                Ok(Try::Held(connection)) => held = Some(connection),
                Ok(Try::Another) => return self.0.notify_one(),
                Err(fault) => tracing::debug!(%fault, "the lock of the database could not be taken yet"),
            }
        }
    }
}

async fn attempt(url: &Secret) -> Result<Try, Fault> {
    let options = connect_options(url, "public", "belfry/alone").map_err(|error| Fault::Broken(error.to_string()))?;
    let asking = async {
        let mut connection = options.connect().await?;
        let ours: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(KEY).fetch_one(&mut connection).await?;
        Ok::<Try, Fault>(if ours { Try::Held(Box::new(connection)) } else { Try::Another })
    };
    tokio::time::timeout(ANSWER, asking).await.map_err(|_| Fault::Unavailable("it does not answer".to_owned()))?
}
