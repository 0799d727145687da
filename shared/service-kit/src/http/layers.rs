//! What every request passes through, from the outside in: see, limit, time, keep whole.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http_body_util::BodyExt;
use tracing::Instrument;
use uuid::Uuid;

use super::{Problem, auth, problem::CONTENT_TYPE, server::Peer};
use crate::telemetry;

/// Bodies larger than this are refused.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Of a body that is too large so much is read, so that its client hears of it.
const FORGOTTEN_BYTES_MAX: usize = 16 * BODY_BYTES_MAX;
/// A body is there within this.
const BODY_TIME: Duration = Duration::from_secs(30);
/// An answer takes at most this once the request is whole: within 5 s whoever asks knows that the database is away.
const ANSWER_TIME: Duration = Duration::from_secs(4);
/// Callers a rate limit remembers before it forgets those that are within it.
const CALLERS_MAX: usize = 100_000;

/// Told the service after each change.
pub type Changed = Arc<dyn Fn(&str) + Send + Sync>;

/// What the layers need.
#[derive(Clone)]
pub struct Layers {
    /// Metric label where the path does not tell the service.
    pub service: &'static str,
    /// Requests a second of one caller; 0: no limit.
    pub rate_limit_rps: u32,
    /// Who may ask.
    pub access: Arc<auth::Access>,
    /// Called after every change that was answered with 2xx.
    pub changed: Changed,
}

struct Limits {
    callers: Option<DefaultKeyedRateLimiter<IpAddr>>,
    asked: AtomicU64,
}

/// Puts the layers around routes.
pub fn wrap(routes: Router, layers: Layers) -> Router {
    let callers = NonZeroU32::new(layers.rate_limit_rps).map(|rps| RateLimiter::keyed(Quota::per_second(rps)));
    let limits = Arc::new(Limits { callers, asked: AtomicU64::new(0) });
    let service = layers.service;
    routes
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&layers.access), auth::identify))
        .layer(middleware::from_fn_with_state(Arc::clone(&layers.changed), tell_of_changes))
        .layer(middleware::from_fn(keep_whole))
        .layer(middleware::from_fn(read_body))
        .layer(middleware::from_fn_with_state(limits, limit_rate))
        .layer(tower_http::compression::CompressionLayer::new())
        .layer(middleware::from_fn_with_state(service, see))
}

