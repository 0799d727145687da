//! Jobs: list, why, plan, runs, run, pause, resume, backfill, set-aside rows.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use scheduler::{
    Refused,
    control::{JobView, RunView},
    policy::ResumeFrom,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Admin, Operated};
use crate::http::{Caller, Json, Listing, Page, Path, Problem, Query};

/// Reasons and keys are at most this long.
const TEXT_MAX: usize = 500;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(runs))
        .routes(routes!(plan))
        .routes(routes!(why))
        .routes(routes!(failures))
        .routes(routes!(retry_failure))
        .routes(routes!(run))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(backfill))
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::UnknownJob(_) | Refused::UnknownRow => Self::not_found(refused.to_string()),
            Refused::Conflict(why) => Self::conflict(why),
            Refused::Invalid { field, expected } => Self::bad(field, format!("expected {expected}")),
            Refused::Store(error) => {
                tracing::warn!(%error, "an operator's request met a store that fails");
                Self::unavailable()
            }
        }
    }
}

type Job = Path<(String, String)>;

fn of<'a>(admin: &'a Admin, Path((service, _)): &Job) -> Result<&'a Operated, Problem> {
    admin.service(service)
}

/// Every job of every service in this process
#[utoipa::path(get, path = "/admin/v1/jobs", tag = "jobs", responses((status = 200, body = Listing<Value>)))]
async fn list(State(admin): State<Admin>) -> Result<Json<Listing<JobView>>, Problem> {
    let mut jobs = Vec::new();
    for service in admin.services.iter() {
        jobs.extend(service.jobs.jobs().await?);
    }
    Ok(Json(Listing::whole(jobs)))
}

/// One job
#[utoipa::path(get, path = "/admin/v1/jobs/{service}/{job}", tag = "jobs", responses((status = 200, body = Value), (status = 404, body = Problem)),
    params(("service" = String, Path), ("job" = String, Path)))]
async fn show(State(admin): State<Admin>, path: Job) -> Result<Json<JobView>, Problem> {
    Ok(Json(of(&admin, &path)?.jobs.job(&path.0.1).await?))
}

/// Its runs, newest first
#[utoipa::path(get, path = "/admin/v1/jobs/{service}/{job}/runs", tag = "jobs", responses((status = 200, body = Listing<Value>), (status = 400, body = Problem), (status = 404, body = Problem)),
    params(("service" = String, Path), ("job" = String, Path), Page))]
async fn runs(
    State(admin): State<Admin>,
    path: Job,
    Query(page): Query<Page>,
) -> Result<Json<Listing<RunView>>, Problem> {
    let before = page.after::<Uuid>()?;
    let runs = of(&admin, &path)?.jobs.runs(&path.0.1, before, Vec::new(), page.limit + 1).await?;
    Ok(Json(Listing::of(runs, page.limit, |run| run.id)))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Count {
    /// How many, 1 to 1000
    #[serde(default = "ten", deserialize_with = "count")]
    #[param(minimum = 1, maximum = 1000, default = 10)]
    count: u16,
}

fn ten() -> u16 {
    10
}

fn count<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let count: Option<u16> = String::deserialize(from)?.parse().ok();
    let fits = |count: &u16| (1..=1000).contains(count);
    count.filter(fits).ok_or_else(|| serde::de::Error::custom("expected a whole number from 1 to 1000"))
}

/// Its next firings
#[utoipa::path(get, path = "/admin/v1/jobs/{service}/{job}/plan", tag = "jobs", responses((status = 200, body = Listing<Value>), (status = 400, body = Problem), (status = 404, body = Problem)),
    params(("service" = String, Path), ("job" = String, Path), Count))]
async fn plan(
    State(admin): State<Admin>,
    path: Job,
    Query(count): Query<Count>,
) -> Result<Json<Listing<scheduler::policy::Planned>>, Problem> {
    Ok(Json(Listing::whole(of(&admin, &path)?.jobs.plan(&path.0.1, usize::from(count.count)).await?)))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct At {
    /// The moment (RFC 3339)
    at: DateTime<Utc>,
}

/// Why it did, did not, or will run at a moment
#[utoipa::path(get, path = "/admin/v1/jobs/{service}/{job}/why", tag = "jobs", responses((status = 200, body = Value), (status = 400, body = Problem), (status = 404, body = Problem)),
    params(("service" = String, Path), ("job" = String, Path), At))]
async fn why(
    State(admin): State<Admin>,
    path: Job,
    Query(at): Query<At>,
) -> Result<Json<scheduler::policy::Why>, Problem> {
    Ok(Json(of(&admin, &path)?.jobs.why(&path.0.1, at.at).await?))
}

#[derive(Serialize)]
struct Failure {
    row_id: Uuid,
    attempts: i32,
    next_attempt_at: Option<DateTime<Utc>>,
    given_up_at: Option<DateTime<Utc>>,
    error: String,
}

/// Rows it has set aside
#[utoipa::path(get, path = "/admin/v1/jobs/{service}/{job}/failures", tag = "jobs", responses((status = 200, body = Listing<Value>), (status = 400, body = Problem), (status = 404, body = Problem)),
    params(("service" = String, Path), ("job" = String, Path), Page))]
