//! Due rows of the tests' table, by whichever store.

use async_trait::async_trait;
use scheduler::{
    Instant,
    kinds::{Held, LeaseTake, Leased, Take},
    store::{
        Store,
        memory::{DueRow, DueTable, MemoryStore, MemoryTx},
        sql::{Due, LeaseTable, SqlStore, SqlTx},
    },
};
use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};
use uuid::Uuid;

/// A row as every store knows it.
#[derive(Debug, Clone, PartialEq, FromQueryResult)]
pub(crate) struct Thing {
    pub(crate) id: Uuid,
    pub(crate) due_at: Option<Instant>,
    pub(crate) lease_owner: Option<String>,
    pub(crate) lease_epoch: i64,
    pub(crate) attempt_count: i32,
    pub(crate) lost_count: i32,
}

/// What was leased: held, due, attempt, lost.
pub(crate) type Taken = (Held, Option<Instant>, i32, i32);

/// A store with a table of due rows.
#[async_trait]
pub(crate) trait Alike: Store {
    async fn put(&self, tx: &mut Self::Tx, id: Uuid, due_at: Instant);
    async fn take(&self, tx: &mut Self::Tx, take: &Take) -> Vec<Uuid>;
    async fn claim(&self, tx: &mut Self::Tx, take: &LeaseTake) -> Vec<Taken>;
    async fn lock(&self, tx: &mut Self::Tx, held: &[Held]) -> Vec<Held>;
    async fn extend(&self, tx: &mut Self::Tx, held: &[Held], until: Instant) -> Vec<Held>;
    async fn give_back(&self, tx: &mut Self::Tx, held: &[Held], now: Instant);
    async fn settle(&self, tx: &mut Self::Tx, id: Uuid, due_at: Option<Instant>);
    async fn next_due(&self, tx: &mut Self::Tx, job: &str) -> Option<Instant>;
    async fn things(&self) -> Vec<Thing>;
}

const ROWS: DueTable = DueTable("things");
const COLUMNS: &str = "id, due_at, lease_owner, lease_epoch, attempt_count, lost_count";
const DUE: Due<Thing> = Due::of("things", COLUMNS);
const LEASES: LeaseTable = LeaseTable::of("things", "true");

fn taken<R>(leased: Vec<Leased<R>>) -> Vec<Taken> {
    leased.into_iter().map(|row| (row.held, row.due_at, row.attempt, row.lost)).collect()
}

#[async_trait]
impl Alike for MemoryStore {
    async fn put(&self, tx: &mut MemoryTx, id: Uuid, due_at: Instant) {
        ROWS.put(tx, DueRow { id, due_at: Some(due_at), ..DueRow::default() });
    }

    async fn take(&self, tx: &mut MemoryTx, take: &Take) -> Vec<Uuid> {
        ROWS.take(tx, take).into_iter().map(|row| row.id).collect()
    }

    async fn claim(&self, tx: &mut MemoryTx, take: &LeaseTake) -> Vec<Taken> {
        taken(ROWS.claim(tx, take))
    }

    async fn lock(&self, tx: &mut MemoryTx, held: &[Held]) -> Vec<Held> {
        ROWS.lock(tx, held)
    }

    async fn extend(&self, tx: &mut MemoryTx, held: &[Held], until: Instant) -> Vec<Held> {
        ROWS.renew(tx, held, until)
    }

    async fn give_back(&self, tx: &mut MemoryTx, held: &[Held], now: Instant) {
        ROWS.release(tx, held, now);
    }

    async fn settle(&self, tx: &mut MemoryTx, id: Uuid, due_at: Option<Instant>) {
        ROWS.settle(tx, id, due_at, serde_json::Value::Null).unwrap();
    }

    async fn next_due(&self, tx: &mut MemoryTx, job: &str) -> Option<Instant> {
        ROWS.next_due(tx, job)
    }

    async fn things(&self) -> Vec<Thing> {
        let thing = |row: DueRow| Thing {
            id: row.id,
            due_at: row.due_at,
            lease_owner: row.lease_owner,
            lease_epoch: row.lease_epoch,
            attempt_count: row.attempt_count,
            lost_count: row.lost_count,
        };
        self.rows(ROWS).into_iter().map(thing).collect()
    }
}

#[async_trait]
impl Alike for SqlStore {
    async fn put(&self, tx: &mut SqlTx, id: Uuid, due_at: Instant) {
        let sqlite = tx.get_database_backend() == sea_orm::DbBackend::Sqlite;
        let text = if sqlite { "VALUES (?, ?)" } else { "VALUES ($1, $2)" };
        let values: [Value; 2] = [id.into(), due_at.into()];
        let text = format!("INSERT INTO things (id, due_at) {text}");
        tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), text, values)).await.unwrap();
    }

    async fn take(&self, tx: &mut SqlTx, take: &Take) -> Vec<Uuid> {
        DUE.take(tx, take).await.unwrap().into_iter().map(|row| row.id).collect()
    }

    async fn claim(&self, tx: &mut SqlTx, take: &LeaseTake) -> Vec<Taken> {
        taken(LEASES.claim::<Thing>(tx, take).await.unwrap())
    }

    async fn lock(&self, tx: &mut SqlTx, held: &[Held]) -> Vec<Held> {
        LEASES.lock(tx, held).await.unwrap()
    }

    async fn extend(&self, tx: &mut SqlTx, held: &[Held], until: Instant) -> Vec<Held> {
        LEASES.renew(tx, held, until).await.unwrap()
    }

    async fn give_back(&self, tx: &mut SqlTx, held: &[Held], now: Instant) {
        LEASES.release(tx, held, now).await.unwrap();
    }

    async fn settle(&self, tx: &mut SqlTx, id: Uuid, due_at: Option<Instant>) {
        LEASES.settle(tx, &[(id, due_at)]).await.unwrap();
    }

    async fn next_due(&self, tx: &mut SqlTx, job: &str) -> Option<Instant> {
        DUE.next_due(tx, job).await.unwrap()
    }

    async fn things(&self) -> Vec<Thing> {
        let (tx, _) = self.begin(std::time::Duration::from_secs(5)).await.unwrap();
        let text = format!("SELECT {COLUMNS} FROM things ORDER BY id");
        let statement = Statement::from_string(tx.get_database_backend(), text);
        let rows = Thing::find_by_statement(statement).all(&*tx).await.unwrap();
        self.rollback(tx).await.unwrap();
        rows
    }
}
