//! The admin API's client: one address, one token, problems as errors.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(35);
/// Answers larger than this are refused.
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Speaks to one admin listener.
pub(crate) struct Client {
    base: Url,
    token: Option<String>,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let base = Url::parse(url)
            .with_context(|| format!("BELFRY_URL: {url:?} is not a URL such as http://127.0.0.1:9080"))?;
        if !matches!(base.scheme(), "http" | "https") {
            bail!("BELFRY_URL: {url:?} should begin with http:// or https://");
        }
        service_kit::install_tls_provider();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("belfry/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { base, token: token.map(str::to_owned), http })
    }

    /// GET with query parameters; absent ones are left out.
    pub(crate) async fn get(&self, path: &[&str], query: &[(&str, Option<String>)]) -> anyhow::Result<Value> {
        self.send(Method::GET, path, query, None, None).await
    }

    /// POST with a JSON body.
    pub(crate) async fn post(&self, path: &[&str], body: Option<Value>) -> anyhow::Result<Value> {
        self.send(Method::POST, path, &[], body, None).await
    }

    /// POST with an idempotency key.
    pub(crate) async fn post_once(
        &self,
        path: &[&str],
        body: Option<Value>,
        key: Option<&str>,
    ) -> anyhow::Result<Value> {
        self.send(Method::POST, path, &[], body, key).await
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, Option<String>)],
        body: Option<Value>,
        key: Option<&str>,
    ) -> anyhow::Result<Value> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("BELFRY_URL cannot carry a path"))?
            .pop_if_empty()
            .extend(path);
        let given: Vec<(&str, &String)> =
            query.iter().filter_map(|(name, value)| value.as_ref().map(|value| (*name, value))).collect();
        let mut request = self.http.request(method, url).query(&given);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.with_context(|| {
            format!("{} does not answer; is the platform up? (make run, or set BELFRY_URL)", self.base)
        })?;
        read(response).await
    }
}

/// The body, or the problem it tells of.
async fn read(mut response: reqwest::Response) -> anyhow::Result<Value> {
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > BODY_BYTES_MAX {
            bail!("the answer is larger than {BODY_BYTES_MAX} bytes");
        }
    }
    if status.is_success() {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_slice(&bytes).context("the answer is not JSON");
    }
    bail!("{}", problem(status, &bytes));
}

fn problem(status: StatusCode, bytes: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return status.to_string() };
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let mut said = text("title").unwrap_or(status.as_str()).to_owned();
    if let Some(detail) = text("detail") {
        said = format!("{said}: {detail}");
    }
    for error in body.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        said = format!("{said}\n  {}: {}", part("field"), part("message"));
    }
    if status == StatusCode::UNAUTHORIZED {
        said.push_str("; give it with --token or BELFRY_TOKEN");
    }
    said
}
