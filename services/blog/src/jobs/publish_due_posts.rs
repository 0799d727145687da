//! Publishes drafts whose moment has come.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use scheduler::{
    Instant, JobError,
    kinds::{Claim, Run, Take},
    store::sql::{Due, SqlTx},
};
use uuid::Uuid;

use crate::posts::{self, HEADLINE, Headline};

const DUE: Due<Headline> = Due::of("posts", HEADLINE);

/// Each due post once, its change and its events in one transaction.
pub struct PublishDuePosts;

#[async_trait]
impl Claim<SqlTx> for PublishDuePosts {
    type Row = Headline;

    fn id(&self, post: &Headline) -> Uuid {
        post.id
    }

    fn due_at(&self, post: &Headline) -> Option<DateTime<Utc>> {
        post.due_at
    }

    fn wakes_when_due(&self) -> bool {
        true
    }

    async fn next_due(&self, tx: &mut SqlTx) -> Result<Option<Instant>, JobError> {
        DUE.next_due(tx, "post_publisher").await
    }

    async fn take(&self, tx: &mut SqlTx, take: &Take) -> Result<Vec<Headline>, JobError> {
        DUE.take(tx, take).await
    }

    async fn act(&self, tx: &mut SqlTx, due: Vec<Headline>, run: &Run) -> Result<(), JobError> {
        Ok(posts::publish(tx, &due, run.now).await?)
    }
}
