//! What operators do: each command asks the admin API and shows the answer.

mod delivery;
mod jobs;

pub(crate) use self::{
    delivery::{dead_letters, events, outbox},
    jobs::jobs,
};
use crate::cli::Page;

/// The query of a page.
fn page_query(page: &Page) -> [(&'static str, Option<String>); 2] {
    [("limit", Some(page.limit.to_string())), ("cursor", page.cursor.clone())]
}
