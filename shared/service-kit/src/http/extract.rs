//! What a request carries, as types; what is wrong with it, by field.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Problem, strict::Strict};

/// JSON deeper than this is refused.
const DEPTH_MAX: usize = 64;

/// A JSON body, in and out.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !json_type(&request) {
            let expected = "a body of content type application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).detail(format!("expected {expected}")));
        }
        parse(&body(request, state).await?).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        let typed = json_type(&request);
        let bytes = body(request, state).await?;
        match (bytes.is_empty(), typed) {
            (true, _) => Ok(None),
            (false, true) => parse(&bytes).map(|body| Some(Self(body))),
            (false, false) => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
                .detail("expected a body of content type application/json")),
        }
    }
}

fn json_type(request: &Request) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind == "application/merge-patch+json"
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejected| {
        if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE).detail("the body is larger than 1 MiB")
        } else {
            Problem::bad("body", "the body could not be read")
        }
    })
}

/// JSON as a type: its depth, NUL bytes and unknown fields are looked at first.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.is_empty() {
        return Err(Problem::bad("body", "expected a JSON object"));
    }
    if depth(bytes) > DEPTH_MAX {
        return Err(Problem::bad("body", format!("the JSON is nested deeper than {DEPTH_MAX} levels")));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| Problem::bad("body", error.to_string()))?;
    if let Some(path) = nul(&value, String::new()) {
        let path = if path.is_empty() { "body".to_owned() } else { path };
        return Err(Problem::bad(path, "text must not contain NUL characters"));
    }
    serde_path_to_error::deserialize(Strict(value)).map_err(|error| refused(&error, "body"))
}

fn refused<E: std::error::Error>(error: &serde_path_to_error::Error<E>, whole: &str) -> Problem {
    let path = error.path().to_string();
    let message = error.inner().to_string();
    // serde names an unknown field in its message; the path is then that of the object around it.
    let named = ["unknown field `", "missing field `"].iter().find_map(|start| {
        let name = message.split_once(start)?.1.split('`').next()?;
        let last = path.rsplit('.').next().unwrap_or_default();
        match path.as_str() {
            // A field without a name: only what is around it can be named.
            _ if name.is_empty() => None,
            "." => Some(name.to_owned()),
            whole if last == name => Some(whole.to_owned()),
            around => Some(format!("{around}.{name}")),
        }
    });
    let field = named.unwrap_or(if path.is_empty() || path == "." { whole.to_owned() } else { path });
    Problem::bad(field, message)
}

/// How deep brackets go, outside strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut now, mut deepest, mut text, mut escape) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escape => escape = false,
            b'\\' if text => escape = true,
            b'"' => text = !text,
            b'[' | b'{' if !text => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !text => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The path of the first text with a NUL character.
fn nul(value: &Value, path: String) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then_some(path),
        Value::Array(items) => items.iter().enumerate().find_map(|(at, item)| nul(item, format!("{path}[{at}]"))),
        Value::Object(fields) => fields.iter().find_map(|(name, item)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if name.contains('\0') { Some("body".to_owned()) } else { nul(item, path) }
        }),
        _ => None,
    }
}

/// Parts of the path.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        use axum::extract::{path::ErrorKind, rejection::PathRejection};
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(PathRejection::FailedToDeserializePathParams(failed)) => Err(match failed.into_kind() {
                ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
                    Problem::bad(key, format!("expected {expected_type}"))
                }
                ErrorKind::DeserializeError { key, message, .. } => Problem::bad(key, message),
                ErrorKind::InvalidUtf8InPathParam { key } => Problem::bad(key, "expected UTF-8"),
                other => Problem::bad("id", other.to_string()),
            }),
            Err(other) => Err(Problem::internal(&other)),
        }
    }
}

/// Parameters of the query; unknown ones are refused by the type.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let from = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        match serde_path_to_error::deserialize(from) {
            Ok(read) if !query.contains("%00") => Ok(Self(read)),
            Ok(_) => Err(Problem::bad("query", "text must not contain NUL characters")),
            Err(error) => Err(refused(&error, "query")),
        }
    }
}

