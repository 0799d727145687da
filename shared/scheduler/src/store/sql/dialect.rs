//! Where the two engines differ: lists and records as parameters, and a few words.

use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
    sea_query::Value,
};
use uuid::Uuid;

use crate::{Instant, StoreError, kinds::Held};

/// A statement in the making: text with `$n`, and what they stand for.
pub(super) struct Sql {
    pub(super) backend: DbBackend,
    values: Vec<Value>,
}

/// The type of a column in a list of records.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Uuid,
    Text,
    Big,
    Time,
    Json,
    Bool,
}

impl Sql {
    pub(super) fn new(backend: DbBackend) -> Self {
        Self { backend, values: Vec::new() }
    }

    pub(super) fn sqlite(&self) -> bool {
        self.backend == DbBackend::Sqlite
    }

    /// A parameter; its name in the text.
    pub(super) fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    /// A JSON parameter, as the engine's columns hold it.
    pub(super) fn json(&mut self, value: Option<&serde_json::Value>) -> String {
        let name = self.bind(value.map(ToString::to_string));
        if self.sqlite() { name } else { format!("{name}::jsonb") }
    }

    /// `IN (…)` over ids.
    pub(super) fn ids(&mut self, ids: &[Uuid]) -> String {
        if self.sqlite() {
            let list: Vec<String> = ids.iter().copied().map(hex).collect();
            let name = self.bind(serde_json::json!(list).to_string());
            return format!("IN (SELECT unhex(value) FROM json_each({name}))");
        }
        // The planner sees no list whose length would make it read the whole table: each id is looked up.
        format!("= ANY (ARRAY(SELECT unnest({})))", self.bind(ids.to_vec()))
    }

    /// `IN (…)` over words.
    pub(super) fn words<T: AsRef<str>>(&mut self, words: &[T]) -> String {
        let list: Vec<String> = words.iter().map(|word| word.as_ref().to_owned()).collect();
        if self.sqlite() {
            let name = self.bind(serde_json::json!(list).to_string());
            return format!("IN (SELECT value FROM json_each({name}))");
        }
        format!("= ANY ({})", self.bind(list))
    }

    /// What is held, as a table `x(r, e)`.
    pub(super) fn held(&mut self, held: &[Held]) -> String {
        if self.sqlite() {
            let list: Vec<_> = held.iter().map(|held| (hex(held.id), held.epoch)).collect();
            let name = self.bind(serde_json::json!(list).to_string());
            return format!(
                "(SELECT unhex(json_extract(value, '$[0]')) AS r, json_extract(value, '$[1]') AS e
                  FROM json_each({name})) AS x"
            );
        }
        let ids = self.bind(held.iter().map(|held| held.id).collect::<Vec<_>>());
        let epochs = self.bind(held.iter().map(|held| held.epoch).collect::<Vec<_>>());
        format!("UNNEST({ids}, {epochs}) AS x(r, e)")
    }

    /// A list of records, whose fields may be absent, as a table `x`. Ids are written as [`hex`], times as [`stamp`].
    pub(super) fn records(&mut self, columns: &[(&str, Type)], records: &[serde_json::Value]) -> String {
        let name = self.bind(serde_json::Value::Array(records.to_vec()).to_string());
        if self.sqlite() {
            let columns: Vec<String> = columns
                .iter()
                .map(|(column, kind)| match kind {
                    Type::Uuid => format!("unhex(json_extract(value, '$.{column}')) AS {column}"),
                    _ => format!("json_extract(value, '$.{column}') AS {column}"),
                })
                .collect();
            return format!("(SELECT {} FROM json_each({name})) AS x", columns.join(", "));
        }
        let columns: Vec<String> =
            columns.iter().map(|(column, kind)| format!("{column} {}", postgres(*kind))).collect();
        format!("jsonb_to_recordset({name}::jsonb) AS x({})", columns.join(", "))
    }

    fn statement(self, text: &str) -> Statement {
        Statement::from_sql_and_values(self.backend, text, self.values)
    }

    pub(super) async fn all(self, tx: &DatabaseTransaction, text: &str) -> Result<Vec<QueryResult>, StoreError> {
        answered(tx.query_all_raw(self.statement(text))).await
    }

    /// The same without a transaction around it.
    pub(super) async fn read(self, db: &DatabaseConnection, text: &str) -> Result<Vec<QueryResult>, StoreError> {
        answered(db.query_all_raw(self.statement(text))).await
    }

    pub(super) async fn one(self, tx: &DatabaseTransaction, text: &str) -> Result<Option<QueryResult>, StoreError> {
        answered(tx.query_one_raw(self.statement(text))).await
    }

    pub(super) async fn run(self, tx: &DatabaseTransaction, text: &str) -> Result<u64, StoreError> {
        answered(tx.execute_raw(self.statement(text))).await.map(|done: ExecResult| done.rows_affected())
    }
}

/// Waits at most [`ANSWER`]; whoever rolls back then finds the connection as silent, and closes it.
async fn answered<T>(statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, StoreError> {
    match tokio::time::timeout(ANSWER, statement).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {ANSWER:?}"))),
    }
}

/// A statement takes at most this, seen from here; the server ends it after 10 s if it can.
const ANSWER: Duration = Duration::from_secs(12);

fn postgres(kind: Type) -> &'static str {
    match kind {
        Type::Uuid => "uuid",
        Type::Text => "text",
        Type::Big => "bigint",
        Type::Time => "timestamptz",
        Type::Json => "jsonb",
        Type::Bool => "boolean",
    }
}

/// An id inside a JSON parameter; both engines read it.
pub(super) fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// A time inside a JSON parameter, exactly as the driver writes a bound one.
pub(super) fn stamp(at: Instant) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, false)
}

/// A time that may be absent, as a bound value.
pub(super) fn time(at: Option<Instant>) -> Value {
    Value::ChronoDateTimeUtc(at)
}

/// An id that may be absent, as a bound value.
pub(super) fn id(id: Option<Uuid>) -> Value {
    Value::Uuid(id)
}
