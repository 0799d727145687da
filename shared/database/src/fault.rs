//! What an error of the database means.

use sea_orm::{DbErr, RuntimeErr};

/// What an error of the database means to whoever asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// Away, or out of some resource for a moment: come back later. Nobody's fault.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// A deadlock or a serialization failure: the same transaction again may succeed.
    #[error("the transaction must be tried again: {0}")]
    Again(String),
    /// A unique key is taken; the constraint's name where the database tells it.
    #[error("a unique key is taken: {0}")]
    Taken(String),
    /// The tables are not there.
    #[error("the tables are missing, run `belfry migrate`: {0}")]
    NotMigrated(String),
    /// A statement or a row that is wrong.
    #[error("the database refused: {0}")]
    Broken(String),
}

impl Fault {
    /// Whether coming back later may help, with nothing changed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Again(_))
    }
}

impl From<DbErr> for Fault {
    fn from(error: DbErr) -> Self {
        let text = error.to_string();
        let source = match &error {
            DbErr::Conn(RuntimeErr::SqlxError(source))
            | DbErr::Exec(RuntimeErr::SqlxError(source))
            | DbErr::Query(RuntimeErr::SqlxError(source)) => source,
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => return Self::Unavailable(text),
            _ => return Self::Broken(text),
        };
        Self::of(source, text)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        Self::of(&error, text)
    }
}

impl Fault {
    /// What an error of the driver means.
    fn of(source: &sqlx::Error, text: String) -> Self {
        use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Protocol, Tls, WorkerCrashed};
        match source {
            Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed | Protocol(_) => Self::Unavailable(text),
            Database(error) => {
                let constraint = error.constraint().map(str::to_owned);
                Self::of_code(&error.code().unwrap_or_default(), constraint, text)
            }
            _ => Self::Broken(text),
        }
    }

    fn of_code(code: &str, constraint: Option<String>, text: String) -> Self {
        match code {
            "40001" | "40P01" => Self::Again(text),
            "23505" | "1555" | "2067" => Self::Taken(constraint.unwrap_or(text)),
            "42P01" | "3F000" => Self::NotMigrated(text),
            // Lock timeout, statement cancelled, idle in transaction, transaction aborted by one of these.
            "55P03" | "57014" | "25P03" | "25P02" => Self::Unavailable(text),
            code if ["53", "57P", "08"].iter().any(|class| code.starts_with(class)) => Self::Unavailable(text),
            // SQLITE_BUSY, SQLITE_LOCKED and their extended codes; SQLITE_FULL.
            "5" | "6" | "13" | "261" | "262" | "517" | "773" => Self::Unavailable(text),
            _ if text.contains("no such table") => Self::NotMigrated(text),
            _ => Self::Broken(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_they_should() {
        let table = [
            ("40P01", "again"),
            ("40001", "again"),
            ("23505", "taken"),
            ("2067", "taken"),
            ("42P01", "not migrated"),
            ("55P03", "unavailable"),
            ("53300", "unavailable"),
            ("57P01", "unavailable"),
            ("08006", "unavailable"),
            ("5", "unavailable"),
            ("22P02", "broken"),
        ];
        for (code, expected) in table {
            let found = match Fault::of_code(code, None, String::new()) {
                Fault::Unavailable(_) => "unavailable",
                Fault::Again(_) => "again",
                Fault::Taken(_) => "taken",
                Fault::NotMigrated(_) => "not migrated",
                Fault::Broken(_) => "broken",
            };
            assert_eq!(found, expected, "{code}");
        }
    }
}
