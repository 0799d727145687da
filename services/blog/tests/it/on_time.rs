//! The main job: a post scheduled for a moment is published at that moment, once.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use test_kit::{Home, Process, Recorded, eventually};

use crate::{BLOG, at, blog, in_ms, made, plain};

/// Only the due-precise wake-up can publish in time with this.
const RARELY: &[(&str, &str)] = &[("POST_PUBLISHER_INTERVAL", "24h")];

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().and_then(|text| text.parse().ok()).expect("a time")
}

async fn published(blog: &Process, post: &Value) -> Value {
    eventually("the post to be published", async || {
        let now = blog.api.get(&at(post)).await.json;
        (now["status"] == "published").then_some(now)
    })
    .await
}

#[tokio::test]
async fn a_scheduled_post_is_published_within_milliseconds_and_keeps_its_planned_moment() {
    for home in Home::both().await {
        let blog = Process::start(BLOG, &home, RARELY).ready().await;
        let planned = in_ms(1_500);
        let post = made(&blog, json!({ "title": "On time", "published_at": planned })).await;
        assert_eq!((&post["status"], &post["scheduled"]), (&json!("draft"), &json!(true)));
        let after = published(&blog, &post).await;
        assert_eq!(time(&after["published_at"]), time(&json!(planned)), "the plan is kept");
        let late = time(&after["updated_at"]) - time(&json!(planned));
        assert!(late >= TimeDelta::zero() && late < TimeDelta::milliseconds(250), "{late} on {}", home.name);
    }
}

#[tokio::test]
async fn two_hundred_posts_are_published_in_time_also_on_a_busy_machine() {
    for home in Home::both().await {
        let blog = Process::start(BLOG, &home, RARELY).ready().await;
        let mut posts = Vec::new();
        for number in 0..200 {
            let at = in_ms(2_000);
            posts.push(made(&blog, json!({ "title": format!("Post {number}"), "published_at": at })).await);
        }
        let mut late = Vec::new();
        for post in &posts {
            let after = published(&blog, post).await;
            late.push(
                (time(&after["updated_at"]) - time(&post["published_at"])).num_microseconds().expect("it is small"),
            );
        }
        late.sort_unstable();
        assert!(late[0] >= 0, "none before its moment");
        // The machine is shared with other tests: the figure proper is in the benchmarks.
        let (middle, p99) = (late[100], late[197]);
        assert!(middle < 50_000, "p50 {middle} µs on {}", home.name);
        assert!(p99 < 250_000, "p99 {p99} µs on {}", home.name);
    }
}

#[tokio::test]
async fn the_event_tells_the_planned_moment_and_when_it_took_effect() {
    let home = Home::servers().await;
    let mut events = Recorded::of(&["blog.post.scheduled.published", "blog.post.published"]).await;
    let blog = Process::start(BLOG, &home, RARELY).ready().await;
    let planned = in_ms(500);
    let post = made(&blog, json!({ "title": "Told", "published_at": planned })).await;
    let key = post["id"].as_str().expect("an id");
    events.until(Duration::from_secs(20), |all| all.iter().filter(|message| message.key == key).count() >= 2).await;
    let told = events.by_key().remove(key).expect("events of the post");
    let event = told.iter().find(|event| event.event_type == "blog.post.scheduled.published").expect("the event");
    assert_eq!(event.source, "blog-service");
    assert_eq!(event.data["post_id"], key);
    assert_eq!(time(&event.data["scheduled_at"]), time(&json!(planned)));
    assert!(time(&event.data["published_at"]) >= time(&json!(planned)));
    let again = events.settled().await.iter().filter(|message| message.key == key).count();
    assert_eq!(again, 2, "each is said once");
}

#[tokio::test]
async fn another_replica_publishes_in_time_what_this_one_was_told() {
    let home = Home::servers().await;
    let told = Process::start(BLOG, &home, &[("POST_PUBLISHER_ENABLED", "false")]).ready().await;
    let works = Process::start(BLOG, &home, RARELY).ready().await;
    let post = made(&told, json!({ "title": "Elsewhere", "published_at": in_ms(1_000) })).await;
    let after = published(&works, &post).await;
    let late = time(&after["updated_at"]) - time(&post["published_at"]);
    assert!(late < TimeDelta::milliseconds(250), "{late}");
}

