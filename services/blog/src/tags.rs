//! The room of tags.

use chrono::{DateTime, Utc};
use events::{
    Event,
    blog::{Tag, TagCreated, TagDeleted, TagUpdated},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, DatabaseConnection, DatabaseTransaction, EntityTrait,
    IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};
use service_kit::telemetry::current_traceparent;
use uuid::Uuid;

use crate::{categories::NAME_MAX, entity::tag, error::Error, slugs};

/// What a tag says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub(crate) name: String,
    pub(crate) slug: Option<String>,
}

fn whole(row: &tag::Model) -> Tag {
    Tag { tag_id: row.id, name: row.name.clone(), slug: row.slug.clone() }
}

/// Tags, newest first.
pub(crate) async fn list(db: &DatabaseConnection, after: Option<Uuid>, limit: u64) -> Result<Vec<tag::Model>, Error> {
    let after = Condition::all().add_option(after.map(|after| tag::Column::Id.lt(after)));
    Ok(tag::Entity::find().filter(after).order_by_desc(tag::Column::Id).limit(limit).all(db).await?)
}

/// One tag.
pub(crate) async fn find(db: &DatabaseConnection, id: Uuid) -> Result<tag::Model, Error> {
    tag::Entity::find_by_id(id).one(db).await?.ok_or(Error::NotFound("tag"))
}

/// Locks a tag for a change.
pub(crate) async fn lock(tx: &DatabaseTransaction, id: Uuid) -> Result<tag::Model, Error> {
    tag::Entity::find_by_id(id).lock_exclusive().one(tx).await?.ok_or(Error::NotFound("tag"))
}

/// Makes a tag.
pub(crate) async fn create(
    tx: &DatabaseTransaction,
    content: Content,
    now: DateTime<Utc>,
) -> Result<tag::Model, Error> {
    check(&content)?;
    let wished = content.slug.as_deref().unwrap_or(&content.name);
    let slug = slugs::free(tx, "tags", &slugs::slugify(wished, "tag"), None).await?;
    let row = tag::Model { id: Uuid::now_v7(), name: content.name, slug, version: 1, created_at: now, updated_at: now };
    tag::Entity::insert(row.clone().into_active_model()).exec_without_returning(tx).await?;
    let event = Event::of(&TagCreated(whole(&row)), row.version, now, current_traceparent());
    outbox::record(tx, &[event]).await?;
    Ok(row)
}

/// Writes a tag anew.
pub(crate) async fn edit(
    tx: &DatabaseTransaction,
    mut row: tag::Model,
    content: Content,
    now: DateTime<Utc>,
) -> Result<tag::Model, Error> {
    check(&content)?;
    if let Some(wished) = content.slug.as_deref().filter(|slug| *slug != row.slug) {
        row.slug = slugs::free(tx, "tags", &slugs::slugify(wished, "tag"), Some(row.id)).await?;
    }
    row.name = content.name;
    row.version += 1;
    row.updated_at = now;
    let mut active = row.clone().into_active_model().reset_all();
    active.id = Set(row.id);
    active.update(tx).await?;
    let event = Event::of(&TagUpdated(whole(&row)), row.version, now, current_traceparent());
    outbox::record(tx, &[event]).await?;
    Ok(row)
}

/// Deletes a tag; its posts stay, without it.
pub(crate) async fn delete(tx: &DatabaseTransaction, row: tag::Model, now: DateTime<Utc>) -> Result<(), Error> {
    tag::Entity::delete_by_id(row.id).exec(tx).await?;
    let event = Event::of(&TagDeleted(whole(&row)), row.version + 1, now, current_traceparent());
    Ok(outbox::record(tx, &[event]).await?)
}

fn check(content: &Content) -> Result<(), Error> {
    if !(1..=NAME_MAX).contains(&content.name.trim().chars().count()) {
        return Err(Error::invalid("name", format!("expected 1 to {NAME_MAX} characters")));
    }
    if content.slug.as_ref().is_some_and(|slug| slug.is_empty() || slug.chars().count() > slugs::SLUG_MAX) {
        return Err(Error::invalid("slug", format!("expected 1 to {} characters", slugs::SLUG_MAX)));
    }
    Ok(())
}
