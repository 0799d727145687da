//! Who asks: nobody in particular, or a bearer of a token of Keycloak.

mod oidc;

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

pub use self::oidc::{Claims, Oidc, Refusal};
use super::Problem;

/// Roles that may change things.
const EDITORS: &[&str] = &["admin", "operator", "moderator", "editor"];
/// Roles that may steer the platform.
const OPERATORS: &[&str] = &["admin", "operator"];

/// Who asks.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The token's subject.
    pub subject: Option<String>,
    /// The name people know.
    pub name: Option<String>,
    /// The token's roles.
    pub roles: Vec<String>,
    /// Authentication is off: whoever asks may do all.
    pub open: bool,
}

impl Caller {
    fn has(&self, roles: &[&str]) -> bool {
        self.open || self.roles.iter().any(|role| roles.contains(&role.as_str()))
    }

    /// Whether the caller may change things, and see what is not public.
    pub fn edits(&self) -> bool {
        self.has(EDITORS)
    }

    /// Whether the caller may steer the platform.
    pub fn operates(&self) -> bool {
        self.has(OPERATORS)
    }

    /// Whether the caller may see what is not public.
    pub fn sees_drafts(&self) -> bool {
        self.open || !self.roles.is_empty()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Who may use the public API.
pub struct Access {
    /// Tokens are looked at; `None`: authentication is off.
    pub oidc: Option<Arc<Oidc>>,
}

/// The bearer token, if one was sent.
///
/// # Errors
/// 401 when there is something else.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(header::AUTHORIZATION) {
            Err(unauthorized("one Authorization header"))
        } else {
            Ok(None)
        };
    };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(Some(token.trim()))
        }
        _ => Err(unauthorized("a bearer token")),
    }
}

/// 401, saying what is expected.
pub fn unauthorized(expected: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED).detail(format!("expected {expected}"))
}

/// 401 as a response, with the scheme.
pub fn challenge(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Puts the caller into the request; refuses bad tokens always, and changes without a role.
pub async fn identify(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let Some(oidc) = &access.oidc else {
        request.extensions_mut().insert(Caller { open: true, ..Caller::default() });
        return next.run(request).await;
    };
    let caller = match bearer(request.headers()) {
        Err(problem) => return challenge(problem),
        Ok(None) => Caller::default(),
        Ok(Some(token)) => match oidc.verify(token).await {
            Ok(claims) => claims.into(),
            Err(Refusal::Unavailable(why)) => {
                tracing::warn!(why, "tokens cannot be verified");
                return Problem::unavailable().into_response();
            }
            Err(refusal) => {
                tracing::info!(%refusal, "a token was refused");
                return challenge(unauthorized("a valid token"));
            }
        },
    };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && caller.subject.is_none() {
        return challenge(unauthorized("a token"));
    }
    if changes && !caller.edits() {
        return Problem::new(StatusCode::FORBIDDEN)
            .detail("the token has no role that may change things")
            .into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

impl From<Claims> for Caller {
    fn from(claims: Claims) -> Self {
        Self { subject: Some(claims.subject), name: claims.name, roles: claims.roles, open: false }
    }
}
