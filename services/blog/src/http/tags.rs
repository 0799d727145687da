//! Tags.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use service_kit::http::{IfMatch, Json, Listing, Path, Problem, Query, page::Page};
use utoipa::ToSchema;
use uuid::Uuid;

use super::views::{Tag, versioned};
use crate::{app::App, tags};

/// A new tag
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTag {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// The wished address; made of the name otherwise
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    slug: Option<String>,
}

/// A change of a tag (merge patch): what is not named stays, null clears
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TagPatch {
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    slug: Option<String>,
}

/// Tags, newest first
#[utoipa::path(get, path = "/api/blog/tags", tag = "tags", params(Page),
    responses((status = 200, body = Listing<Tag>)))]
pub(super) async fn list(State(app): State<App>, Query(page): Query<Page>) -> Result<Json<Listing<Tag>>, Problem> {
    let found = tags::list(app.db.read(), page.after()?, page.limit + 1).await?;
    Ok(Json(Listing::of(found, page.limit, |row| row.id).map(Tag::from)))
}

/// Makes a tag
#[utoipa::path(post, path = "/api/blog/tags", tag = "tags", request_body = NewTag, security((), ("bearer" = [])),
    responses((status = 201, body = Tag), (status = 409, body = Problem)))]
pub(super) async fn create(State(app): State<App>, Json(new): Json<NewTag>) -> Result<Response, Problem> {
    let content = tags::Content { name: new.name, slug: new.slug };
    let tx = app.db.begin().await?;
    let row = tags::create(&tx, content, app.now()).await?;
    tx.commit().await?;
    let view = Tag::from(row);
    let location = format!("/api/blog/tags/{}", view.id);
    Ok(versioned(StatusCode::CREATED, view.version, Some(location), view))
}

/// One tag
#[utoipa::path(get, path = "/api/blog/tags/{id}", tag = "tags", params(("id" = Uuid, Path)),
    responses((status = 200, body = Tag), (status = 404, body = Problem)))]
pub(super) async fn get(State(app): State<App>, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let view = Tag::from(tags::find(app.db.read(), id).await?);
    Ok(versioned(StatusCode::OK, view.version, None, view))
}

/// Changes a tag (merge patch)
#[utoipa::path(patch, path = "/api/blog/tags/{id}", tag = "tags", request_body = TagPatch, security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 200, body = Tag), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem)))]
pub(super) async fn patch(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
    Json(patch): Json<TagPatch>,
) -> Result<Response, Problem> {
    let tx = app.db.begin().await?;
    let row = tags::lock(&tx, id).await?;
    if_match.check(row.version)?;
    let content = tags::Content { name: patch.name.unwrap_or_else(|| row.name.clone()), slug: patch.slug };
    let view = Tag::from(tags::edit(&tx, row, content, app.now()).await?);
    tx.commit().await?;
    Ok(versioned(StatusCode::OK, view.version, None, view))
}

/// Deletes a tag; its posts stay
#[utoipa::path(delete, path = "/api/blog/tags/{id}", tag = "tags", security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 204), (status = 404, body = Problem), (status = 412, body = Problem)))]
pub(super) async fn delete(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let tx = app.db.begin().await?;
    let row = tags::lock(&tx, id).await?;
    if_match.check(row.version)?;
    tags::delete(&tx, row, app.now()).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
