//! The operator's command line: words and tables for people, one document for machines, exit codes for scripts.

use serde_json::Value;
use test_kit::{Home, eventually};

use crate::{belfry, published, run, up};

const JOB: &str = "blog/post_publisher";

#[tokio::test]
async fn jobs_are_listed_shown_run_and_explained() {
    let home = Home::embedded();
    let platform = up(&home, &[("POST_PUBLISHER_INTERVAL", "1h")]).await;
    published(&platform, "Told", 300).await;

    let table = belfry(&platform, &["jobs", "list"]).words();
    assert!(table.contains("post_publisher") && table.contains("every 1h"), "{table}");
    let list = belfry(&platform, &["jobs", "list", "--json"]).json();
    let job = &list["items"][0];
    for field in
        ["service", "name", "description", "schedule", "enabled", "paused", "running", "next_run_at", "last_run"]
    {
        assert!(job.get(field).is_some(), "{field} is missing in {job}");
    }
    assert!(belfry(&platform, &["jobs", "show", JOB]).words().contains("enabled_replicas"));
    assert_eq!(belfry(&platform, &["jobs", "show", JOB, "--json"]).json()["name"], "post_publisher");

    let first = belfry(&platform, &["jobs", "run", JOB, "--key", "now", "--json"]).json();
    let second = belfry(&platform, &["jobs", "run", JOB, "--key", "now", "--json"]).json();
    assert_eq!(first["id"], second["id"], "the same key is the same run");
    let runs = eventually("the run is over", async || {
        let runs = belfry(&platform, &["jobs", "runs", JOB, "--json"]).json();
        let over = |run: &&Value| run["id"] == first["id"] && run["outcome"] == "succeeded";
        runs["items"].as_array()?.iter().find(over).is_some().then(|| runs.clone())
    })
    .await;
    let run = &runs["items"][0];
    for field in [
        "id",
        "nominal_at",
        "wake_source",
        "outcome",
        "started_at",
        "finished_at",
        "lateness_ms",
        "items",
        "error",
        "owner",
        "epoch",
        "state",
    ] {
        assert!(run.get(field).is_some(), "{field} is missing in {run}");
    }
    assert!(belfry(&platform, &["jobs", "runs", JOB, "--limit", "1"]).words().contains("more: --cursor"));

    let plan = belfry(&platform, &["jobs", "plan", JOB, "--count", "3", "--json"]).json();
    assert_eq!(plan["items"].as_array().expect("firings").len(), 3);
    let next = plan["items"][0]["nominal_at"].as_str().expect("a time");
    assert!(belfry(&platform, &["jobs", "why", JOB, "--at", next]).words().contains("the next instant is"));
    assert!(belfry(&platform, &["jobs", "failures", JOB]).words().contains("no row is set aside"));
}

#[tokio::test]
async fn a_job_is_paused_and_goes_on() {
    let home = Home::embedded();
    let platform = up(&home, &[]).await;
    belfry(&platform, &["jobs", "pause", JOB, "--reason", "calm"]).words();
    let job = belfry(&platform, &["jobs", "show", JOB, "--json"]).json();
    assert_eq!((&job["paused"], &job["pause"]["reason"]), (&Value::Bool(true), &Value::from("calm")));
    belfry(&platform, &["jobs", "resume", JOB, "--from", "catch_up"]).words();
    assert_eq!(belfry(&platform, &["jobs", "show", JOB, "--json"]).json()["paused"], false);
    let (from, to) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    let refused = belfry(&platform, &["jobs", "backfill", JOB, "--from", from, "--to", to]);
    assert_eq!(refused.code, 1, "{}", refused.out);
    assert!(refused.err.contains("only Tick and Steps jobs"), "{}", refused.err);
}

#[tokio::test]
async fn events_are_followed_and_sent_again() {
    let home = Home::embedded();
    let platform = up(&home, &[]).await;
    let id = published(&platform, "Heard", 300).await;
    let since = "2000-01-01T00:00:00Z";
    let lines = belfry(&platform, &["events", "tail", "--since", since, "--key", &id, "--max", "3", "--json"]).words();
    let types: Vec<String> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("one document a line")["topic"]
                .as_str()
                .expect("a type")
                .to_owned()
        })
        .collect();
    assert_eq!(types, ["blog.post.created", "blog.post.published", "blog.post.scheduled.published"]);
    eventually("everything has left", async || {
        belfry(&platform, &["outbox", "list"]).out.contains("nothing waits").then_some(())
    })
    .await;
    #[expect(clippy::disallowed_methods, reason = "a range around the real clock")]
    let now = chrono::Utc::now();
    let (from, to) = ((now - chrono::TimeDelta::hours(1)).to_rfc3339(), now.to_rfc3339());
    let replayed = belfry(
        &platform,
        &[
            "events",
            "replay",
            "--service",
            "blog",
            "--from",
            &from,
            "--to",
            &to,
            "--type",
            "blog.post.published",
            "--json",
        ],
    );
    assert_eq!(replayed.json()["replayed"], 1);
    let old = belfry(&platform, &["events", "replay", "--service", "blog", "--from", since, "--to", &to]);
    assert_eq!(old.code, 1);
    assert!(old.err.contains("force"), "{}", old.err);
    assert!(belfry(&platform, &["dead-letters", "list"]).words().contains("no dead letters"));
}

