//! The document of every route, and a page to read it that needs no outside network.

use axum::{Router, response::IntoResponse, routing::get};
use http::StatusCode;
use utoipa::openapi::{
    ContactBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Response, ResponseBuilder,
    path::{Operation, PathItem},
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

/// What any request may be answered with, whatever its route.
const ALWAYS: &[StatusCode] = &[
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];
/// What a change may be answered with beside that.
const CHANGES: &[StatusCode] = &[StatusCode::FORBIDDEN];
/// What a request with a body may be answered with beside that.
const BODIES: &[StatusCode] =
    &[StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNSUPPORTED_MEDIA_TYPE];

/// Adds to each operation what the layers around it do: the errors they answer with, as problems; and gives it an id
/// that is used once.
fn complete(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let PathItem { get, post, patch, put, delete, .. } = item;
        for (operation, changes) in [(get, false), (post, true), (patch, true), (put, true), (delete, true)] {
            if let Some(operation) = operation {
                complete_operation(operation, changes);
            }
        }
    }
}

fn complete_operation(operation: &mut Operation, changes: bool) {
    let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
    operation.operation_id = operation.operation_id.take().map(|id| format!("{tag}_{id}"));
    let more = if changes { CHANGES } else { &[] };
    let bodies = if operation.request_body.is_some() { BODIES } else { &[] };
    let responses = &mut operation.responses.responses;
    for status in ALWAYS.iter().chain(more).chain(bodies) {
        responses.entry(status.as_str().to_owned()).or_insert_with(|| RefOr::T(Response::default()));
    }
    for (code, response) in responses {
        let RefOr::T(response) = response else { continue };
        let status = code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
        let reason = status.and_then(|status| status.canonical_reason()).unwrap_or("Another answer");
        if status.is_some_and(|status| status.is_client_error() || status.is_server_error()) {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            *response = ResponseBuilder::new().content("application/problem+json", problem).build();
        }
        if response.description.is_empty() {
            reason.clone_into(&mut response.description);
        }
    }
}

/// `/openapi.json` and `/docs`.
pub fn routes(mut document: OpenApi) -> Router {
    complete(&mut document);
    let page = SwaggerUi::new("/docs").url("/openapi.json", document);
    Router::new()
        .merge(page)
        .route("/favicon.ico", get(|| async { axum::http::StatusCode::NO_CONTENT.into_response() }))
}
