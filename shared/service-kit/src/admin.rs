//! The operations listener: health, metrics, jobs, outbox, dead letters, events.

mod access;
mod delivery;
mod events;
mod jobs;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use inbox::Listener;
use metrics_exporter_prometheus::PrometheusHandle;
use scheduler::{Handle, store::sql::SqlStore};
use sea_orm::DatabaseConnection;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    config::Secret,
    health::{Health, Report},
    http::{Problem, auth::Oidc, layers, openapi},
};

/// What operators reach of one service.
pub struct Operated {
    /// Its name.
    pub name: &'static str,
    /// Its jobs.
    pub jobs: Handle<SqlStore>,
    /// Its outbox, on connections that requests cannot use up.
    pub outbox: outbox::Store,
    /// Its rows, on the same connections.
    pub db: DatabaseConnection,
    /// What it hears.
    pub listeners: Vec<Arc<Listener>>,
    /// Sends what waits now.
    pub relay: outbox::RelayHandle,
}

/// What the operations listener knows.
#[derive(Clone)]
pub struct Admin {
    /// The services of this process.
    pub services: Arc<Vec<Operated>>,
    /// Its health.
    pub health: Health,
    /// Its metrics.
    pub metrics: PrometheusHandle,
    /// Who may use it.
    pub access: Arc<Access>,
    /// The database's time.
    pub clock: Arc<dyn scheduler::clock::Clock>,
}

/// Who may use the operations listener.
pub struct Access {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its token.
    pub token: Option<Secret>,
    /// Tokens of Keycloak with the role `operator` or `admin`.
    pub oidc: Option<Arc<Oidc>>,
}

impl Admin {
    fn service(&self, name: &str) -> Result<&Operated, Problem> {
        let found = self.services.iter().find(|service| service.name == name);
        found.ok_or_else(|| Problem::not_found(format!("there is no service {name:?} in this process")))
    }
}

/// The routes of the operations listener, with their document.
pub fn routes(admin: Admin) -> Router {
    let router = OpenApiRouter::with_openapi(openapi::document("Belfry operations"))
        .merge(jobs::routes())
        .merge(delivery::routes())
        .merge(events::routes());
    let (operations, document) = router.with_state(admin.clone()).split_for_parts();
    let guarded = operations
        .merge(openapi::routes(document))
        .merge(Router::new().route("/metrics", get(metrics)).with_state(admin.clone()))
        .layer(middleware::from_fn_with_state(Arc::clone(&admin.access), access::guard));
    let open = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(admin);
    guarded.merge(open)
}

/// The layers of the operations listener: as the public one, but without its callers.
pub fn layered(routes: Router) -> Router {
    let access = Arc::new(crate::http::auth::Access { oidc: None });
    layers::wrap(routes, layers::Layers { service: "admin", rate_limit_rps: 0, access, changed: Arc::new(|_| {}) })
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render()).into_response()
}

fn report(report: Report) -> Response {
    let status = if report.ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn healthz(State(admin): State<Admin>) -> Response {
    report(admin.health.health())
}

async fn readyz(State(admin): State<Admin>) -> Response {
    report(admin.health.readiness())
}