#[tokio::test]
async fn a_token_is_needed_where_one_is_set_and_never_shown() {
    let home = Home::embedded();
    let token = "0123456789abcdef0123456789abcdef";
    let platform = up(&home, &[("ADMIN_TOKEN", token)]).await;
    let refused = belfry(&platform, &["jobs", "list"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("BELFRY_TOKEN"), "{}", refused.err);
    let url = format!("http://{}", platform.admin_address);
    let vars = [("BELFRY_URL", url.as_str()), ("BELFRY_TOKEN", token)];
    assert_eq!(run(&["jobs", "list"], &vars).code, 0);
    assert!(!platform.said().contains(token));
    assert!(!run(&["jobs", "--help"], &vars).out.contains(token));
}

#[test]
fn what_cannot_be_understood_is_2_and_what_fails_is_1() {
    for wrong in
        [&["dance"][..], &["jobs"], &["jobs", "show", "post_publisher"], &["jobs", "plan", "a/b", "--count", "x"]]
    {
        assert_eq!(run(wrong, &[]).code, 2, "{wrong:?}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let away = run(&["jobs", "list"], &[("BELFRY_URL", &format!("http://127.0.0.1:{nobody}"))]);
    assert_eq!(away.code, 1);
    assert!(away.err.contains("BELFRY_URL") || away.err.contains("127.0.0.1"), "{}", away.err);
    assert_eq!(run(&["--version"], &[]).code, 0);
}

#[tokio::test]
async fn a_job_that_is_not_there_is_said_so() {
    let home = Home::embedded();
    let platform = up(&home, &[]).await;
    let unknown = belfry(&platform, &["jobs", "show", "blog/nobody"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("nobody"), "{}", unknown.err);
}

#[tokio::test]
async fn what_waits_to_leave_can_be_seen_tried_again_set_aside_put_back_and_given_up() {
    let url = test_kit::database().await;
    // Nothing listens here: events wait.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let home = Home::at(Some(&url), Some(&nobody.to_string()));
    let platform = up(&home, &[]).await;
    for title in ["First", "Second"] {
        platform.api.post_json("/api/blog/posts", &serde_json::json!({ "title": title })).await.expect(201);
    }
    let waiting = || belfry(&platform, &["outbox", "list", "--json"]).json()["items"].clone();
    let items = waiting();
    let ids: Vec<&str> = items.as_array().expect("rows").iter().filter_map(|row| row["id"].as_str()).collect();
    assert_eq!(ids.len(), 2, "{items}");
    assert!(belfry(&platform, &["outbox", "list"]).words().contains("blog.post.created"));
    belfry(&platform, &["outbox", "retry", "blog", ids[0]]).words();
    for id in &ids {
        belfry(&platform, &["outbox", "skip", "blog", id]).words();
    }
    assert_eq!(waiting(), serde_json::json!([]));
    let again = belfry(&platform, &["outbox", "skip", "blog", ids[0]]);
    assert_eq!(again.code, 1, "{}", again.out);

    let letters = belfry(&platform, &["dead-letters", "list", "--json"]).json()["items"].clone();
    let letters: Vec<&str> = letters.as_array().expect("letters").iter().filter_map(|row| row["id"].as_str()).collect();
    assert_eq!(letters.len(), 2);
    belfry(&platform, &["dead-letters", "replay", "blog", letters[0]]).words();
    belfry(&platform, &["dead-letters", "discard", "blog", letters[1]]).words();
    assert_eq!(waiting().as_array().expect("rows").len(), 1, "one waits again");
    assert!(belfry(&platform, &["dead-letters", "list"]).words().contains("no dead letters"));
    let gone = belfry(&platform, &["dead-letters", "discard", "blog", letters[1]]);
    assert_eq!(gone.code, 1, "{}", gone.out);
}
