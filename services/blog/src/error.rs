//! What can go wrong in blog, and the one place where it becomes an HTTP status.

use database::Fault;
use service_kit::http::Problem;

/// What can go wrong in blog's rooms.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing.
    #[error("there is no {0} of this id")]
    NotFound(&'static str),
    /// It is not in a state that allows this.
    #[error("a {present} post cannot be {wanted}")]
    WrongState {
        /// What it is.
        present: &'static str,
        /// What was wanted.
        wanted: &'static str,
    },
    /// It is used in a way that forbids this.
    #[error("{0}")]
    Conflict(&'static str),
    /// A field that cannot be taken.
    #[error("{field}: {message}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What was expected.
        message: String,
    },
    /// An event that cannot be recorded.
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] Fault),
}

impl Error {
    /// A field that cannot be taken.
    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { field, message: message.into() }
    }
}

impl From<sea_orm::DbErr> for Error {
    fn from(error: sea_orm::DbErr) -> Self {
        Self::Database(error.into())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(_) => Self::not_found(error.to_string()),
            Error::WrongState { present, .. } => Self::conflict(error.to_string()).state(present),
            Error::Conflict(why) => Self::conflict(why),
            Error::Invalid { field, message } => Self::bad(field, message),
            Error::Outbox(error) => error.into(),
            Error::Database(fault) => fault.into(),
        }
    }
}

impl From<Error> for scheduler::JobError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Database(fault) | Error::Outbox(outbox::Error::Database(fault)) if fault.is_transient() => {
                Self::Transient(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}
