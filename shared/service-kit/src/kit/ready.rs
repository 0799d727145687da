//! Whether a service's database is there and its tables are up to date; looked at until it is, and then on.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use scheduler::clock::Clock;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::upgrade::Upgrade;
use crate::{health::Health, service::Service};

/// How often it is looked at until it is there,
const LOOK: Duration = Duration::from_secs(2);
/// and how often from then on.
const AGAIN: Duration = Duration::from_secs(5);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// Says whether the tables are there, once they are.
#[derive(Clone)]
pub(super) struct Gate(watch::Receiver<bool>);

impl Gate {
    /// Returns when the tables were seen, or at the stop (false).
    pub(super) async fn open(mut self, stop: &CancellationToken) -> bool {
        tokio::select! {
            () = stop.cancelled() => false,
            seen = self.0.wait_for(|open| *open) => seen.is_ok(),
        }
    }
}

/// Looks at a service's database for as long as the process runs.
pub(super) fn watch(
    service: &Service,
    mut upgrade: Option<Upgrade>,
    db: DatabaseConnection,
    clock: Arc<dyn Clock>,
    health: Health,
    stop: CancellationToken,
) -> (Gate, impl Future<Output = ()> + use<>) {
    let (seen, gate) = watch::channel(false);
    let (name, tables) = (service.name, service.tables);
    let looking = async move {
        let mut migrated = false;
        while !stop.is_cancelled() {
            upgrade = match upgrade {
                Some(upgrade) => upgrade.begin().await.unwrap_or_else(|fault| {
                    tracing::error!(service = name, %fault, "the tables could not be brought up to date");
                    None
                }),
                None => None,
            };
            let mut state = look(&db, tables, migrated).await;
            if state.is_ok() && !migrated {
                state = read_time(&db, clock.as_ref()).await;
            }
            match &state {
                Ok(()) => {
                    migrated = true;
                    seen.send_replace(true);
                }
                Err(why) => tracing::debug!(service = name, why, "not ready"),
            }
            let pause = if state.is_ok() { AGAIN } else { LOOK };
            health.ready(&format!("{name} database"), state);
            let _stopped = tokio::time::timeout(pause, stop.cancelled()).await;
        }
    };
    (Gate(gate), looking)
}

/// Reads the database's time before anything is done by it: this machine's clock may be hours off, and a lease that was taken
/// by it would last for hours after its owner has died.
async fn read_time(db: &DatabaseConnection, clock: &dyn Clock) -> Result<(), String> {
    if db.get_database_backend() == DbBackend::Sqlite {
        // A file has no other clock than this machine's.
        return Ok(());
    }
    let before = clock.monotonic();
    let read = async {
        let asked = Statement::from_string(DbBackend::Postgres, "SELECT statement_timestamp() AS now");
        let row = db.query_one_raw(asked).await?;
        let now = row.map(|row| row.try_get::<DateTime<Utc>>("", "now")).transpose()?;
        Ok::<_, database::Fault>(now)
    };
    match database::within(PATIENCE, read).await {
        Ok(Some(now)) => {
            clock.measured(now, before, clock.monotonic());
            Ok(())
        }
        Ok(None) => Err("the database does not tell the time".to_owned()),
        Err(fault) => {
            tracing::debug!(%fault, "the database's time was not read");
            Err("the database cannot be reached".to_owned())
        }
    }
}

async fn look(db: &DatabaseConnection, tables: crate::service::Tables, migrated: bool) -> Result<(), String> {
    let look = async {
        if migrated {
            return Ok(db.execute_unprepared("SELECT 1").await.map(|_| 0)?);
        }
        (tables.pending)(db).await
    };
    match database::within(PATIENCE, look).await {
        Ok(0) => Ok(()),
        Ok(_) => Err("the tables are not up to date: run `belfry migrate`".to_owned()),
        // The driver's text may tell where the database is; the log has it, the answer does not.
        Err(fault) => {
            tracing::debug!(%fault, "the database was looked at");
            Err("the database cannot be reached".to_owned())
        }
    }
}
