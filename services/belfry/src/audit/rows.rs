//! Reads tables of a service, as their definitions say and in no other way.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, QueryResult, Statement, Value};
use service_kit::database::{Place, Pool};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The tables of one service.
pub(super) struct Reader {
    db: DatabaseConnection,
}

impl Reader {
    /// Nothing is asked yet.
    pub(super) fn open(place: &Place, service: &str) -> anyhow::Result<Self> {
        if let Place::File(file) = place {
            anyhow::ensure!(file.exists(), "{service}: there is no {}", file.display());
        }
        let db = place.pool(service, Pool::Work)?;
        Ok(Self { db: place.reader(&db)? })
    }

    /// A file with tables that is not a service's.
    pub(super) fn file(file: &std::path::Path) -> anyhow::Result<Self> {
        Self::open(&Place::File(file.to_owned()), "the log")
    }

    pub(super) fn sqlite(&self) -> bool {
        self.db.get_database_backend() == DbBackend::Sqlite
    }

    /// All rows. Parameters are `$1`, `$2`, ...
    pub(super) async fn all(&self, text: &str, values: Vec<Value>) -> anyhow::Result<Vec<QueryResult>> {
        let statement = Statement::from_sql_and_values(self.db.get_database_backend(), text, values);
        let asked = tokio::time::timeout(PATIENCE, self.db.query_all_raw(statement)).await;
        Ok(asked.map_err(|_| anyhow::anyhow!("the database does not answer within {PATIENCE:?}"))??)
    }

    /// The database's time; of a file this process's.
    pub(super) async fn now(&self) -> anyhow::Result<DateTime<Utc>> {
        if self.sqlite() {
            #[expect(clippy::disallowed_methods, reason = "a file has no clock of its own")]
            return Ok(Utc::now());
        }
        let rows = self.all("SELECT statement_timestamp() AS now", Vec::new()).await?;
        let row = rows.first().ok_or_else(|| anyhow::anyhow!("the database does not tell the time"))?;
        Ok(row.try_get("", "now")?)
    }

    /// Tables whose rows fall due.
    pub(super) async fn due_tables(&self) -> anyhow::Result<Vec<String>> {
        let text = if self.sqlite() {
            "SELECT m.name AS name FROM sqlite_master m JOIN pragma_table_info(m.name) c
             WHERE m.type = 'table' AND c.name = 'due_at' ORDER BY m.name"
        } else {
            "SELECT table_name::text AS name FROM information_schema.columns
             WHERE table_schema = current_schema() AND column_name = 'due_at' ORDER BY table_name"
        };
        let rows = self.all(text, Vec::new()).await?;
        Ok(rows.iter().map(|row| row.try_get("", "name")).collect::<Result<_, _>>()?)
    }
}