#[tokio::test]
async fn what_one_replica_records_leaves_at_once_by_the_relay_of_another() {
    let home = Home::servers().await;
    let mut events = Recorded::of(&["blog.post.created"]).await;
    let relays = blog(&home).await;
    let records = blog(&home).await;
    for replica in [&relays, &records, &relays, &records] {
        let post = made(replica, plain("Heard")).await;
        let (key, began) = (post["id"].as_str().expect("an id"), std::time::Instant::now());
        events.until(Duration::from_secs(20), |all| all.iter().any(|message| message.key == key)).await;
        assert!(began.elapsed() < Duration::from_secs(3), "without a bell it is 5 s: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_post_that_was_due_while_nobody_ran_is_published_at_the_start() {
    for home in Home::both().await {
        let before = Process::start(BLOG, &home, &[("POST_PUBLISHER_ENABLED", "false")]).ready().await;
        let post = made(&before, json!({ "title": "Missed", "published_at": in_ms(-60_000) })).await;
        drop(before);
        let after = blog(&home).await;
        published(&after, &post).await;
    }
}

#[tokio::test]
async fn an_author_who_takes_the_plan_away_wins() {
    for home in Home::both().await {
        let blog = Process::start(BLOG, &home, RARELY).ready().await;
        let post = made(&blog, json!({ "title": "No", "published_at": in_ms(400) })).await;
        blog.api.post(&format!("{}/unschedule", at(&post))).await.expect(200);
        let marker = made(&blog, json!({ "title": "Marker", "published_at": in_ms(900) })).await;
        published(&blog, &marker).await;
        let after = blog.api.get(&at(&post)).await.json;
        assert_eq!((&after["status"], &after["published_at"]), (&json!("draft"), &Value::Null));
    }
}

#[tokio::test]
async fn unpublished_and_restored_posts_do_not_come_back_by_themselves() {
    for home in Home::both().await {
        let blog = Process::start(BLOG, &home, RARELY).ready().await;
        let post = made(&blog, json!({ "title": "Back", "published_at": in_ms(-1) })).await;
        published(&blog, &post).await;
        blog.api.post(&format!("{}/unpublish", at(&post))).await.expect(200);
        let deleted = made(&blog, json!({ "title": "Gone", "published_at": in_ms(300) })).await;
        blog.api.delete(&at(&deleted)).await.expect(204);
        let marker = made(&blog, json!({ "title": "Marker", "published_at": in_ms(600) })).await;
        published(&blog, &marker).await;
        let restored = blog.api.post(&format!("{}/restore", at(&deleted))).await.expect(200).json;
        assert_eq!((&restored["scheduled"], &restored["published_at"]), (&json!(false), &Value::Null));
        let marker = made(&blog, json!({ "title": "Second marker", "published_at": in_ms(300) })).await;
        published(&blog, &marker).await;
        for post in [&post, &deleted] {
            assert_eq!(blog.api.get(&at(post)).await.json["status"], "draft", "{}", home.name);
        }
    }
}

#[tokio::test]
async fn a_plan_can_be_moved_and_an_offset_is_understood() {
    let home = Home::embedded();
    let blog = Process::start(BLOG, &home, RARELY).ready().await;
    let post = made(&blog, plain("Moved")).await;
    let plan = json!({ "published_at": in_ms(3_600_000) });
    let first = blog.api.post_json(&format!("{}/schedule", at(&post)), &plan).await.expect(200).json;
    assert_eq!(first["scheduled"], true);
    let soon = crate::now() + TimeDelta::milliseconds(700);
    let offset = soon.with_timezone(&chrono::FixedOffset::east_opt(5 * 3600 + 1800).expect("an offset"));
    let moved = json!({ "published_at": offset.to_rfc3339() });
    let second = blog.api.post_json(&format!("{}/schedule", at(&post)), &moved).await.expect(200).json;
    assert!(second["published_at"].as_str().expect("a time").ends_with('Z'), "UTC is answered");
    published(&blog, &post).await;
}
