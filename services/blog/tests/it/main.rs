//! blog through its public doors, on embedded defaults and on real PostgreSQL and Kafka.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

mod access;
mod away;
mod contract;
mod feed;
mod fuzz;
mod lifecycle;
mod on_time;
mod operate;
mod replicas;
mod traces;

use serde_json::{Value, json};
use test_kit::{Home, Process};

/// The program under test.
const BLOG: &str = env!("CARGO_BIN_EXE_blog");

/// blog at home, ready.
async fn blog(home: &Home) -> Process {
    Process::start(BLOG, home, &[]).ready().await
}

/// Makes a post; its JSON.
async fn made(blog: &Process, post: Value) -> Value {
    blog.api.post_json("/api/blog/posts", &post).await.expect(201).json
}

/// A title and a text.
fn plain(title: &str) -> Value {
    json!({ "title": title, "content": "Some *text*." })
}

/// A moment from now, as the API takes it.
fn in_ms(ms: i64) -> String {
    (now() + chrono::TimeDelta::milliseconds(ms)).to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// This machine's time, which is the database's here.
#[expect(clippy::disallowed_methods, reason = "the test plans for the real clock")]
fn now() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}

/// The path of a post.
fn at(post: &Value) -> String {
    format!("/api/blog/posts/{}", post["id"].as_str().expect("an id"))
}
