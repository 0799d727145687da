//! Starting and stopping: what is refused, what is finished, what is left for the next.

use std::{process::Command, time::Duration};

use serde_json::json;
use sqlx::Connection;
use test_kit::{Home, Process, Signal, eventually};

use crate::{BLOG, blog, in_ms, made};

fn run(args: &[&str], vars: &[(&str, &str)]) -> (i32, String) {
    let output = Command::new(BLOG).args(args).env_clear().envs(vars.iter().copied()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("a code"), said)
}

#[test]
fn every_error_of_the_configuration_is_told_at_once_and_nothing_is_touched() {
    let vars = [
        ("POST_PUBLISHER_INTERVAL", "5"),
        ("POST_PUBLISHER_ENABLD", "true"),
        ("HTTP_ADDR", "nope"),
        ("DATABASE_URL", "mysql://root:geheim@host/db"),
        ("RATE_LIMIT_RPS", "many"),
        ("BLOG_FEED_POSTS", "0"),
    ];
    let (code, said) = run(&["serve"], &vars);
    assert_eq!(code, 78, "{said}");
    for variable in vars.iter().map(|(name, _)| *name).chain(["KAFKA_BROKERS"]) {
        assert!(said.contains(variable), "{variable} is missing in:\n{said}");
    }
    assert!(!said.contains("geheim"), "the password is told:\n{said}");
}

#[test]
fn a_public_address_needs_an_explicit_word_about_who_may_use_it() {
    let vars = [("HTTP_ADDR", "0.0.0.0:0"), ("ADMIN_ADDR", "0.0.0.0:0")];
    let (code, said) = run(&["serve", "--embedded"], &vars);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("AUTH_ENABLED") && said.contains("ADMIN_TOKEN"), "{said}");
}

#[test]
fn what_kubernetes_puts_into_the_environment_is_ignored() {
    let vars = [("BLOG_SERVICE_HOST", "10.0.0.1"), ("BLOG_PORT_80_TCP", "tcp://10.0.0.1:80"), ("BLOG_PORT", "x")];
    let (code, said) = run(&["config", "--embedded"], &vars);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_service_without_its_tables_waits_for_whoever_makes_them_and_says_so() {
    let url = test_kit::database().await;
    let home = Home::at(Some(&url), Some(&test_kit::kafka()));
    let blog = Process::deployed(BLOG, &home, &[]);
    let why = eventually("it says what is missing", async || {
        let ready = blog.admin.get("/readyz").await;
        (ready.status == 503 && ready.text.contains("belfry migrate")).then_some(ready.text)
    })
    .await;
    assert!(!why.contains("postgres://"), "{why}");
    let mut rows = sqlx::PgConnection::connect(&url).await.expect("the database answers");
    let touched = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    let touched: i64 = sqlx::query_scalar(touched).fetch_one(&mut rows).await.expect("a count");
    assert_eq!(touched, 0, "it looks and touches nothing");
    blog.api.get("/api/blog/posts").await.expect(503);
    let (code, said) = run(&["migrate"], &[("DATABASE_URL", &url)]);
    assert_eq!(code, 0, "{said}");
    let blog = blog.ready().await;
    blog.api.get("/api/blog/posts").await.expect(200);
    let post = made(&blog, json!({ "title": "At last", "published_at": in_ms(300) })).await;
    eventually("its schedule runs", async || {
        (blog.api.get(&crate::at(&post)).await.json["status"] == "published").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_container_is_told_whether_it_is_ready() {
    let home = Home::embedded();
    let blog = blog(&home).await;
    assert_eq!(run(&["healthcheck"], &[("ADMIN_ADDR", &blog.admin_address)]).0, 0);
    let address = blog.admin_address.clone();
    drop(blog);
    assert_eq!(run(&["healthcheck"], &[("ADMIN_ADDR", &address)]).0, 1);
}

#[test]
fn a_command_that_is_not_one_is_a_usage_error() {
    assert_eq!(run(&["dance"], &[]).0, 2);
}

#[tokio::test]
async fn a_second_process_on_the_same_files_is_refused_and_told_who_has_them() {
    let home = Home::embedded();
    let first = blog(&home).await;
    let folder = home.folder().to_string_lossy();
    let (code, said) = run(
        &["serve", "--embedded", "--data-dir", &folder],
        &[("HTTP_ADDR", "127.0.0.1:0"), ("ADMIN_ADDR", "127.0.0.1:0")],
    );
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("process {}", first.id())), "{said}");
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_pass_is_quick_and_the_next_start_does_the_rest() {
    let home = Home::servers().await;
    let off = Process::start(BLOG, &home, &[("POST_PUBLISHER_ENABLED", "false")]).ready().await;
    made(&off, json!({ "title": "First" })).await;
    seed(&home, 20_000).await;
    drop(off);
    let mut first = Process::start(BLOG, &home, &[]);
    eventually("the pass to begin", async || (published(&home).await > 0).then_some(())).await;
    first.signal(Signal::Terminate);
    let status = first.ended(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", first.said());
    let after = published(&home).await;
    let events = count(&home, "SELECT count(*) FROM outbox WHERE topic = 'blog.post.scheduled.published'").await;
    assert_eq!(after, events, "nothing half done: a post and its event are one");
    let _second = Process::start(BLOG, &home, &[]).ready().await;
    eventually("the rest", async || (published(&home).await == 20_000).then_some(())).await;
}

#[tokio::test]
async fn a_stop_without_work_takes_a_moment_and_ends_with_zero() {
    for home in Home::both().await {
        let mut blog = blog(&home).await;
        made(&blog, json!({ "title": "Later", "published_at": in_ms(60_000) })).await;
        blog.signal(Signal::Terminate);
        let began = std::time::Instant::now();
        assert_eq!(blog.ended(Duration::from_secs(8)).code(), Some(0), "{}", blog.said());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?} on {}", began.elapsed(), home.name);
    }
}

/// Puts due drafts beside the service, as fast as the database takes them.
pub(crate) async fn seed(home: &Home, posts: i32) {
    let mut rows = home.rows("blog").await;
    let insert = "INSERT INTO posts (id, title, slug, content, html, status, featured, seo, reading_time, published_at, due_at, \
        version, created_at, updated_at) SELECT gen_random_uuid(), 'Post ' || n, 'seed-' || n, 'text', '<p>text</p>', 'draft', \
        false, '{}', 1, now(), now(), 1, now(), now() FROM generate_series(1, $1) n";
    sqlx::query(insert).bind(posts).execute(&mut rows).await.expect("posts can be put in");
}

/// One number.
pub(crate) async fn count(home: &Home, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(&mut home.rows("blog").await).await.expect("an answer")
}

async fn published(home: &Home) -> i64 {
    count(home, "SELECT count(*) FROM posts WHERE status = 'published'").await
}
