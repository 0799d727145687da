//! The jobs of blog.

mod publish_due_posts;

use std::time::Duration;

use scheduler::{Job, Kind, store::sql::SqlStore};
use service_kit::{JobDef, Setup};

pub use self::publish_due_posts::PublishDuePosts;

/// Every job, for the catalogue of settings.
pub const CATALOGUE: &[JobDef] = &[JobDef {
    name: "post_publisher",
    prefix: "POST_PUBLISHER",
    description: "Publishes drafts whose moment has come",
    every: Duration::from_secs(300),
    kind: Kind::Claim,
}];

/// Every job, ready to run.
pub(crate) fn all(setup: &Setup) -> Vec<Job<SqlStore>> {
    let [publisher] = CATALOGUE else { return Vec::new() };
    vec![Job::claim(publisher.name, publisher.description, setup.job(publisher.name), PublishDuePosts)]
}
