//! The document of every route, and a page to read it that needs no outside network.

use axum::{Router, response::IntoResponse, routing::get};
use utoipa::openapi::{
    ContactBuilder, InfoBuilder, OpenApi, OpenApiBuilder,
    security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_swagger_ui::SwaggerUi;

/// The document that routes are put into.
pub fn document(title: &str) -> OpenApi {
    let about = "Services of the Belfry platform. Errors are application/problem+json and name the field that is wrong. \
        Lists answer {items, next_cursor}; times are RFC 3339 in UTC; ids are UUIDv7.";
    let info = InfoBuilder::new()
        .title(title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about))
        .contact(Some(ContactBuilder::new().name(Some("Belfry")).build()))
        .build();
    let mut document = OpenApiBuilder::new().info(info).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    document
}

/// `/openapi.json` and `/docs`.
pub fn routes(document: OpenApi) -> Router {
    let page = SwaggerUi::new("/docs").url("/openapi.json", document);
    Router::new()
        .merge(page)
        .route("/favicon.ico", get(|| async { axum::http::StatusCode::NO_CONTENT.into_response() }))
}
