//! The verbs that change posts.

use chrono::{DateTime, Utc};
use database::{Fault, Sql};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, DatabaseTransaction, EntityTrait, IntoActiveModel, QuerySelect};
use uuid::Uuid;

use super::{
    CONTENT_BYTES_MAX, Content, EXCERPT_MAX, Headline, Joined, SEO_MAX, Seo, TITLE_MAX, joins,
    say::{Happened, say, say_published},
    state,
};
use crate::{
    entity::post::{self, Status},
    error::Error,
    markdown, slugs,
};

/// Locks a post for a change.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub async fn lock(tx: &DatabaseTransaction, id: Uuid) -> Result<post::Model, Error> {
    post::Entity::find_by_id(id).lock_exclusive().one(tx).await?.ok_or(Error::NotFound("post"))
}

/// Writes a new draft; with a `published_at` it is due then (at once, if that has passed).
///
/// # Errors
/// [`Error::Invalid`] naming the field; [`Fault::Taken`] when another took the slug in the same moment (try again).
pub async fn create(tx: &DatabaseTransaction, content: Content, now: DateTime<Utc>) -> Result<post::Model, Error> {
    check(&content)?;
    let id = Uuid::now_v7();
    let wished = content.slug.as_deref().unwrap_or(&content.title);
    let slug = slugs::free(tx, "posts", &slugs::slugify(wished, "post"), None).await?;
    let post = post::Model {
        id,
        title: content.title,
        slug,
        html: markdown::to_html(&content.content),
        reading_time: markdown::reading_time(&content.content),
        content: content.content,
        excerpt: content.excerpt,
        status: Status::Draft,
        featured: content.featured,
        author_id: content.author_id,
        featured_image_id: content.featured_image_id,
        seo: seo(&content.seo),
        published_at: content.published_at,
        due_at: content.published_at,
        version: 1,
        created_at: now,
        updated_at: now,
        deleted_at: None,
    };
    post::Entity::insert(post.clone().into_active_model()).exec_without_returning(tx).await?;
    joins::replace(tx, id, &Joined::default(), &content.category_ids, &content.tag_ids).await?;
    say(tx, Happened::Created, &post).await?;
    Ok(post)
}

/// Writes what a post says of itself anew. On a draft, `published_at` plans it; a published post keeps its moment.
///
/// # Errors
/// [`Error::Invalid`] naming the field; [`Error::WrongState`] for a deleted post.
pub async fn edit(
    tx: &DatabaseTransaction,
    post: post::Model,
    content: Content,
    now: DateTime<Utc>,
) -> Result<post::Model, Error> {
    check(&content)?;
    refuse_deleted(&post, "edited")?;
    let mut after = post.clone();
    if let Some(wished) = content.slug.as_deref().filter(|slug| *slug != post.slug) {
        after.slug = slugs::free(tx, "posts", &slugs::slugify(wished, "post"), Some(post.id)).await?;
    }
    if content.content != post.content {
        after.html = markdown::to_html(&content.content);
        after.reading_time = markdown::reading_time(&content.content);
        after.content = content.content;
    }
    if content.published_at != post.published_at {
        if post.status == Status::Published && content.published_at.is_none_or(|at| at > now) {
            let message = "a published post keeps a moment that has passed; unpublish it first";
            return Err(Error::invalid("published_at", message));
        }
        after.published_at = content.published_at;
        after.due_at = content.published_at.filter(|_| post.status == Status::Draft);
    }
    after.title = content.title;
    after.excerpt = content.excerpt;
    after.featured = content.featured;
    after.author_id = content.author_id;
    after.featured_image_id = content.featured_image_id;
    after.seo = seo(&content.seo);
    let before = joins::joined(tx, &[post.id]).await?.remove(&post.id).unwrap_or_default();
    joins::replace(tx, post.id, &before, &content.category_ids, &content.tag_ids).await?;
    write(tx, after, Happened::Updated, now).await
}

