//! Whatever is sent is answered: taken, or refused with a problem; never an error of ours, and blog goes on.

use proptest::prelude::*;
use reqwest::Method;
use test_kit::{Home, Process, fuzz};

use crate::{BLOG, plain};

const BODIES: &[&str] = &[
    r#"{"title":"Bells","content":"Some *text*.","excerpt":"short","author_id":"0190a000-0000-7000-8000-000000000000"}"#,
    r#"{"title":"Due","published_at":"2026-06-01T08:00:00+02:00","slug":"due-on-time"}"#,
    r#"{"title":"Seen","seo":{"title":"t","description":"d","canonical_url":"https://example.org/a?b=c"}}"#,
    r#"{"title":"Tagged","tag_ids":[],"category_ids":["0190a000-0000-7000-8000-000000000000"]}"#,
    r#"{"name":"A tag","description":null,"reason":"to see","from":"now"}"#,
];

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\u202e",
    "null",
    "true",
    "-1",
    "1e999",
    "99999999999999999999",
    "\"published_at\":\"9999-12-31T23:59:59Z\",",
    "\"published_at\":\"-262143-01-01T00:00:00Z\",",
    "\"title\":",
    "\"slug\":\"../..\",",
    "\"tag_ids\":[[[",
    "'; DROP TABLE posts; --",
    "%00",
    "\u{feff}",
    "é",
    "\u{0}",
    "<script>",
    "javascript:",
    "{{7*7}}",
    "\r\n\r\n",
];

/// Where bodies are taken: a method and a path.
const DOORS: &[(&str, &str)] = &[
    ("POST", "/api/blog/posts"),
    ("PATCH", "/api/blog/posts/{id}"),
    ("POST", "/api/blog/posts/{id}/publish"),
    ("POST", "/api/blog/tags"),
    ("POST", "/api/blog/categories"),
];

const ADMIN_DOORS: &[(&str, &str)] = &[
    ("POST", "/admin/v1/jobs/blog/post_publisher/run"),
    ("POST", "/admin/v1/jobs/blog/post_publisher/pause"),
    ("POST", "/admin/v1/jobs/blog/post_publisher/resume"),
    ("POST", "/admin/v1/jobs/blog/post_publisher/backfill"),
];

/// Queries of lists.
const QUERIES: &[&str] = &[
    "limit=20&cursor=W10&status=published",
    "tag=a&category=b&q=bells&author_id=0190a000-0000-7000-8000-000000000000",
    "since=2026-06-01T08:00:00Z&topic=blog.post.created&key=k",
    "from=2026-06-01T08:00:00Z&to=2026-06-02T08:00:00Z&at=2026-06-01T08:00:00Z&limit=3&count=5&outcome=failed",
];

struct Blog {
    runtime: tokio::runtime::Runtime,
    process: Process,
    post: String,
    _home: Home,
}

impl Blog {
    fn begin() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let home = Home::embedded();
        let process = runtime.block_on(Process::start(BLOG, &home, &[]).ready());
        let post = runtime.block_on(process.api.post_json("/api/blog/posts", &plain("First"))).expect(201).json;
        let post = post["id"].as_str().expect("an id").to_owned();
        Self { runtime, process, post, _home: home }
    }

    /// Sends it, and looks whether the answer is one of ours.
    fn answers(&self, admin: bool, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) {
        let client = if admin { &self.process.admin } else { &self.process.api };
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let path = path.replace("{id}", &self.post);
        let send = || self.runtime.block_on(client.try_send(method.clone(), &path, headers, body));
        // A connection that was idle for long may be closed while it is used again: that happens once.
        let answer = match send().or_else(|_| send()) {
            Ok(answer) => answer,
            // What the client itself refuses to send (a header with a line break) reaches nobody.
            Err(error) if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_builder) => return,
            Err(error) => panic!("{path}: no answer: {error:#}"),
        };
        assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.text);
        if answer.status >= 400 {
            assert_eq!(answer.header("content-type"), "application/problem+json", "{path}: {}", answer.text);
            assert!(answer.status != 400 || answer.fields().iter().all(|field| !field.is_empty()), "{}", answer.text);
        }
    }

    fn lives(mut self) {
        assert!(!self.process.gone());
        self.runtime.block_on(self.process.admin.get("/readyz")).expect(200);
        let said = self.process.said();
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn fuzz_whatever_body_is_sent_is_taken_or_refused_with_a_problem() {
    let blog = Blog::begin();
    let json = [("content-type", "application/json")];
    let sent = (fuzz::bytes(BODIES, WORDS), prop::sample::select(DOORS));
    fuzz::all(1_500, sent, |(body, (method, path))| blog.answers(false, method, path, &json, Some(&body)));
    let sent = (fuzz::bytes(BODIES, WORDS), prop::sample::select(ADMIN_DOORS));
    fuzz::all(500, sent, |(body, (method, path))| blog.answers(true, method, path, &json, Some(&body)));
    blog.lives();
}

#[test]
fn fuzz_whatever_query_or_header_is_sent_is_taken_or_refused_with_a_problem() {
    let blog = Blog::begin();
    let queried = ["/api/blog/posts", "/api/blog/tags", "/api/blog/categories"];
    fuzz::all(1_000, (fuzz::text(QUERIES, WORDS), prop::sample::select(queried.to_vec())), |(query, path)| {
        blog.answers(false, "GET", &format!("{path}?{query}"), &[], None);
    });
    let queried = [
        "/admin/v1/events",
        "/admin/v1/outbox",
        "/admin/v1/dead-letters",
        "/admin/v1/jobs/blog/post_publisher/runs",
        "/admin/v1/jobs/blog/post_publisher/plan",
        "/admin/v1/jobs/blog/post_publisher/why",
        "/admin/v1/jobs/blog/post_publisher/failures",
    ];
    fuzz::all(500, (fuzz::text(QUERIES, WORDS), prop::sample::select(queried.to_vec())), |(query, path)| {
        blog.answers(true, "GET", &format!("{path}?{query}"), &[], None);
    });
    let values = fuzz::text(
        &[
            "\"1\"",
            "*",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "Bearer a.b.c",
            "application/json; charset=utf-8",
        ],
        WORDS,
    );
    let names = [
        "if-match",
        "traceparent",
        "authorization",
        "content-type",
        "accept-encoding",
        "x-request-id",
        "idempotency-key",
    ];
    let body = plain("Edited").to_string();
    fuzz::all(1_000, (values, prop::sample::select(names.to_vec())), |(value, name)| {
        let headers = [("content-type", "application/json"), (name, value.as_str())];
        let headers = if name == "content-type" { &headers[1..] } else { &headers[..] };
        blog.answers(false, "PATCH", "/api/blog/posts/{id}", headers, Some(body.as_bytes()));
    });
    blog.lives();
}
