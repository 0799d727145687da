//! Every service in one process.

use std::time::Duration;

use sea_orm::ConnectionTrait;
use test_kit::{Home, Process, Signal};

use crate::{BELFRY, published, run, up};

#[tokio::test]
async fn a_post_is_published_on_time_and_its_event_is_there_on_embedded_defaults_and_on_servers() {
    for home in Home::both().await {
        let mut platform = up(&home, &[("POST_PUBLISHER_INTERVAL", "24h")]).await;
        let id = published(&platform, "On time", 1_500).await;
        let runs = platform.admin.get("/admin/v1/jobs/blog/post_publisher/runs").await.expect(200).json;
        let due = runs["items"].as_array().expect("runs").iter().find(|run| run["wake_source"] == "due");
        let late = due.expect("it was due")["lateness_ms"].as_i64().expect("lateness");
        assert!(late < 250, "{late} ms late on {}", home.name);
        let path = format!("/admin/v1/events?type=blog.post.scheduled.published&key={id}&since=2000-01-01T00:00:00Z");
        let events = platform.admin.get(&path).await.expect(200).json;
        assert_eq!(events["items"].as_array().expect("events").len(), 1);
        platform.signal(Signal::Terminate);
        assert!(platform.ended(Duration::from_secs(25)).success(), "{}", platform.said());
        assert!(platform.said().contains("stopped"), "one line says how it went");
    }
}

#[tokio::test]
async fn what_was_planned_before_a_crash_is_done_after_it() {
    for home in Home::both().await {
        let platform = up(&home, &[("POST_PUBLISHER_ENABLED", "false")]).await;
        let post = serde_json::json!({ "title": "Later", "published_at": "2100-01-01T00:00:00Z" });
        let post = platform.api.post_json("/api/blog/posts", &post).await.expect(201).json;
        let soon = serde_json::json!({ "published_at": soon() });
        let path = format!("/api/blog/posts/{}", post["id"].as_str().expect("an id"));
        platform.api.post_json(&format!("{path}/schedule"), &soon).await.expect(200);
        platform.signal(Signal::Kill);
        drop(platform);
        let platform = up(&home, &[]).await;
        test_kit::eventually("it is published", async || {
            (platform.api.get(&path).await.json["status"] == "published").then_some(())
        })
        .await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the test plans for the real clock")]
fn soon() -> String {
    (chrono::Utc::now() + chrono::TimeDelta::milliseconds(700)).to_rfc3339()
}

#[tokio::test]
async fn a_second_platform_on_the_same_files_is_refused() {
    let home = Home::embedded();
    let _first = up(&home, &[]).await;
    let folder = home.folder().to_string_lossy().into_owned();
    let vars = [("HTTP_ADDR", "127.0.0.1:0"), ("ADMIN_ADDR", "127.0.0.1:0")];
    let second = run(&["up", "--data-dir", &folder], &vars);
    assert_eq!(second.code, 1, "{} {}", second.out, second.err);
}

#[tokio::test]
async fn a_second_platform_on_the_same_database_without_kafka_is_refused() {
    let url = test_kit::database().await;
    let home = Home::at(Some(&url), None);
    let first = up(&home, &[]).await;
    let folder = Home::embedded();
    let vars = [("HTTP_ADDR", "127.0.0.1:0"), ("ADMIN_ADDR", "127.0.0.1:0"), ("DATABASE_URL", url.as_str())];
    let second = run(&["up", "--data-dir", &folder.folder().to_string_lossy()], &vars);
    assert_eq!(second.code, 78, "{} {}", second.out, second.err);
    assert!(second.err.contains("KAFKA_BROKERS"), "{}", second.err);
    drop(first);
    // The lock is the first one's session; the server ends it when it sees that its client is gone.
    let db = sea_orm::Database::connect(url.as_str()).await.expect("the database");
    test_kit::eventually("the session of the first to end", async || {
        let others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let other = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, others);
        db.query_one_raw(other).await.expect("it answers").is_none().then_some(())
    })
    .await;
    up(&home, &[]).await;
}

#[tokio::test]
async fn only_the_services_that_are_named_run() {
    let home = Home::embedded();
    let refused = run(&["up", "--services", "blog,bells", "--data-dir", &home.folder().to_string_lossy()], &[]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("bells") && refused.err.contains("blog"), "{}", refused.err);
}

#[test]
fn errors_of_the_configuration_end_with_78_and_all_of_them() {
    let vars = [("POST_PUBLISHER_CRON", "61 * * * *"), ("SHUTDOWN_GRACE", "soon"), ("ADMIN_ADDR", "9080")];
    for command in ["up", "config", "migrate"] {
        let said = run(&[command], &vars);
        assert_eq!(said.code, 78, "{command}: {}", said.err);
        for (name, value) in vars {
            assert!(said.err.contains(name) && said.err.contains(value), "{command}: {}", said.err);
        }
    }
}

#[test]
fn the_effective_configuration_is_shown_without_secrets() {
    let vars =
        [("DATABASE_URL", "postgres://me:geheim@127.0.0.1/db"), ("ADMIN_TOKEN", "geheim-und-lang-genug-0123456789")];
    let said = run(&["config"], &vars);
    let shown = said.words();
    assert!(shown.contains("127.0.0.1/db") && shown.contains("ADMIN_TOKEN = (set)"), "{shown}");
    assert!(!shown.contains("geheim"), "{shown}");
}

#[tokio::test]
async fn the_schema_is_not_touched_unless_asked_and_asking_twice_changes_nothing() {
    let url = test_kit::database().await;
    let vars = [("DATABASE_URL", url.as_str())];
    for _ in 0..2 {
        let said = run(&["migrate"], &vars);
        assert_eq!(said.code, 0, "{} {}", said.out, said.err);
    }
    let platform = Process::platform(BELFRY, &Home::at(Some(&url), None), &[]).ready().await;
    platform.api.get("/api/blog/posts").await.expect(200);
}
