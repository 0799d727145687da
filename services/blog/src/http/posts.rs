//! Posts: extract, begin, verb, commit, respond.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use database::Fault;
use serde::Deserialize;
use service_kit::{
    database::Tx,
    http::{
        Caller, IfMatch, Json, Listing, Path, Problem, Query,
        page::{Page, default_limit, limit},
    },
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::views::{NewPost, Post, PostPatch, whole};
use crate::{
    app::App,
    entity::post,
    error::Error,
    posts::{self, Filter, Headline, State as PostState},
};

/// `same-2` may be wished for by name while `same` is numbered; so often the later one tries another number.
const SLUG_TRIES: usize = 5;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// `draft`, `scheduled`, `published` or `deleted`
    #[param(inline)]
    status: Option<PostState>,
    author_id: Option<Uuid>,
    category_id: Option<Uuid>,
    tag_id: Option<Uuid>,
    featured: Option<bool>,
    /// Words of the title
    #[param(max_length = 200)]
    q: Option<String>,
    /// Published or planned at or after (RFC 3339)
    published_after: Option<DateTime<Utc>>,
    /// Published or planned at or before (RFC 3339)
    published_before: Option<DateTime<Utc>>,
    /// Where the page before ended
    cursor: Option<String>,
    /// Items a page has, 1 to 200
    #[serde(default = "default_limit", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 200, default = 20)]
    limit: u64,
}

/// Posts, newest first
#[utoipa::path(get, path = "/api/blog/posts", tag = "posts", params(ListQuery),
    responses((status = 200, body = Listing<Post>)))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Listing<Post>>, Problem> {
    if query.q.as_ref().is_some_and(|words| words.chars().count() > 200) {
        return Err(Problem::bad("q", "expected at most 200 characters"));
    }
    let state = match (caller.sees_drafts(), query.status) {
        (false, None) => Some(PostState::Published),
        (false, Some(state)) if state != PostState::Published => {
            return Ok(Json(Listing::whole(Vec::new())));
        }
        (_, state) => state,
    };
    let page = Page { cursor: query.cursor, limit: query.limit };
    let filter = Filter {
        state,
        author_id: query.author_id,
        category_id: query.category_id,
        tag_id: query.tag_id,
        featured: query.featured,
        title: query.q,
        published_after: query.published_after,
        published_before: query.published_before,
    };
    let found = posts::list(app.db.read(), &filter, page.after()?, page.limit + 1).await?;
    let listing = Listing::of(found, page.limit, |post| post.id);
    let ids: Vec<Uuid> = listing.items.iter().map(|post| post.id).collect();
    let mut joined = posts::joined(app.db.read(), &ids).await?;
    Ok(Json(listing.map(|post| {
        let joined = joined.remove(&post.id).unwrap_or_default();
        Post::of(post, joined)
    })))
}

/// Writes a new draft; with a `published_at` it is published then
#[utoipa::path(post, path = "/api/blog/posts", tag = "posts", request_body = NewPost, security((), ("bearer" = [])),
    responses((status = 201, body = Post)))]
pub(super) async fn create(State(app): State<App>, Json(new): Json<NewPost>) -> Result<Response, Problem> {
    let content: posts::Content = new.into();
    for _ in 0..SLUG_TRIES {
        let tx = app.db.begin().await?;
        match posts::create(&tx, content.clone(), app.now()).await {
            Err(Error::Database(Fault::Taken(_))) => tx.rollback().await?,
            Err(other) => return Err(other.into()),
            Ok(post) => return respond(tx, post, StatusCode::CREATED).await,
        }
    }
    Err(Problem::conflict("the slug is taken again and again; try later"))
}

/// Commits, and answers with the post as it is now.
async fn respond(tx: Tx, post: post::Model, status: StatusCode) -> Result<Response, Problem> {
    let joined = posts::joined(&tx, &[post.id]).await?.remove(&post.id).unwrap_or_default();
    tx.commit().await?;
    Ok(Post::of(post, joined).answer(status))
}

/// A post that only those who may see it get.
async fn shown(app: &App, caller: &Caller, post: post::Model) -> Result<Response, Problem> {
    if !caller.sees_drafts() && posts::state(&post) != "published" {
        return Err(Error::NotFound("post").into());
    }
    let joined = posts::joined(app.db.read(), &[post.id]).await?.remove(&post.id).unwrap_or_default();
    Ok(Post::of(post, joined).answer(StatusCode::OK))
}

/// One post
#[utoipa::path(get, path = "/api/blog/posts/{id}", tag = "posts", params(("id" = Uuid, Path)),
    responses((status = 200, body = Post), (status = 404, body = Problem)))]
pub(super) async fn get(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let post = posts::find(app.db.read(), id).await?;
    shown(&app, &caller, post).await
}

