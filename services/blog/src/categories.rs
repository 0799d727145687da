//! The room of categories: a tree.

use chrono::{DateTime, Utc};
use events::{
    Event,
    blog::{Category, CategoryCreated, CategoryDeleted, CategoryUpdated},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, DatabaseConnection, DatabaseTransaction, EntityTrait,
    IntoActiveModel, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
};
use service_kit::telemetry::current_traceparent;
use uuid::Uuid;

use crate::{entity::category, error::Error, slugs};

/// Names have at most this many characters.
pub(crate) const NAME_MAX: usize = 200;
/// Descriptions have at most this many characters.
pub(crate) const DESCRIPTION_MAX: usize = 2_000;
/// The tree is at most this deep.
const DEPTH_MAX: usize = 20;

/// What a category says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub(crate) name: String,
    pub(crate) slug: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) parent_id: Option<Uuid>,
}

fn whole(row: &category::Model) -> Category {
    Category { category_id: row.id, name: row.name.clone(), slug: row.slug.clone(), parent_id: row.parent_id }
}

/// Categories, newest first.
pub(crate) async fn list(
    db: &DatabaseConnection,
    after: Option<Uuid>,
    limit: u64,
) -> Result<Vec<category::Model>, Error> {
    let after = Condition::all().add_option(after.map(|after| category::Column::Id.lt(after)));
    let select = category::Entity::find().filter(after).order_by_desc(category::Column::Id).limit(limit);
    Ok(select.all(db).await?)
}

/// One category.
pub(crate) async fn find(db: &DatabaseConnection, id: Uuid) -> Result<category::Model, Error> {
    category::Entity::find_by_id(id).one(db).await?.ok_or(Error::NotFound("category"))
}

/// Locks a category for a change.
pub(crate) async fn lock(tx: &DatabaseTransaction, id: Uuid) -> Result<category::Model, Error> {
    category::Entity::find_by_id(id).lock_exclusive().one(tx).await?.ok_or(Error::NotFound("category"))
}

/// Makes a category.
pub(crate) async fn create(
    tx: &DatabaseTransaction,
    content: Content,
    now: DateTime<Utc>,
) -> Result<category::Model, Error> {
    check(&content)?;
    check_parent(tx, content.parent_id, None).await?;
    let wished = content.slug.as_deref().unwrap_or(&content.name);
    let slug = slugs::free(tx, "categories", &slugs::slugify(wished, "category"), None).await?;
    let row = category::Model {
        id: Uuid::now_v7(),
        name: content.name,
        slug,
        description: content.description,
        parent_id: content.parent_id,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    category::Entity::insert(row.clone().into_active_model()).exec_without_returning(tx).await?;
    let event = Event::of(&CategoryCreated(whole(&row)), row.version, now, current_traceparent());
    outbox::record(tx, &[event]).await?;
    Ok(row)
}

/// Writes a category anew.
pub(crate) async fn edit(
    tx: &DatabaseTransaction,
    mut row: category::Model,
    content: Content,
    now: DateTime<Utc>,
) -> Result<category::Model, Error> {
    check(&content)?;
    check_parent(tx, content.parent_id, Some(row.id)).await?;
    if let Some(wished) = content.slug.as_deref().filter(|slug| *slug != row.slug) {
        row.slug = slugs::free(tx, "categories", &slugs::slugify(wished, "category"), Some(row.id)).await?;
    }
    row.name = content.name;
    row.description = content.description;
    row.parent_id = content.parent_id;
    row.version += 1;
    row.updated_at = now;
    let mut active = row.clone().into_active_model().reset_all();
    active.id = Set(row.id);
    active.update(tx).await?;
    let event = Event::of(&CategoryUpdated(whole(&row)), row.version, now, current_traceparent());
    outbox::record(tx, &[event]).await?;
    Ok(row)
}

/// Deletes a category without subcategories; its posts stay, without it.
pub(crate) async fn delete(tx: &DatabaseTransaction, row: category::Model, now: DateTime<Utc>) -> Result<(), Error> {
    let below = category::Entity::find().filter(category::Column::ParentId.eq(row.id)).count(tx).await?;
    if below > 0 {
        return Err(Error::Conflict("it has subcategories; move or delete them first"));
    }
    category::Entity::delete_by_id(row.id).exec(tx).await?;
    let event = Event::of(&CategoryDeleted(whole(&row)), row.version + 1, now, current_traceparent());
    Ok(outbox::record(tx, &[event]).await?)
}

fn check(content: &Content) -> Result<(), Error> {
    if !(1..=NAME_MAX).contains(&content.name.trim().chars().count()) {
        return Err(Error::invalid("name", format!("expected 1 to {NAME_MAX} characters")));
    }
    if content.slug.as_ref().is_some_and(|slug| slug.is_empty() || slug.chars().count() > slugs::SLUG_MAX) {
        return Err(Error::invalid("slug", format!("expected 1 to {} characters", slugs::SLUG_MAX)));
    }
    if content.description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_MAX) {
        return Err(Error::invalid("description", format!("expected at most {DESCRIPTION_MAX} characters")));
    }
    Ok(())
}

/// A parent exists, and is neither the category itself nor below it.
async fn check_parent(tx: &DatabaseTransaction, parent: Option<Uuid>, of: Option<Uuid>) -> Result<(), Error> {
    let mut above = parent;
    for _ in 0..DEPTH_MAX {
        let Some(id) = above else { return Ok(()) };
        if Some(id) == of {
            return Err(Error::invalid("parent_id", "a category cannot be above itself"));
        }
        let row = category::Entity::find_by_id(id).one(tx).await?;
        let row = row.ok_or_else(|| Error::invalid("parent_id", format!("{id} does not exist")))?;
        above = row.parent_id;
    }
    Err(Error::invalid("parent_id", format!("the tree is at most {DEPTH_MAX} deep")))
}