/// The version a change is meant for: `If-Match: "3"`, several, or `*`; absent: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(Option<Vec<String>>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut tags = Vec::new();
        for value in parts.headers.get_all(header::IF_MATCH) {
            let value = value.to_str().map_err(|_| Problem::bad("If-Match", "expected ASCII"))?;
            tags.extend(value.split(',').map(|tag| tag.trim().to_owned()));
        }
        Ok(Self((!tags.is_empty()).then_some(tags)))
    }
}

impl IfMatch {
    /// Refuses a change meant for another version.
    ///
    /// # Errors
    /// 412 with the present ETag.
    pub fn check(&self, version: i64) -> Result<(), Problem> {
        let present = etag(version);
        match &self.0 {
            Some(tags) if !tags.iter().any(|tag| *tag == present || tag == "*") => Err(Problem::stale(&present)),
            _ => Ok(()),
        }
    }
}

/// The ETag of a version.
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use test_kit::fuzz;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        title: String,
        #[serde(default)]
        tags: Vec<String>,
    }

    fn field(json: &str) -> String {
        parse::<Body>(json.as_bytes()).unwrap_err().errors[0].field.clone()
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        assert_eq!(field(r#"{"title": 3}"#), "title");
        assert_eq!(field(r#"{"title": "t", "tags": ["a", 1]}"#), "tags[1]");
        assert_eq!(field(r#"{"title": "t", "colour": "red"}"#), "colour");
        assert_eq!(field("{}"), "title");
        assert_eq!(field(r#"{"title": "a\u0000b"}"#), "title");
        assert_eq!(field(r#"{"title": "#), "body");
        assert_eq!(field(r#"{"title": "t"} x"#), "body");
        assert_eq!(field(""), "body");
    }

    #[test]
    fn deep_json_is_refused_before_it_is_read() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(field(&deep), "body");
        assert_eq!(depth(br#"{"a": "[[[[\"[[", "b": [1]}"#), 2);
    }

    #[test]
    fn fuzz_a_body_is_of_its_type_or_refused_by_field() {
        let examples =
            [r#"{"title": "t", "tags": ["a", "b"]}"#, r#"{"title": "a\"[[{\\", "tags": []}"#, r#"{"title": ""}"#];
        let words = &[
            "{",
            "}",
            "[",
            "]",
            "[[[[[[[[[[[[[[[[",
            "{\"a\":",
            "\"",
            "\\",
            "\\u0000",
            "\\ud800",
            "\"title\":",
            "\"colour\":1,",
            ",",
            "null",
            "1e999",
            "-0",
            "\u{feff}",
        ];
        fuzz::all(20_000, fuzz::bytes(&examples, words), |bytes| match parse::<Body>(&bytes) {
            Ok(body) => {
                assert!(!body.title.contains('\0') && !body.tags.iter().any(|tag| tag.contains('\0')));
                let value: Value = serde_json::from_slice(&bytes).expect("what was taken is JSON");
                assert!(
                    value.as_object().is_some_and(|fields| fields.keys().all(|key| key == "title" || key == "tags"))
                );
            }
            Err(problem) => {
                assert_eq!(problem.status, 400);
                assert!(!problem.errors[0].field.is_empty() && !problem.errors[0].message.is_empty());
            }
        });
    }

    #[test]
    fn if_match_takes_a_list_and_a_star_and_refuses_what_is_stale() {
        let tags = |tags: &[&str]| IfMatch(Some(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        assert!(IfMatch(None).check(3).is_ok());
        assert!(tags(&["\"2\"", "\"3\""]).check(3).is_ok());
        assert!(tags(&["*"]).check(3).is_ok());
        assert_eq!(tags(&["\"2\""]).check(3).unwrap_err().status, 412);
        assert_eq!(tags(&["3"]).check(3).unwrap_err().status, 412);
    }
}
