//! Who may use the operations listener: a token, a role, or this machine alone and never a page in a browser.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::Access;
use crate::http::{
    Problem,
    auth::{Caller, bearer, challenge, unauthorized},
};

/// Lets a request through, or says what it lacks.
pub(super) async fn guard(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    if access.token.is_none() && access.address.ip().is_loopback() {
        if let Err(problem) = from_this_machine(&access, request.headers()) {
            return problem.into_response();
        }
        request.extensions_mut().insert(Caller { open: true, name: Some("operator".to_owned()), ..Caller::default() });
        return next.run(request).await;
    }
    match allowed(&access, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) if problem.status == 401 => challenge(problem),
        Err(problem) => problem.into_response(),
    }
}

async fn allowed(access: &Access, headers: &HeaderMap) -> Result<Caller, Problem> {
    let token = bearer(headers)?.ok_or_else(|| unauthorized("the admin token"))?;
    if access.token.as_ref().is_some_and(|secret| secret.matches(token)) {
        return Ok(Caller { open: true, name: Some("token".to_owned()), ..Caller::default() });
    }
    let Some(oidc) = &access.oidc else { return Err(unauthorized("the admin token")) };
    match oidc.verify(token).await {
        Ok(claims) => {
            let caller = Caller::from(claims);
            if caller.operates() {
                Ok(caller)
            } else {
                Err(Problem::new(StatusCode::FORBIDDEN).detail("the token has neither the role operator nor admin"))
            }
        }
        Err(crate::http::auth::Refusal::Unavailable(why)) => {
            tracing::warn!(why, "tokens cannot be verified");
            Err(Problem::unavailable())
        }
        Err(refusal) => {
            tracing::info!(%refusal, "a token was refused");
            Err(unauthorized("a valid token"))
        }
    }
}

/// A page of another site in a browser on this machine can reach loopback too: it is told apart by what it must send.
fn from_this_machine(access: &Access, headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |why: &str| Problem::new(StatusCode::FORBIDDEN).detail(why);
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).ok_or_else(|| refused("the request has no Host"))?;
    if !known_host(access, host) {
        return Err(refused("the Host is not this machine's: a name that somebody else controls may point here"));
    }
    let site = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or("?"));
    if !matches!(site, None | Some("none" | "same-origin")) {
        return Err(refused("pages of other sites may not use the operations API"));
    }
    if let Some(origin) = text(header::ORIGIN) {
        let same = origin.split_once("://").is_some_and(|(_, origin)| origin == host);
        if !same {
            return Err(refused("pages of other origins may not use the operations API"));
        }
    }
    Ok(())
}

fn known_host(access: &Access, host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    ["localhost", "127.0.0.1", "::1"].contains(&name.to_ascii_lowercase().as_str())
        || name == access.address.ip().to_string()
}