/// Plans a draft for a moment ahead; an earlier plan is replaced.
///
/// # Errors
/// [`Error::Invalid`] when the moment has passed; [`Error::WrongState`] when it is no draft.
pub async fn schedule(
    tx: &DatabaseTransaction,
    mut post: post::Model,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<post::Model, Error> {
    only_drafts(&post, "scheduled")?;
    if at <= now {
        return Err(Error::invalid("published_at", "expected a time in the future"));
    }
    post.published_at = Some(at);
    post.due_at = Some(at);
    write(tx, post, Happened::Updated, now).await
}

/// Takes the plan of a draft away; one without a plan stays as it is.
///
/// # Errors
/// [`Error::WrongState`] when it is no draft.
pub async fn unschedule(
    tx: &DatabaseTransaction,
    mut post: post::Model,
    now: DateTime<Utc>,
) -> Result<post::Model, Error> {
    only_drafts(&post, "unscheduled")?;
    if post.due_at.is_none() && post.published_at.is_none() {
        return Ok(post);
    }
    post.published_at = None;
    post.due_at = None;
    write(tx, post, Happened::Updated, now).await
}

/// Publishes drafts, whoever asks: one by hand, hundreds on schedule, with the same few statements. A planned moment
/// that has come is kept; otherwise the moment is now.
///
/// # Errors
/// The database's; a post that is not a draft any more is not among those it changes.
pub async fn publish(tx: &DatabaseTransaction, posts: &[Headline], now: DateTime<Utc>) -> Result<(), Error> {
    let ids: Vec<Uuid> = posts.iter().map(|post| post.id).collect();
    let mut sql = Sql::of(tx);
    let (at, ids) = (sql.bind(now), sql.ids(&ids));
    let text = format!(
        "UPDATE posts SET status = 'published', due_at = NULL, version = version + 1, updated_at = {at},
             published_at = CASE WHEN published_at <= {at} THEN published_at ELSE {at} END
         WHERE id {ids} AND status = 'draft' AND deleted_at IS NULL"
    );
    let changed = sql.run(tx, &text).await?;
    if changed != posts.len() as u64 {
        let text = format!("{changed} of {} locked posts were drafts", posts.len());
        return Err(Error::Database(Fault::Broken(text)));
    }
    say_published(tx, posts, now).await
}

/// Takes a published post back. Its moment goes with it, or it would be due again at once.
///
/// # Errors
/// [`Error::WrongState`] when it is not published.
pub async fn unpublish(
    tx: &DatabaseTransaction,
    mut post: post::Model,
    now: DateTime<Utc>,
) -> Result<post::Model, Error> {
    if state(&post) != "published" {
        return Err(Error::WrongState { present: state(&post), wanted: "unpublished" });
    }
    post.status = Status::Draft;
    post.published_at = None;
    post.due_at = None;
    write(tx, post, Happened::Unpublished, now).await
}

/// Deletes a post so that it can be restored. It is not due any more.
///
/// # Errors
/// [`Error::NotFound`] when it is deleted already.
pub async fn delete(tx: &DatabaseTransaction, mut post: post::Model, now: DateTime<Utc>) -> Result<(), Error> {
    if post.deleted_at.is_some() {
        return Err(Error::NotFound("post"));
    }
    post.deleted_at = Some(now);
    post.due_at = None;
    write(tx, post, Happened::Deleted, now).await.map(drop)
}

/// Restores a deleted post as a draft; a plan whose moment has passed is gone.
///
/// # Errors
/// [`Error::WrongState`] when it is not deleted.
pub async fn restore(
    tx: &DatabaseTransaction,
    mut post: post::Model,
    now: DateTime<Utc>,
) -> Result<post::Model, Error> {
    if post.deleted_at.is_none() {
        return Err(Error::WrongState { present: state(&post), wanted: "restored" });
    }
    post.deleted_at = None;
    post.published_at = post.published_at.filter(|at| post.status == Status::Draft && *at > now);
    post.due_at = post.published_at;
    post.status = Status::Draft;
    write(tx, post, Happened::Restored, now).await
}

/// Writes a locked row with its next version, and records what happened.
async fn write(
    tx: &DatabaseTransaction,
    mut post: post::Model,
    happened: Happened,
    now: DateTime<Utc>,
) -> Result<post::Model, Error> {
    post.version += 1;
    post.updated_at = now;
    let id = post.id;
    let mut row = post.clone().into_active_model().reset_all();
    row.id = Set(id);
    row.update(tx).await?;
    say(tx, happened, &post).await?;
    Ok(post)
}

fn refuse_deleted(post: &post::Model, wanted: &'static str) -> Result<(), Error> {
    if post.deleted_at.is_some() { Err(Error::WrongState { present: "deleted", wanted }) } else { Ok(()) }
}

fn only_drafts(post: &post::Model, wanted: &'static str) -> Result<(), Error> {
    refuse_deleted(post, wanted)?;
    if post.status == Status::Draft { Ok(()) } else { Err(Error::WrongState { present: state(post), wanted }) }
}

/// Whether what a post says of itself can be taken.
fn check(content: &Content) -> Result<(), Error> {
    let length = content.title.trim().chars().count();
    if !(1..=TITLE_MAX).contains(&length) {
        return Err(Error::invalid("title", format!("expected 1 to {TITLE_MAX} characters")));
    }
    if content.content.len() > CONTENT_BYTES_MAX {
        return Err(Error::invalid("content", format!("expected at most {CONTENT_BYTES_MAX} bytes")));
    }
    if content.excerpt.as_ref().is_some_and(|excerpt| excerpt.chars().count() > EXCERPT_MAX) {
        return Err(Error::invalid("excerpt", format!("expected at most {EXCERPT_MAX} characters")));
    }
    if content.slug.as_ref().is_some_and(|slug| slug.is_empty() || slug.chars().count() > slugs::SLUG_MAX) {
        return Err(Error::invalid("slug", format!("expected 1 to {} characters", slugs::SLUG_MAX)));
    }
    for (field, ids) in [("category_ids", &content.category_ids), ("tag_ids", &content.tag_ids)] {
        if ids.len() > super::JOINED_MAX {
            return Err(Error::invalid(field, format!("expected at most {} ids", super::JOINED_MAX)));
        }
    }
    check_seo(&content.seo)
}

fn check_seo(seo: &Seo) -> Result<(), Error> {
    let fields = [
        ("seo.meta_title", &seo.meta_title),
        ("seo.meta_description", &seo.meta_description),
        ("seo.meta_keywords", &seo.meta_keywords),
        ("seo.og_title", &seo.og_title),
        ("seo.og_description", &seo.og_description),
        ("seo.og_image", &seo.og_image),
        ("seo.canonical_url", &seo.canonical_url),
    ];
    for (field, value) in fields {
        let Some(value) = value else { continue };
        if value.chars().count() > SEO_MAX {
            return Err(Error::invalid(field, format!("expected at most {SEO_MAX} characters")));
        }
        let address = ["seo.og_image", "seo.canonical_url"].contains(&field);
        if address && !(value.starts_with("https://") || value.starts_with("http://")) {
            return Err(Error::invalid(field, "expected an address that begins with https:// or http://"));
        }
    }
    Ok(())
}

fn seo(seo: &Seo) -> serde_json::Value {
    serde_json::to_value(seo).unwrap_or_default()
}
