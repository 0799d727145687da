//! A statement in the making: text with `$n`, lists and records as one parameter each, for both engines.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbBackend, ExecResult, QueryResult, Statement, sea_query::Value};
use serde_json::json;
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

/// One column of a list of rows: a cell for each row, none of them absent.
#[derive(Debug, Clone)]
pub enum Cells {
    /// Ids.
    Uuid(Vec<Uuid>),
    /// Text.
    Text(Vec<String>),
    /// Whole numbers.
    Big(Vec<i64>),
    /// Times.
    Time(Vec<DateTime<Utc>>),
    /// Bytes.
    Bytes(Vec<Vec<u8>>),
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
            let list: Vec<String> = ids.iter().copied().map(hex).collect();
            let name = self.bind(json!(list).to_string());
            return format!("IN (SELECT unhex(value) FROM json_each({name}))");
        }
        // The planner sees no list whose length would make it read the whole table: each id is looked up.
        format!("= ANY (ARRAY(SELECT unnest({})))", self.bind(ids.to_vec()))
    }

    /// `IN (…)` over whole numbers.
    pub fn numbers(&mut self, numbers: &[i64]) -> String {
        if self.sqlite() {
            let name = self.bind(json!(numbers).to_string());
            return format!("IN (SELECT value FROM json_each({name}))");
        }
        // As with ids: each is looked up, however long the list is.
        format!("= ANY (ARRAY(SELECT unnest({})))", self.bind(numbers.to_vec()))
    }

    /// `NOT IN (…)` over whole numbers. A subquery: PostgreSQL hashes it, and compares with each of an array.
    pub fn no_number(&mut self, numbers: &[i64]) -> String {
        if self.sqlite() {
            return format!("NOT {}", self.numbers(numbers));
        }
        format!("NOT IN (SELECT unnest({}))", self.bind(numbers.to_vec()))
    }

    /// `IN (…)` over words.
    pub fn words<T: AsRef<str>>(&mut self, words: &[T]) -> String {
        let list: Vec<String> = words.iter().map(|word| word.as_ref().to_owned()).collect();
        if self.sqlite() {
            let name = self.bind(json!(list).to_string());
            return format!("IN (SELECT value FROM json_each({name}))");
        }
        format!("= ANY ({})", self.bind(list))
    }

    /// A list of rows as a table `x`, in their order; all columns are as long. One parameter for each column on PostgreSQL,
    /// which reads an array several times faster than JSON; on SQLite one for all of them and one for each column of bytes,
    /// which JSON could only carry as text.
    pub fn rows<const N: usize>(&mut self, columns: [(&str, Cells); N]) -> String {
        if self.sqlite() {
            return self.rows_of_json(columns);
        }
        let (mut arrays, mut names) = (Vec::with_capacity(N), Vec::with_capacity(N));
        for (column, cells) in columns {
            names.push(column);
            arrays.push(match cells {
                Cells::Uuid(cells) => self.bind(cells),
                Cells::Text(cells) => self.bind(cells),
                Cells::Big(cells) => self.bind(cells),
                Cells::Time(cells) => self.bind(cells),
                Cells::Bytes(cells) => self.bind(cells),
            });
        }
        format!("UNNEST({}) AS x({})", arrays.join(", "), names.join(", "))
    }

    fn rows_of_json<const N: usize>(&mut self, columns: [(&str, Cells); N]) -> String {
        let mut picked = Vec::with_capacity(N);
        let mut written = Vec::with_capacity(N);
        for (at, (column, cells)) in columns.into_iter().enumerate() {
            let cell = |of: &str| format!("json_extract(value, '$[{at}]{of}')");
            picked.push(match &cells {
                Cells::Uuid(_) => format!("unhex({}) AS {column}", cell("")),
                Cells::Bytes(cells) => {
                    let all = self.bind(cells.concat());
                    // Of no bytes at all SQLite makes NULL.
                    format!("coalesce(substr({all}, {}, {}), x'') AS {column}", cell("[0]"), cell("[1]"))
                }
                _ => format!("{} AS {column}", cell("")),
            });
            written.push(cells.into_json());
        }
        // Row by row as text: no tree of values is made of it.
        let (mut text, mut between_rows) = (String::from("["), "[");
        while let Some(first) = written.first_mut().and_then(Iterator::next) {
            text.push_str(between_rows);
            text.push_str(&first);
            for cell in written.iter_mut().skip(1).filter_map(Iterator::next) {
                text.push(',');
                text.push_str(&cell);
            }
            between_rows = "],[";
        }
        text.push_str(if between_rows == "[" { "]" } else { "]]" });
        let name = self.bind(text);
        format!("(SELECT {} FROM jsonb_each({name})) AS x", picked.join(", "))
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

impl Cells {
    /// As SQLite's JSON functions read them; bytes as where they begin among all of them, from 1, and how many they are.
    fn into_json(self) -> Box<dyn Iterator<Item = String>> {
        match self {
            Self::Uuid(cells) => Box::new(cells.into_iter().map(|id| format!("\"{}\"", id.simple()))),
            // Moved into the value, not copied.
            Self::Text(cells) => Box::new(cells.into_iter().map(|cell| serde_json::Value::from(cell).to_string())),
            Self::Big(cells) => Box::new(cells.into_iter().map(|cell| cell.to_string())),
            Self::Time(cells) => Box::new(cells.into_iter().map(|at| format!("\"{}\"", stamp(at)))),
            Self::Bytes(cells) => {
                let mut first = 1;
                Box::new(cells.into_iter().map(move |cell| {
                    let place = format!("[{first},{}]", cell.len());
                    first += cell.len();
                    place
                }))
            }
        }
    }
}

fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// Bytes as text that `unhex` reads.
pub fn hex_bytes(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// A time exactly as the driver writes a bound one.
fn stamp(at: DateTime<Utc>) -> String {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on panics; that is how it tells")]

    use sea_orm::{ConnectionTrait, QueryResult};

    use super::{Cells, Sql};

    #[tokio::test]
    async fn a_list_of_any_length_arrives_on_sqlite_whole_and_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let db = crate::sqlite(&folder.path().join("rows.sqlite"));
        let text = |n: i64| format!("{n} \"\\\n\u{1}\u{e9}\u{1f514}");
        for count in [0_i64, 1, 2, 3_000] {
            let id = |n: i64| uuid::Uuid::from_u64_pair(count.unsigned_abs(), n.unsigned_abs());
            let at = |n: i64| chrono::DateTime::from_timestamp_micros(1_780_000_000_000_000 - n).unwrap();
            let mut sql = Sql::of(&db);
            let rows = sql.rows([
                // Falling, so that no other order is taken for theirs.
                ("n", Cells::Big((0..count).rev().collect())),
                ("id", Cells::Uuid((0..count).rev().map(id).collect())),
                ("text", Cells::Text((0..count).rev().map(text).collect())),
                ("at", Cells::Time((0..count).rev().map(at).collect())),
            ]);
            let found = sql.all(&db, &format!("SELECT x.n, x.id, x.text, x.at FROM {rows}")).await.unwrap();
            for (row, n) in found.iter().zip((0..count).rev()) {
                assert_eq!(row.try_get_by::<i64, _>(0).unwrap(), n);
                assert_eq!(row.try_get_by::<uuid::Uuid, _>(1).unwrap(), id(n));
                assert_eq!(row.try_get_by::<String, _>(2).unwrap(), text(n));
                assert_eq!(row.try_get_by::<chrono::DateTime<chrono::Utc>, _>(3).unwrap(), at(n));
            }
            assert_eq!(found.len() as u64, count.unsigned_abs());
        }
    }

    #[tokio::test]
    async fn bytes_arrive_on_sqlite_as_they_were_also_when_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let db = crate::sqlite(&folder.path().join("rows.sqlite"));
        db.execute_unprepared("CREATE TABLE t (n integer, one blob NOT NULL, other blob NOT NULL)").await.unwrap();
        let some = [b"ab\0\xff".to_vec(), Vec::new(), vec![b'\''; 3]];
        for bytes in [&some[..], &[Vec::new()]] {
            let mut sql = Sql::of(&db);
            let rows = sql.rows([
                ("n", Cells::Big((0..).take(bytes.len()).collect())),
                ("one", Cells::Bytes(bytes.to_vec())),
                ("other", Cells::Bytes(bytes.iter().rev().cloned().collect())),
            ]);
            let text = format!("INSERT INTO t SELECT x.n, x.one, x.other FROM {rows} WHERE true");
            assert_eq!(sql.run(&db, &text).await.unwrap(), bytes.len() as u64);
            let found = Sql::of(&db).all(&db, "SELECT one, other FROM t ORDER BY n").await.unwrap();
            let column = |name: &str| -> Vec<Vec<u8>> {
                found.iter().map(|row: &QueryResult| row.try_get("", name).unwrap()).collect()
            };
            assert_eq!(column("one"), bytes);
            assert_eq!(column("other"), bytes.iter().rev().cloned().collect::<Vec<_>>());
            db.execute_unprepared("DELETE FROM t").await.unwrap();
        }
    }
}
