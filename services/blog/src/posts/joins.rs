//! The categories and tags of posts.

use std::collections::HashMap;

use database::Sql;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
};
use uuid::Uuid;

use crate::{
    entity::{category, post_category, post_tag, tag},
    error::Error,
};

/// What one post is joined with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    /// Its categories.
    pub category_ids: Vec<Uuid>,
    /// Its tags.
    pub tag_ids: Vec<Uuid>,
}

/// What these posts are joined with, in one statement.
pub async fn joined(db: &impl ConnectionTrait, posts: &[Uuid]) -> Result<HashMap<Uuid, Joined>, Error> {
    let mut joined: HashMap<Uuid, Joined> = posts.iter().map(|id| (*id, Joined::default())).collect();
    if posts.is_empty() {
        return Ok(joined);
    }
    let mut sql = Sql::of(db);
    let posts = sql.ids(posts);
    let text = format!(
        "SELECT post_id, category_id AS other_id, 0 AS tag FROM post_categories WHERE post_id {posts}
         UNION ALL SELECT post_id, tag_id, 1 FROM post_tags WHERE post_id {posts} ORDER BY 2"
    );
    for row in sql.all(db, &text).await? {
        let (post, other): (Uuid, Uuid) = (row.try_get("", "post_id")?, row.try_get("", "other_id")?);
        let joined = joined.entry(post).or_default();
        if row.try_get::<i32>("", "tag")? == 0 { joined.category_ids.push(other) } else { joined.tag_ids.push(other) }
    }
    Ok(joined)
}

/// Joins a post, which is joined with `before`, with these and no others.
///
/// # Errors
/// [`Error::Invalid`] when one of them does not exist.
pub(super) async fn replace(
    tx: &DatabaseTransaction,
    post: Uuid,
    before: &Joined,
    categories: &[Uuid],
    tags: &[Uuid],
) -> Result<(), Error> {
    let (categories, tags) = (unique(categories), unique(tags));
    if categories != before.category_ids {
        let known = category::Entity::find().select_only().column(category::Column::Id);
        let known = known.filter(category::Column::Id.is_in(categories.iter().copied())).into_tuple::<Uuid>().all(tx);
        all_known("category_ids", &categories, &known.await?)?;
        post_category::Entity::delete_many().filter(post_category::Column::PostId.eq(post)).exec(tx).await?;
        let rows = categories.into_iter().map(|category_id| post_category::Model { post_id: post, category_id });
        insert::<post_category::Entity, _>(tx, rows.map(IntoActiveModel::into_active_model).collect()).await?;
    }
    if tags != before.tag_ids {
        let known = tag::Entity::find().select_only().column(tag::Column::Id);
        let known = known.filter(tag::Column::Id.is_in(tags.iter().copied())).into_tuple::<Uuid>().all(tx);
        all_known("tag_ids", &tags, &known.await?)?;
        post_tag::Entity::delete_many().filter(post_tag::Column::PostId.eq(post)).exec(tx).await?;
        let rows = tags.into_iter().map(|tag_id| post_tag::Model { post_id: post, tag_id });
        insert::<post_tag::Entity, _>(tx, rows.map(IntoActiveModel::into_active_model).collect()).await?;
    }
    Ok(())
}

async fn insert<E, A>(tx: &DatabaseTransaction, rows: Vec<A>) -> Result<(), Error>
where
    E: EntityTrait,
    A: sea_orm::ActiveModelTrait<Entity = E>,
{
    if !rows.is_empty() {
        E::insert_many(rows).exec_without_returning(tx).await?;
    }
    Ok(())
}

fn unique(ids: &[Uuid]) -> Vec<Uuid> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn all_known(field: &'static str, wanted: &[Uuid], known: &[Uuid]) -> Result<(), Error> {
    match wanted.iter().find(|id| !known.contains(id)) {
        Some(unknown) => Err(Error::invalid(field, format!("{unknown} does not exist"))),
        None => Ok(()),
    }
}
