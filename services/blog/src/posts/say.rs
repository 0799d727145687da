//! What is said of posts. Recorded only from here, with the row's lock held.

use chrono::{DateTime, Utc};
use events::{
    Event,
    blog::{
        Post, PostCreated, PostDeleted, PostPublished, PostRestored, PostScheduledPublished, PostUnpublished,
        PostUpdated,
    },
};
use sea_orm::DatabaseTransaction;
use service_kit::telemetry::current_traceparent;

use super::Headline;
use crate::{entity::post, error::Error};

/// What happened to one post.
pub(super) enum Happened {
    Created,
    Updated,
    Unpublished,
    Deleted,
    Restored,
}

fn whole(post: &post::Model) -> Post {
    Post {
        post_id: post.id,
        title: post.title.clone(),
        slug: post.slug.clone(),
        status: post.status.as_str().to_owned(),
        author_id: post.author_id,
        published_at: post.published_at,
    }
}

/// Records what happened to a post; `post` is the row after the write.
pub(super) async fn say(tx: &DatabaseTransaction, happened: Happened, post: &post::Model) -> Result<(), Error> {
    let (post, version, now, trace) = (whole(post), post.version, post.updated_at, current_traceparent());
    let event = match happened {
        Happened::Created => Event::of(&PostCreated(post), version, now, trace),
        Happened::Updated => Event::of(&PostUpdated(post), version, now, trace),
        Happened::Unpublished => Event::of(&PostUnpublished(post), version, now, trace),
        Happened::Deleted => Event::of(&PostDeleted(post), version, now, trace),
        Happened::Restored => Event::of(&PostRestored(post), version, now, trace),
    };
    Ok(outbox::record(tx, &[event]).await?)
}

/// Records that posts were published; `posts` are the rows before the write. Those whose moment had come are also said
/// to have been published on schedule.
pub(super) async fn say_published(
    tx: &DatabaseTransaction,
    posts: &[Headline],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let trace = current_traceparent();
    let mut events = Vec::with_capacity(posts.len() * 2);
    for post in posts {
        let version = post.version + 1;
        let published = Post {
            post_id: post.id,
            title: post.title.clone(),
            slug: post.slug.clone(),
            status: "published".to_owned(),
            author_id: post.author_id,
            published_at: post.published_at.filter(|planned| *planned <= now).or(Some(now)),
        };
        events.push(Event::of(&PostPublished(published), version, now, trace.clone()));
        if post.due_at.is_some_and(|due| due <= now) {
            let planned = PostScheduledPublished {
                post_id: post.id,
                title: post.title.clone(),
                slug: post.slug.clone(),
                scheduled_at: post.published_at,
                published_at: now,
            };
            events.push(Event::of(&planned, version, now, trace.clone()));
        }
    }
    Ok(outbox::record(tx, &events).await?)
}