/// The post at an address
#[utoipa::path(get, path = "/api/blog/posts/by-slug/{slug}", tag = "posts", params(("slug" = String, Path)),
    responses((status = 200, body = Post), (status = 404, body = Problem)))]
pub(super) async fn by_slug(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
) -> Result<Response, Problem> {
    if slug.contains('\0') {
        return Err(Problem::bad("slug", "text must not contain NUL characters"));
    }
    let post = posts::by_slug(app.db.read(), &slug).await?;
    shown(&app, &caller, post).await
}

/// Begins a change of a post: locked, and as the caller has seen it.
async fn locked(app: &App, id: Uuid, if_match: &IfMatch) -> Result<(Tx, post::Model), Problem> {
    let tx = app.db.begin().await?;
    let post = posts::lock(&tx, id).await?;
    if_match.check(post.version)?;
    Ok((tx, post))
}

/// Changes a post (merge patch)
#[utoipa::path(patch, path = "/api/blog/posts/{id}", tag = "posts", request_body = PostPatch, security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 200, body = Post), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem)))]
pub(super) async fn patch(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
    Json(patch): Json<PostPatch>,
) -> Result<Response, Problem> {
    let (tx, post) = locked(&app, id, &if_match).await?;
    let joined = posts::joined(&tx, &[id]).await?.remove(&id).unwrap_or_default();
    let content = patch.apply(&post, joined);
    let post = posts::edit(&tx, post, content, app.now()).await?;
    respond(tx, post, StatusCode::OK).await
}

/// Deletes a post; it can be restored
#[utoipa::path(delete, path = "/api/blog/posts/{id}", tag = "posts", security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 204), (status = 404, body = Problem), (status = 412, body = Problem)))]
pub(super) async fn delete(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let (tx, post) = locked(&app, id, &if_match).await?;
    posts::delete(&tx, post, app.now()).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Publishes a draft now
#[utoipa::path(post, path = "/api/blog/posts/{id}/publish", tag = "posts", security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 200, body = Post), (status = 404, body = Problem), (status = 409, body = Problem), (status = 412, body = Problem)))]
pub(super) async fn publish(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let (tx, post) = locked(&app, id, &if_match).await?;
    let present = posts::state(&post);
    if !matches!(present, "draft" | "scheduled") {
        return Err(Error::WrongState { present, wanted: "published" }.into());
    }
    posts::publish(&tx, &[Headline::from(&post)], app.now()).await?;
    let post = posts::lock(&tx, id).await?;
    respond(tx, post, StatusCode::OK).await
}

/// Takes a published post back; it is a draft without a plan then
#[utoipa::path(post, path = "/api/blog/posts/{id}/unpublish", tag = "posts", security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 200, body = Post), (status = 404, body = Problem), (status = 409, body = Problem), (status = 412, body = Problem)))]
pub(super) async fn unpublish(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let (tx, post) = locked(&app, id, &if_match).await?;
    let post = posts::unpublish(&tx, post, app.now()).await?;
    respond(tx, post, StatusCode::OK).await
}

/// When to publish
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Schedule {
    /// A time in the future (RFC 3339)
    published_at: DateTime<Utc>,
}

/// Plans a draft for a moment ahead; an earlier plan is replaced
#[utoipa::path(post, path = "/api/blog/posts/{id}/schedule", tag = "posts", request_body = Schedule, security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 200, body = Post), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem)))]
pub(super) async fn schedule(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
    Json(plan): Json<Schedule>,
) -> Result<Response, Problem> {
    let (tx, post) = locked(&app, id, &if_match).await?;
    let post = posts::schedule(&tx, post, whole(plan.published_at), app.now()).await?;
    respond(tx, post, StatusCode::OK).await
}

/// Takes the plan of a draft away
#[utoipa::path(post, path = "/api/blog/posts/{id}/unschedule", tag = "posts", security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 200, body = Post), (status = 404, body = Problem), (status = 409, body = Problem), (status = 412, body = Problem)))]
pub(super) async fn unschedule(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let (tx, post) = locked(&app, id, &if_match).await?;
    let post = posts::unschedule(&tx, post, app.now()).await?;
    respond(tx, post, StatusCode::OK).await
}

/// Restores a deleted post as a draft
#[utoipa::path(post, path = "/api/blog/posts/{id}/restore", tag = "posts", security((), ("bearer" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag the change is meant for")),
    responses((status = 200, body = Post), (status = 404, body = Problem), (status = 409, body = Problem), (status = 412, body = Problem)))]
pub(super) async fn restore(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let (tx, post) = locked(&app, id, &if_match).await?;
    let post = posts::restore(&tx, post, app.now()).await?;
    respond(tx, post, StatusCode::OK).await
}
