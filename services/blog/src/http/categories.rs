//! Categories.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use service_kit::http::{IfMatch, Json, Listing, Patch, Path, Problem, Query, page::Page};
use utoipa::ToSchema;
use uuid::Uuid;

use super::views::{Category, versioned};
use crate::{app::App, categories};

/// A new category
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCategory {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// The wished address; made of the name otherwise
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    slug: Option<String>,
    #[serde(default)]
    #[schema(max_length = 2000)]
    description: Option<String>,
    /// The category above it
    #[serde(default)]
    parent_id: Option<Uuid>,
}

/// A change of a category (merge patch): what is not named stays, null clears
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CategoryPatch {
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    slug: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 2000)]
    description: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<Uuid>)]
    parent_id: Patch<Uuid>,
}

/// Categories, newest first
#[utoipa::path(get, path = "/api/blog/categories", tag = "categories", params(Page),
    responses((status = 200, body = Listing<Category>)))]
pub(super) async fn list(State(app): State<App>, Query(page): Query<Page>) -> Result<Json<Listing<Category>>, Problem> {
    let found = categories::list(app.db.read(), page.after()?, page.limit + 1).await?;
    Ok(Json(Listing::of(found, page.limit, |row| row.id).map(Category::from)))
}

/// Makes a category
#[utoipa::path(post, path = "/api/blog/categories", tag = "categories", request_body = NewCategory, security((), ("bearer" = [])),
    responses((status = 201, body = Category), (status = 409, body = Problem)))]
pub(super) async fn create(State(app): State<App>, Json(new): Json<NewCategory>) -> Result<Response, Problem> {
    let content =
        categories::Content { name: new.name, slug: new.slug, description: new.description, parent_id: new.parent_id };
    let tx = app.db.begin().await?;
    let row = categories::create(&tx, content, app.now()).await?;
    tx.commit().await?;
    let view = Category::from(row);
    let location = format!("/api/blog/categories/{}", view.id);
    Ok(versioned(StatusCode::CREATED, view.version, Some(location), view))
}

/// One category
#[utoipa::path(get, path = "/api/blog/categories/{id}", tag = "categories", params(("id" = Uuid, Path)),
    responses((status = 200, body = Category), (status = 404, body = Problem)))]
pub(super) async fn get(State(app): State<App>, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let view = Category::from(categories::find(app.db.read(), id).await?);
    Ok(versioned(StatusCode::OK, view.version, None, view))
}

/// Changes a category (merge patch)
#[utoipa::path(patch, path = "/api/blog/categories/{id}", tag = "categories", request_body = CategoryPatch, security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 200, body = Category), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem)))]
pub(super) async fn patch(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
    Json(patch): Json<CategoryPatch>,
) -> Result<Response, Problem> {
    let tx = app.db.begin().await?;
    let row = categories::lock(&tx, id).await?;
    if_match.check(row.version)?;
    let content = categories::Content {
        name: patch.name.unwrap_or_else(|| row.name.clone()),
        slug: patch.slug,
        description: patch.description.apply(row.description.clone()),
        parent_id: patch.parent_id.apply(row.parent_id),
    };
    let view = Category::from(categories::edit(&tx, row, content, app.now()).await?);
    tx.commit().await?;
    Ok(versioned(StatusCode::OK, view.version, None, view))
}

/// Deletes a category without subcategories; its posts stay
#[utoipa::path(delete, path = "/api/blog/categories/{id}", tag = "categories", security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem), (status = 412, body = Problem)))]
pub(super) async fn delete(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let tx = app.db.begin().await?;
    let row = categories::lock(&tx, id).await?;
    if_match.check(row.version)?;
    categories::delete(&tx, row, app.now()).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
