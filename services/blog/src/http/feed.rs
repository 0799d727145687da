//! The feed.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use service_kit::http::Problem;

use crate::{app::App, feed, posts};

/// The Atom feed of published posts
#[utoipa::path(get, path = "/api/blog/feed.atom", tag = "feed",
    responses((status = 200, content_type = "application/atom+xml", body = String), (status = 304)))]
pub(super) async fn feed(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let posts = posts::latest_published(app.db.read(), app.config.feed_posts).await?;
    let versions: i64 = posts.iter().map(|post| post.version).sum();
    let tag = format!("\"{}-{}-{versions}\"", posts.len(), feed::updated(&posts).timestamp_micros());
    let mut response = match headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()) {
        Some(known) if known.split(',').any(|known| known.trim() == tag) => StatusCode::NOT_MODIFIED.into_response(),
        _ => {
            let body = feed::atom(&app.config.public_url, &posts);
            ([(header::CONTENT_TYPE, "application/atom+xml; charset=utf-8")], body).into_response()
        }
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    Ok(response)
}
