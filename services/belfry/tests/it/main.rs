//! The whole platform as one process, and the operator's command line against it.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

mod audit;
mod commands;
mod damaged;
mod described;
mod platform;

use std::process::Command;

use serde_json::{Value, json};
use test_kit::{Home, Process, eventually};

/// The program under test.
const BELFRY: &str = env!("CARGO_BIN_EXE_belfry");

/// The platform at home, ready.
async fn up(home: &Home, vars: &[(&str, &str)]) -> Process {
    Process::platform(BELFRY, home, vars).ready().await
}

/// What a command said and how it ended.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    /// Its one JSON document.
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {}", self.out))
    }

    /// Its words, when it went well.
    fn words(self) -> String {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out
    }
}

/// Runs `belfry ...` against a platform.
fn belfry(platform: &Process, args: &[&str]) -> Said {
    run(args, &[("BELFRY_URL", &format!("http://{}", platform.admin_address))])
}

fn run(args: &[&str], vars: &[(&str, &str)]) -> Said {
    let output = Command::new(BELFRY).args(args).env_clear().envs(vars.iter().copied()).output().expect("it runs");
    Said {
        code: output.status.code().expect("a code"),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Makes a post that is due in so many milliseconds, and waits until it is published; its id.
async fn published(platform: &Process, title: &str, ms: i64) -> String {
    #[expect(clippy::disallowed_methods, reason = "the test plans for the real clock")]
    let at = chrono::Utc::now() + chrono::TimeDelta::milliseconds(ms);
    let post = json!({ "title": title, "published_at": at.to_rfc3339() });
    let post = platform.api.post_json("/api/blog/posts", &post).await.expect(201).json;
    let id = post["id"].as_str().expect("an id").to_owned();
    eventually("the post is published", async || {
        let now = platform.api.get(&format!("/api/blog/posts/{id}")).await.json;
        (now["status"] == "published").then_some(())
    })
    .await;
    id
}
