//! A statement in the making: text with `$n`, lists and records as one parameter each, for both engines.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbBackend, ExecResult, QueryResult, Statement, sea_query::Value};
use uuid::Uuid;

use crate::{
    Fault,
    deadline::{STATEMENT, within},
};

/// A statement in the making: text with `$n`, and what they stand for.
pub struct Sql {
    backend: DbBackend,
    values: Vec<Value>,
}

/// The type of a column in a list of records.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    /// An id.
    Uuid,
    /// Text.
    Text,
    /// A whole number.
    Big,
    /// A time.
    Time,
    /// JSON.
    Json,
    /// True or false.
    Bool,
}

impl Sql {
    /// An empty statement for the engine behind `db`.
    pub fn of(db: &impl ConnectionTrait) -> Self {
        Self { backend: db.get_database_backend(), values: Vec::new() }
    }

    /// Whether the engine is SQLite.
    pub fn sqlite(&self) -> bool {
        self.backend == DbBackend::Sqlite
    }

    /// A parameter; its name in the text.
    pub fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    /// A JSON parameter, as the engine's columns hold it.
    pub fn json(&mut self, value: Option<&serde_json::Value>) -> String {
        let name = self.bind(value.map(ToString::to_string));
        if self.sqlite() { name } else { format!("{name}::jsonb") }
    }

    /// `IN (…)` over ids.
    pub fn ids(&mut self, ids: &[Uuid]) -> String {
        if self.sqlite() {
            let list: Vec<String> = ids.iter().map(|id| id.simple().to_string()).collect();
            let name = self.bind(serde_json::json!(list).to_string());
            return format!("IN (SELECT unhex(value) FROM json_each({name}))");
        }
        let list: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        let name = self.bind(serde_json::json!(list).to_string());
        format!("= ANY (ARRAY(SELECT x::uuid FROM jsonb_array_elements_text({name}::jsonb) AS x))")
    }

    /// `IN (…)` over words.
    pub fn words<T: AsRef<str>>(&mut self, words: &[T]) -> String {
        let list: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let name = self.bind(serde_json::json!(list).to_string());
        if self.sqlite() {
            format!("IN (SELECT value FROM json_each({name}))")
        } else {
            format!("= ANY (ARRAY(SELECT jsonb_array_elements_text({name}::jsonb)))")
        }
    }

    /// A list of records as a table `x`. Ids are written as [`hex`], times as [`stamp`].
    pub fn records(&mut self, columns: &[(&str, Type)], records: &[serde_json::Value]) -> String {
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

    /// All rows.
    pub async fn all(self, db: &impl ConnectionTrait, text: &str) -> Result<Vec<QueryResult>, Fault> {
        within(STATEMENT, async { Ok(db.query_all_raw(self.statement(text)).await?) }).await
    }

    /// The first row, if any.
    pub async fn one(self, db: &impl ConnectionTrait, text: &str) -> Result<Option<QueryResult>, Fault> {
        within(STATEMENT, async { Ok(db.query_one_raw(self.statement(text)).await?) }).await
    }

    /// How many rows it changed.
    pub async fn run(self, db: &impl ConnectionTrait, text: &str) -> Result<u64, Fault> {
        let running =
            async { Ok(db.execute_raw(self.statement(text)).await.map(|done: ExecResult| done.rows_affected())?) };
        within(STATEMENT, running).await
    }
}

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
pub fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// A time inside a JSON parameter, exactly as the driver writes a bound one.
pub fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, false)
}

/// A time that may be absent, as a bound value.
pub fn time(at: Option<DateTime<Utc>>) -> Value {
    Value::ChronoDateTimeUtc(at)
}

/// An id that may be absent, as a bound value.
pub fn id(id: Option<Uuid>) -> Value {
    Value::Uuid(id)
}
