//! What operators do, and who may.

use reqwest::Method;
use serde_json::json;
use test_kit::{Home, Process, eventually};

use crate::{BLOG, at, blog, in_ms, made};

const JOB: &str = "/admin/v1/jobs/blog/post_publisher";

#[tokio::test]
async fn a_job_is_listed_planned_explained_paused_and_resumed() {
    for home in Home::both().await {
        let blog = blog(&home).await;
        let jobs = blog.admin.get("/admin/v1/jobs").await.expect(200).json;
        let job = &jobs["items"][0];
        for (field, value) in [("service", "blog"), ("name", "post_publisher")] {
            assert_eq!(job[field], value);
        }
        assert_eq!(
            (&job["schedule"]["text"], &job["enabled"], &job["paused"]),
            (&json!("every 5m"), &json!(true), &json!(false))
        );
        let plan = blog.admin.get(&format!("{JOB}/plan?count=3")).await.expect(200).json;
        assert_eq!(plan["items"].as_array().map(Vec::len), Some(3));
        blog.admin.get(&format!("{JOB}/plan?count=0")).await.expect(400);
        let why = blog.admin.get(&format!("{JOB}/why?at={}", in_ms(3_600_000))).await.expect(200).json;
        assert!(why["text"].as_str().expect("words").contains("next instant"), "{why}");

        let paused = blog.admin.post_json(&format!("{JOB}/pause"), &json!({ "reason": "calm" })).await.expect(200).json;
        assert_eq!((&paused["paused"], &paused["next_run_at"]), (&json!(true), &json!(null)));
        let post = made(&blog, json!({ "title": "Waits", "published_at": in_ms(-1) })).await;
        let run = blog.admin.post(&format!("{JOB}/run")).await.expect(202).json;
        assert_eq!(run["wake_source"], "manual");
        eventually("an operator's run works in a pause", async || {
            (blog.api.get(&at(&post)).await.json["status"] == "published").then_some(())
        })
        .await;
        let second = made(&blog, json!({ "title": "Waits too", "published_at": in_ms(-1) })).await;
        let resumed = blog.admin.post_json(&format!("{JOB}/resume"), &json!({ "from": "now" })).await.expect(200).json;
        assert_eq!(resumed["paused"], false);
        eventually("due rows are taken after the pause", async || {
            (blog.api.get(&at(&second)).await.json["status"] == "published").then_some(())
        })
        .await;
        let runs = blog.admin.get(&format!("{JOB}/runs?limit=50")).await.expect(200).json;
        let woken: Vec<&str> =
            runs["items"].as_array().expect("items").iter().filter_map(|run| run["wake_source"].as_str()).collect();
        assert!(woken.contains(&"start") && woken.contains(&"manual"), "{woken:?} on {}", home.name);
    }
}

#[tokio::test]
async fn the_same_idempotency_key_is_the_same_run() {
    for home in Home::both().await {
        let blog = blog(&home).await;
        let run = || {
            blog.admin.send(Method::POST, "/admin/v1/jobs/blog/post_publisher/run", &[("idempotency-key", "k1")], None)
        };
        let (first, second) = (run().await.expect(202).json, run().await.expect(202).json);
        assert_eq!(first["id"], second["id"]);
        blog.admin.post("/admin/v1/jobs/blog/nothing/run").await.expect(404);
        blog.admin.post("/admin/v1/jobs/nobody/post_publisher/run").await.expect(404);
    }
}

#[tokio::test]
async fn a_disabled_job_is_listed_as_such_and_cannot_be_run() {
    let home = Home::embedded();
    let blog = Process::start(BLOG, &home, &[("POST_PUBLISHER_ENABLED", "false")]).ready().await;
    let job = eventually("the job", async || {
        let jobs = blog.admin.get("/admin/v1/jobs").await.json;
        (jobs["items"][0]["enabled_replicas"] == "0/1").then(|| jobs["items"][0].clone())
    })
    .await;
    assert_eq!((&job["enabled"], &job["next_run_at"]), (&json!(false), &json!(null)));
    blog.admin.post(&format!("{JOB}/run")).await.expect(409);
    blog.admin
        .post_json(&format!("{JOB}/backfill"), &json!({ "from": in_ms(-9_000), "to": in_ms(-1) }))
        .await
        .expect(409);
}

