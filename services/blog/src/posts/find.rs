//! Finding posts.

use chrono::{DateTime, Utc};
use sea_orm::{
    ColumnTrait, Condition, DatabaseConnection, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait, Func, LikeExpr, Query},
};
use uuid::Uuid;

use crate::{
    entity::{
        post::{self, Status},
        post_category, post_tag,
    },
    error::Error,
};

/// Which posts a list has.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// `draft`, `scheduled`, `published` or `deleted`; none: all but the deleted.
    pub state: Option<State>,
    /// Of this author.
    pub author_id: Option<Uuid>,
    /// In this category.
    pub category_id: Option<Uuid>,
    /// With this tag.
    pub tag_id: Option<Uuid>,
    /// Shown first, or not.
    pub featured: Option<bool>,
    /// Words of the title.
    pub title: Option<String>,
    /// Published or planned at or after.
    pub published_after: Option<DateTime<Utc>>,
    /// Published or planned at or before.
    pub published_before: Option<DateTime<Utc>>,
}

/// What a post is, in the words of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not to be published by itself.
    Draft,
    /// To be published by itself.
    Scheduled,
    /// Readers see it.
    Published,
    /// It can be restored.
    Deleted,
}

impl Filter {
    fn condition(&self) -> Condition {
        use post::Column::{AuthorId, DeletedAt, DueAt, Featured, Id, PublishedAt, Status as Is, Title};
        let draft = || Condition::all().add(Is.eq(Status::Draft)).add(DeletedAt.is_null());
        let mut all = match self.state {
            None => Condition::all().add(DeletedAt.is_null()),
            Some(State::Draft) => draft().add(DueAt.is_null()),
            Some(State::Scheduled) => draft().add(DueAt.is_not_null()),
            Some(State::Published) => Condition::all().add(Is.eq(Status::Published)).add(DeletedAt.is_null()),
            Some(State::Deleted) => Condition::all().add(DeletedAt.is_not_null()),
        };
        all = all.add_option(self.author_id.map(|author| AuthorId.eq(author)));
        all = all.add_option(self.featured.map(|featured| Featured.eq(featured)));
        all = all.add_option(self.published_after.map(|at| PublishedAt.gte(at)));
        all = all.add_option(self.published_before.map(|at| PublishedAt.lte(at)));
        if let Some(title) = &self.title {
            let escaped = title.to_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            let like = LikeExpr::new(format!("%{escaped}%")).escape('\\');
            all = all.add(Expr::expr(Func::lower(Expr::col(Title))).like(like));
        }
        if let Some(category) = self.category_id {
            let of = Query::select()
                .column(post_category::Column::PostId)
                .from(post_category::Entity)
                .and_where(post_category::Column::CategoryId.eq(category))
                .to_owned();
            all = all.add(Id.in_subquery(of));
        }
        if let Some(tag) = self.tag_id {
            let with = Query::select()
                .column(post_tag::Column::PostId)
                .from(post_tag::Entity)
                .and_where(post_tag::Column::TagId.eq(tag))
                .to_owned();
            all = all.add(Id.in_subquery(with));
        }
        all
    }
}

/// Posts, newest first, after `after`; at most `limit`.
pub async fn list(
    db: &DatabaseConnection,
    filter: &Filter,
    after: Option<Uuid>,
    limit: u64,
) -> Result<Vec<post::Model>, Error> {
    let condition = filter.condition().add_option(after.map(|after| post::Column::Id.lt(after)));
    let select = post::Entity::find().filter(condition).order_by_desc(post::Column::Id).limit(limit);
    Ok(select.all(db).await?)
}

/// One post, deleted or not.
pub async fn find(db: &DatabaseConnection, id: Uuid) -> Result<post::Model, Error> {
    post::Entity::find_by_id(id).one(db).await?.ok_or(Error::NotFound("post"))
}

/// The post at an address, unless it is deleted.
pub async fn by_slug(db: &DatabaseConnection, slug: &str) -> Result<post::Model, Error> {
    let select = post::Entity::find().filter(post::Column::Slug.eq(slug)).filter(post::Column::DeletedAt.is_null());
    select.one(db).await?.ok_or(Error::NotFound("post"))
}

/// The posts that were published last.
pub async fn latest_published(db: &DatabaseConnection, limit: u64) -> Result<Vec<post::Model>, Error> {
    let select = post::Entity::find()
        .filter(post::Column::Status.eq(Status::Published))
        .filter(post::Column::DeletedAt.is_null())
        .order_by_desc(post::Column::PublishedAt)
        .order_by_desc(post::Column::Id)
        .limit(limit);
    Ok(select.all(db).await?)
}
