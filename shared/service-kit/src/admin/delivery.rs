//! What waits to leave, and what could not travel.

use axum::{extract::State, http::StatusCode};
use broker::dead_letters::{self, DeadLetter, Direction};
use database::Fault;
use serde::Serialize;
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Admin, Operated};
use crate::http::{Json, Listing, Page, Path, Problem, Query};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list_outbox))
        .routes(routes!(retry))
        .routes(routes!(skip))
        .routes(routes!(list_letters))
        .routes(routes!(replay))
        .routes(routes!(discard))
}

impl From<outbox::Error> for Problem {
    fn from(error: outbox::Error) -> Self {
        match error {
            outbox::Error::Database(fault) => fault.into(),
            outbox::Error::TooOld(_) => Self::bad("from", error.to_string()),
            outbox::Error::TooLarge { .. } => Self::bad("content", error.to_string()),
            outbox::Error::UnknownType(_) => Self::internal(&error),
        }
    }
}

/// An item with the service it is of.
#[derive(Serialize)]
struct Of<T> {
    service: &'static str,
    #[serde(flatten)]
    item: T,
}

/// Which service of the process a list has come to, and where in it.
type Place<C> = (usize, Option<C>);

/// What is recorded and not acknowledged by the broker yet, oldest first
#[utoipa::path(get, path = "/admin/v1/outbox", tag = "delivery", params(Page), responses((status = 200, body = Listing<Value>), (status = 400, body = Problem)))]
async fn list_outbox(
    State(admin): State<Admin>,
    Query(page): Query<Page>,
) -> Result<Json<Listing<Of<outbox::OutboxRow>>>, Problem> {
    let (first, after) = page.after::<Place<i64>>()?.unwrap_or((0, None));
    let mut items = Vec::new();
    for (at, service) in admin.services.iter().enumerate().skip(first) {
        let after = after.filter(|_| at == first).unwrap_or(0);
        let rows = service.outbox.list(after, page.limit + 1 - items.len() as u64).await?;
        items.extend(rows.into_iter().map(|item| (at, Of { service: service.name, item })));
        if items.len() as u64 > page.limit {
            break;
        }
    }
    Ok(Json(Listing::of(items, page.limit, |(at, of)| (*at, Some(of.item.position))).map(|(_, of)| of)))
}

/// Sends what waits now
#[utoipa::path(post, path = "/admin/v1/outbox/{service}/{id}/retry", tag = "delivery", responses((status = 204), (status = 404, body = Problem)),
    params(("service" = String, Path), ("id" = Uuid, Path)))]
async fn retry(State(admin): State<Admin>, Path((service, _id)): Path<(String, Uuid)>) -> Result<StatusCode, Problem> {
    admin.service(&service)?.relay.wake();
    Ok(StatusCode::NO_CONTENT)
}

/// Moves a row that waits to the dead letters, so that its key goes on
#[utoipa::path(post, path = "/admin/v1/outbox/{service}/{id}/skip", tag = "delivery", responses((status = 204), (status = 404, body = Problem)),
    params(("service" = String, Path), ("id" = Uuid, Path)))]
async fn skip(State(admin): State<Admin>, Path((service, id)): Path<(String, Uuid)>) -> Result<StatusCode, Problem> {
    let now = admin.clock.now();
    if admin.service(&service)?.outbox.bury(id, "skipped by an operator", now).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::not_found(format!("no event {id} waits")))
}

/// What the broker refused or a listener could not take, newest first
#[utoipa::path(get, path = "/admin/v1/dead-letters", tag = "delivery", params(Page), responses((status = 200, body = Listing<Value>), (status = 400, body = Problem)))]
async fn list_letters(
    State(admin): State<Admin>,
    Query(page): Query<Page>,
) -> Result<Json<Listing<Of<DeadLetter>>>, Problem> {
    let (first, before) = page.after::<Place<Uuid>>()?.unwrap_or((0, None));
    let mut items = Vec::new();
    for (at, service) in admin.services.iter().enumerate().skip(first) {
        let before = before.filter(|_| at == first);
        let rows = dead_letters::list(&service.db, before, page.limit + 1 - items.len() as u64).await?;
        items.extend(rows.into_iter().map(|item| (at, Of { service: service.name, item })));
        if items.len() as u64 > page.limit {
            break;
        }
    }
    Ok(Json(Listing::of(items, page.limit, |(at, of)| (*at, Some(of.item.id))).map(|(_, of)| of)))
}

async fn letter(service: &Operated, id: Uuid) -> Result<DeadLetter, Problem> {
    let found = dead_letters::find(&service.db, id).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no dead letter {id}")))
}

/// Tries a dead letter again
#[utoipa::path(post, path = "/admin/v1/dead-letters/{service}/{id}/replay", tag = "delivery", responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)),
    params(("service" = String, Path), ("id" = Uuid, Path)))]
async fn replay(State(admin): State<Admin>, Path((service, id)): Path<(String, Uuid)>) -> Result<StatusCode, Problem> {
    let service = admin.service(&service)?;
    let found = letter(service, id).await?;
    if found.direction == Direction::Out {
        service.outbox.unbury(id).await?;
        service.relay.wake();
        return Ok(StatusCode::NO_CONTENT);
    }
    for listener in &service.listeners {
        match listener.replay(&found).await {
            Ok(true) => return Ok(StatusCode::NO_CONTENT),
            Ok(false) => {}
            Err(inbox::ListenError::Transient(_)) => return Err(Problem::unavailable()),
            Err(inbox::ListenError::Failed(why)) => return Err(Problem::conflict(format!("it failed again: {why}"))),
        }
    }
    Err(Problem::conflict(format!("listener {} is not part of this process", found.consumer)))
}

/// Gives a dead letter up
#[utoipa::path(post, path = "/admin/v1/dead-letters/{service}/{id}/discard", tag = "delivery", responses((status = 204), (status = 404, body = Problem)),
    params(("service" = String, Path), ("id" = Uuid, Path)))]
async fn discard(State(admin): State<Admin>, Path((service, id)): Path<(String, Uuid)>) -> Result<StatusCode, Problem> {
    let service = admin.service(&service)?;
    letter(service, id).await?;
    let tx = database::begin(&service.db).await?;
    dead_letters::take(&tx, id).await?;
    tx.commit().await.map_err(Fault::from)?;
    tracing::info!(letter = %id, "a dead letter was discarded by an operator");
    Ok(StatusCode::NO_CONTENT)
}
