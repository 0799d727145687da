//! The route table of blog.

mod categories;
mod feed;
mod posts;
mod tags;
mod views;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// Every route; each is also in the OpenAPI document.
pub(crate) fn routes(app: App) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(posts::list, posts::create))
        .routes(routes!(posts::get, posts::patch, posts::delete))
        .routes(routes!(posts::publish))
        .routes(routes!(posts::unpublish))
        .routes(routes!(posts::schedule))
        .routes(routes!(posts::unschedule))
        .routes(routes!(posts::restore))
        .routes(routes!(posts::by_slug))
        .routes(routes!(feed::feed))
        .routes(routes!(categories::list, categories::create))
        .routes(routes!(categories::get, categories::patch, categories::delete))
        .routes(routes!(tags::list, tags::create))
        .routes(routes!(tags::get, tags::patch, tags::delete))
        .with_state(app)
}
