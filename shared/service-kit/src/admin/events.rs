//! What was said: a tail over the outboxes of this process, and replay.

use std::collections::BTreeMap;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Admin;
use crate::http::{
    Json, Listing, Problem, Query,
    page::{decode, default_limit, encode, limit},
};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(replay))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only this type
    #[serde(rename = "type")]
    #[param(rename = "type")]
    event_type: Option<String>,
    /// Only this key
    key: Option<String>,
    /// From this moment on (RFC 3339), or `now`
    since: Option<String>,
    /// Where the page before ended
    cursor: Option<String>,
    /// Items a page has, 1 to 200
    #[serde(default = "default_limit", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 200, default = 20)]
    limit: u64,
}

#[derive(Serialize)]
struct Said {
    topic: String,
    partition: i32,
    offset: i64,
    key: String,
    event: Value,
}

/// Positions by service.
type Places = BTreeMap<String, i64>;

/// Where the list begins: after the cursor, at a moment, or with what comes now.
async fn begin(admin: &Admin, filter: &Filter) -> Result<(Places, Option<DateTime<Utc>>), Problem> {
    if let Some(cursor) = &filter.cursor {
        return Ok((decode(cursor)?, None));
    }
    match filter.since.as_deref() {
        None => Ok((Places::new(), None)),
        Some("now") => {
            let mut places = Places::new();
            for service in admin.services.iter() {
                places.insert(service.name.to_owned(), service.outbox.newest().await?);
            }
            Ok((places, None))
        }
        Some(since) => {
            let since = DateTime::parse_from_rfc3339(since);
            let since = since.map_err(|_| Problem::bad("since", "expected a time in RFC 3339, or `now`"))?;
            Ok((Places::new(), Some(since.with_timezone(&Utc))))
        }
    }
}

/// Events in the order in which they were recorded. The cursor of the last page brings what was said since
#[utoipa::path(get, path = "/admin/v1/events", tag = "events", params(Filter), responses((status = 200, body = Listing<Value>), (status = 400, body = Problem)))]
async fn list(State(admin): State<Admin>, Query(filter): Query<Filter>) -> Result<Json<Listing<Said>>, Problem> {
    let (mut places, since) = begin(&admin, &filter).await?;
    let mut found = Vec::new();
    for service in admin.services.iter() {
        let after = places.get(service.name).copied().unwrap_or(0);
        let topic = filter.event_type.as_deref();
        let rows = service.outbox.history(after, since, topic, filter.key.as_deref(), filter.limit).await?;
        found.extend(rows.into_iter().map(|row| (service.name, row)));
    }
    found.sort_by_key(|(_, row)| (row.recorded_at, row.position));
    found.truncate(usize::try_from(filter.limit).unwrap_or(usize::MAX));
    let mut items = Vec::with_capacity(found.len());
    for (service, row) in found {
        places.insert(service.to_owned(), row.position);
        let event = serde_json::from_slice(&row.body).unwrap_or(Value::Null);
        items.push(Said { topic: row.topic, partition: 0, offset: row.position, key: row.key, event });
    }
    let next_cursor = Some(encode(&places));
    Ok(Json(Listing { items, next_cursor }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReplayRequest {
    /// The service that said them
    service: String,
    /// Recorded at or after
    from: DateTime<Utc>,
    /// Recorded at or before
    to: DateTime<Utc>,
    /// Only these types; empty: all
    #[serde(default)]
    types: Vec<String>,
    /// Also what consumers do not remember any more
    #[serde(default)]
    force: bool,
}

#[derive(Serialize, ToSchema)]
struct Replayed {
    replayed: u64,
}

/// Sends published events of a range again, with their ids
#[utoipa::path(post, path = "/admin/v1/events/replay", tag = "events", request_body = ReplayRequest,
    responses((status = 200, body = Replayed), (status = 400, body = Problem), (status = 404, body = Problem)))]
async fn replay(State(admin): State<Admin>, Json(body): Json<ReplayRequest>) -> Result<Json<Replayed>, Problem> {
    if body.from > body.to {
        return Err(Problem::bad("from", "expected a time at or before `to`"));
    }
    if let Some(unknown) = body.types.iter().find(|name| events::by_name(name).is_none()) {
        return Err(Problem::bad("types", format!("{unknown:?} is not an event type")));
    }
    let service = admin.service(&body.service)?;
    let replay = outbox::Replay { from: body.from, to: body.to, types: body.types, force: body.force };
    let replayed = service.outbox.replay(&replay, admin.clock.now()).await?;
    service.relay.wake();
    tracing::info!(service = service.name, replayed, "events are sent again");
    Ok(Json(Replayed { replayed }))
}