/// The request's id, its span, its metrics, and the shape of every error.
async fn see(State(process): State<&'static str>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let service = route.strip_prefix("/api/").and_then(|rest| rest.split('/').next()).unwrap_or(process).to_owned();
    let span = tracing::info_span!("request", %method, route, request_id = %id);
    if let Some(traceparent) = request.headers().get("traceparent").and_then(|value| value.to_str().ok()) {
        telemetry::continue_trace(&span, traceparent);
    }
    let head = method == Method::HEAD;
    let mut response = next.run(request).instrument(span.clone()).await;
    response = shaped(response, &id, head);
    let status = response.status();
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    for (name, value) in
        [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("x-frame-options", "DENY")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let labels = [("service", service.clone()), ("method", method.to_string()), ("route", route)];
    metrics::histogram!("http_request_duration_seconds", &labels).record(began.elapsed().as_secs_f64());
    let [service, method, route] = labels.map(|(_, value)| value);
    metrics::counter!("http_requests_total", "service" => service, "method" => method, "route" => route,
        "status" => status.as_str().to_owned())
    .increment(1);
    tracing::debug!(parent: &span, status = status.as_u16(), took_us = began.elapsed().as_micros(), "answered");
    response
}

/// A caller's id if it is a sane one, else a new one.
fn request_id(request: &Request) -> String {
    let sane = |id: &&str| {
        !id.is_empty()
            && id.len() <= 64
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = request.headers().get("x-request-id").and_then(|value| value.to_str().ok()).filter(sane);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Every error is a problem that names the request, also those of the framework.
fn shaped(mut response: Response, id: &str, head: bool) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || head {
        return response;
    }
    let ours = response.extensions_mut().remove::<Problem>();
    // What a handler says in JSON of its own (why it is not ready, say) stays; the framework's errors are plain text.
    let typed = response.headers().get(header::CONTENT_TYPE);
    let typed = typed.is_some_and(|value| value == CONTENT_TYPE || value == "application/json");
    if ours.is_none() && typed {
        return response;
    }
    let mut problem = ours.unwrap_or_else(|| match status {
        StatusCode::NOT_FOUND => Problem::not_found("there is no such route"),
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(status).detail("the route does not take this method"),
        status => Problem::new(status),
    });
    problem.request_id = Some(id.to_owned());
    let allow = response.headers_mut().remove(header::ALLOW);
    let www_authenticate = response.headers_mut().remove(header::WWW_AUTHENTICATE);
    let mut shaped = problem.into_response();
    for (name, value) in [(header::ALLOW, allow), (header::WWW_AUTHENTICATE, www_authenticate)] {
        if let Some(value) = value {
            shaped.headers_mut().insert(name, value);
        }
    }
    shaped
}

/// A caller over its rate is told when to come back.
async fn limit_rate(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response {
    if let (Some(callers), Some(Peer(peer))) = (&limits.callers, request.extensions().get::<Peer>()) {
        if limits.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(10_000) && callers.len() > CALLERS_MAX {
            callers.retain_recent();
        }
        if callers.check_key(&peer.ip()).is_err() {
            return Problem::new(StatusCode::TOO_MANY_REQUESTS)
                .detail("more requests a second than RATE_LIMIT_RPS allows")
                .retry_after(1)
                .into_response();
        }
    }
    next.run(request).await
}

/// The body is read before anything begins, so that a slow client holds nothing.
async fn read_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(BODY_TIME, whole(body)).await {
        Ok(Ok(Some(bytes))) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Ok(None)) => Problem::new(StatusCode::PAYLOAD_TOO_LARGE)
            .detail(format!("a body has at most {BODY_BYTES_MAX} bytes"))
            .into_response(),
        Ok(Err(_)) => Problem::new(StatusCode::BAD_REQUEST).detail("the body did not arrive whole").into_response(),
        Err(_) => Problem::new(StatusCode::REQUEST_TIMEOUT).into_response(),
    }
}

/// The bytes of a body; `None` when there are too many. The rest is read and forgotten, up to a limit: a client that
/// still writes would not hear the answer.
async fn whole(mut body: Body) -> Result<Option<Bytes>, axum::Error> {
    let (mut bytes, mut forgotten) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if forgotten == 0 && bytes.len() + data.len() <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        } else {
            forgotten += data.len();
        }
        if forgotten > FORGOTTEN_BYTES_MAX {
            break;
        }
    }
    Ok((forgotten == 0).then(|| bytes.freeze()))
}

/// The whole handler runs in a task that nothing cancels, also when the client leaves: what it began, it ends. Only its
/// deadline ends it, and then its connections are closed: the server rolls back.
async fn keep_whole(request: Request, next: Next) -> Response {
    #[expect(clippy::disallowed_methods, reason = "a handler is never cancelled; it ends by itself within its limits")]
    let mut task = tokio::spawn(next.run(request).in_current_span());
    match tokio::time::timeout(ANSWER_TIME, &mut task).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => Problem::internal(&error).into_response(),
        Err(_) => {
            database::suspect();
            task.abort();
            tracing::warn!("a request took too long; it was ended");
            Problem::unavailable().into_response()
        }
    }
}

/// After a change was committed, due rows and events may wait: the process looks. Handlers need not think of it.
async fn tell_of_changes(State(changed): State<Changed>, request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let service = request
        .uri()
        .path()
        .strip_prefix("/api/")
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default()
        .to_owned();
    let response = next.run(request).await;
    if changes && response.status().is_success() {
        changed(&service);
    }
    response
}