async fn failures(
    State(admin): State<Admin>,
    path: Job,
    Query(page): Query<Page>,
) -> Result<Json<Listing<Failure>>, Problem> {
    let after = page.after::<Uuid>()?;
    let rows = of(&admin, &path)?.jobs.failures(&path.0.1, after, page.limit + 1).await?;
    Ok(Json(Listing::of(rows, page.limit, |row| row.row_id).map(|row| Failure {
        row_id: row.row_id,
        attempts: row.attempts,
        next_attempt_at: row.next_attempt_at,
        given_up_at: row.given_up_at,
        error: row.error,
    })))
}

/// Makes a row that was set aside claimable again
#[utoipa::path(post, path = "/admin/v1/jobs/{service}/{job}/failures/{row_id}/retry", tag = "jobs", responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem)),
    params(("service" = String, Path), ("job" = String, Path), ("row_id" = Uuid, Path)))]
async fn retry_failure(
    State(admin): State<Admin>,
    Path((service, job, row)): Path<(String, String, Uuid)>,
) -> Result<StatusCode, Problem> {
    admin.service(&service)?.jobs.retry_failure(&job, row).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
struct RunRequest {
    /// Input of a job that takes one
    #[serde(default)]
    input: Option<Value>,
}

/// Queues a run; any enabled replica takes it
#[utoipa::path(post, path = "/admin/v1/jobs/{service}/{job}/run", tag = "jobs", request_body = Option<RunRequest>,
    responses((status = 202, body = Value), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)),
    params(("service" = String, Path), ("job" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key within 24 h is the same run")))]
async fn run(
    State(admin): State<Admin>,
    path: Job,
    headers: HeaderMap,
    body: Option<Json<RunRequest>>,
) -> Result<Response, Problem> {
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(value) => {
            let plain = |key: &&str| {
                !key.is_empty() && key.len() <= TEXT_MAX && key.bytes().all(|byte| (b' '..0x7f).contains(&byte))
            };
            let key = value.to_str().ok().filter(plain);
            Some(key.ok_or_else(|| {
                Problem::bad("Idempotency-Key", format!("expected 1 to {TEXT_MAX} printable ASCII characters"))
            })?)
        }
    };
    let input = body.and_then(|Json(body)| body.input);
    let run = of(&admin, &path)?.jobs.run(&path.0.1, key, input).await?;
    Ok((StatusCode::ACCEPTED, Json(run)).into_response())
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PauseRequest {
    /// Why
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// Until when; then it resumes from now
    #[serde(default)]
    until: Option<DateTime<Utc>>,
}

/// Pauses a job on all replicas
#[utoipa::path(post, path = "/admin/v1/jobs/{service}/{job}/pause", tag = "jobs", request_body = PauseRequest,
    responses((status = 200, body = Value), (status = 400, body = Problem), (status = 404, body = Problem)),
    params(("service" = String, Path), ("job" = String, Path)))]
async fn pause(
    State(admin): State<Admin>,
    path: Job,
    caller: Caller,
    Json(body): Json<PauseRequest>,
) -> Result<Json<JobView>, Problem> {
    let reason = body.reason.trim();
    if reason.is_empty() || reason.chars().count() > TEXT_MAX {
        return Err(Problem::bad("reason", format!("expected 1 to {TEXT_MAX} characters")));
    }
    let by = caller.name.or(caller.subject).unwrap_or_else(|| "operator".to_owned());
    Ok(Json(of(&admin, &path)?.jobs.pause(&path.0.1, &by, reason, body.until).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResumeRequest {
    /// `now` leaves the instants of the pause out, `catch_up` runs what coalescing picks of them
    #[schema(value_type = String, pattern = "^(now|catch_up)$")]
    from: ResumeFrom,
}

/// Resumes a job
#[utoipa::path(post, path = "/admin/v1/jobs/{service}/{job}/resume", tag = "jobs", request_body = ResumeRequest,
    responses((status = 200, body = Value), (status = 400, body = Problem), (status = 404, body = Problem)),
    params(("service" = String, Path), ("job" = String, Path)))]
async fn resume(
    State(admin): State<Admin>,
    path: Job,
    Json(body): Json<ResumeRequest>,
) -> Result<Json<JobView>, Problem> {
    Ok(Json(of(&admin, &path)?.jobs.resume(&path.0.1, body.from).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BackfillRequest {
    /// First
    from: DateTime<Utc>,
    /// Last
    to: DateTime<Utc>,
}

/// Queues a run for each instant of a range, also for those that ran
#[utoipa::path(post, path = "/admin/v1/jobs/{service}/{job}/backfill", tag = "jobs", request_body = BackfillRequest,
    responses((status = 202, body = Listing<Value>), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)),
    params(("service" = String, Path), ("job" = String, Path)))]
async fn backfill(
    State(admin): State<Admin>,
    path: Job,
    Json(body): Json<BackfillRequest>,
) -> Result<Response, Problem> {
    let runs = of(&admin, &path)?.jobs.backfill(&path.0.1, body.from, body.to).await?;
    Ok((StatusCode::ACCEPTED, Json(Listing::whole(runs))).into_response())
}