#[tokio::test]
async fn a_page_in_a_browser_may_not_use_the_operations_listener() {
    let home = Home::embedded();
    let blog = blog(&home).await;
    let ask = |headers: &'static [(&'static str, &'static str)]| {
        blog.admin.send(Method::GET, "/admin/v1/jobs", headers, None)
    };
    ask(&[]).await.expect(200);
    ask(&[("sec-fetch-site", "none")]).await.expect(200);
    ask(&[("sec-fetch-site", "cross-site")]).await.expect(403);
    ask(&[("sec-fetch-site", "same-site")]).await.expect(403);
    ask(&[("origin", "https://evil.example")]).await.expect(403);
    ask(&[("host", "evil.example")]).await.expect(403);
    blog.admin.send(Method::GET, "/healthz", &[("host", "10.0.0.7:9081")], None).await.expect(200);
}

#[tokio::test]
async fn a_token_is_asked_for_where_one_is_set() {
    let home = Home::embedded();
    let blog = Process::start(BLOG, &home, &[("ADMIN_TOKEN", "let-me-in")]).ready().await;
    let ask =
        async |token: &str| blog.admin.send(Method::GET, "/admin/v1/jobs", &[("authorization", token)], None).await;
    let refused = blog.admin.get("/admin/v1/jobs").await.expect(401);
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    ask("Bearer let-me-out").await.expect(401);
    ask("Basic let-me-in").await.expect(401);
    ask("Bearer let-me-in").await.expect(200);
    blog.admin.get("/readyz").await.expect(200);
    assert!(!blog.said().contains("let-me-in"));
}

#[tokio::test]
async fn a_caller_over_its_rate_is_told_when_to_come_back() {
    let home = Home::embedded();
    let blog = Process::start(BLOG, &home, &[("RATE_LIMIT_RPS", "5")]).ready().await;
    let mut last = blog.api.get("/api/blog/tags").await;
    for _ in 0..20 {
        last = blog.api.get("/api/blog/tags").await;
    }
    assert_eq!((last.status, last.header("retry-after")), (429, "1"));
}

#[tokio::test]
async fn metrics_have_the_names_that_alerts_know() {
    let home = Home::embedded();
    let blog = blog(&home).await;
    let post = made(&blog, json!({ "title": "Counted", "published_at": in_ms(-1) })).await;
    let text = eventually("the pass to be counted", async || {
        let published = blog.api.get(&at(&post)).await.json["status"] == "published";
        let text = blog.admin.get("/metrics").await.expect(200).text;
        (published && text.contains("kafka_messages_produced_total") && text.contains("background_job_items_total"))
            .then_some(text)
    })
    .await;
    for name in [
        "background_job_executions_total",
        "background_job_duration_seconds",
        "http_requests_total",
        "http_request_duration_seconds",
        "scheduler_due_lateness_seconds",
        "outbox_pending",
    ] {
        assert!(text.contains(name), "{name} is missing");
    }
    assert!(text.contains("service=\"blog\"") && text.contains("job=\"post_publisher\""));
}

#[tokio::test]
async fn every_route_is_in_the_document_of_its_listener() {
    let home = Home::embedded();
    let blog = blog(&home).await;
    let public = blog.api.get("/openapi.json").await.expect(200).json;
    assert_eq!(public["openapi"], "3.1.0");
    for path in ["/api/blog/posts", "/api/blog/posts/{id}/publish", "/api/blog/feed.atom", "/api/blog/categories/{id}"]
    {
        assert!(public["paths"][path].is_object(), "{path}");
    }
    let operations = blog.admin.get("/openapi.json").await.expect(200).json;
    assert!(operations["paths"]["/admin/v1/jobs/{service}/{job}/why"].is_object());
    let page = blog.api.get("/docs/").await.expect(200);
    assert!(!page.text.contains("https://"), "the page needs no outside network");
}
