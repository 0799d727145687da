//! The database or the broker is away: clear answers in time, nothing lost, back without a restart.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use broker::{Broker, KafkaBroker, KafkaConfig, Start};
use serde_json::json;
use test_kit::{Home, Network, Process, Proxy, Server, eventually_within};

use crate::{
    BLOG, at, blog, in_ms,
    lifecycle::{count, seed},
    made, plain,
};

/// An answer to a request while the database is away comes within this.
const PROMPT: Duration = Duration::from_secs(5);

async fn refused_in_time(blog: &Process) {
    for path in ["/api/blog/posts", "/api/blog/posts/by-slug/x", "/api/blog/feed.atom"] {
        let began = Instant::now();
        let answer = blog.api.get(path).await.expect(503);
        assert!(began.elapsed() < PROMPT, "{path} after {:?}", began.elapsed());
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(answer.header("retry-after").parse::<u32>().is_ok());
    }
    let began = Instant::now();
    blog.api.post_json("/api/blog/posts", &plain("Nowhere")).await.expect(503);
    assert!(began.elapsed() < PROMPT, "after {:?}", began.elapsed());
    eventually_within(PROMPT, "not ready", async || (blog.admin.get("/readyz").await.status == 503).then_some(()))
        .await;
    blog.admin.get("/healthz").await.expect(200);
}

async fn back_in_time(blog: &Process) {
    eventually_within(PROMPT, "answers again", async || {
        (blog.api.get("/api/blog/posts").await.status == 200).then_some(())
    })
    .await;
}

async fn published_by_its_schedule(blog: &Process, title: &str) {
    let post = made(blog, json!({ "title": title, "published_at": in_ms(1_500) })).await;
    eventually_within(Duration::from_secs(10), "the schedule goes on", async || {
        (blog.api.get(&at(&post)).await.json["status"] == "published").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_database_that_crashes_is_answered_for_in_time_and_its_return_noticed() {
    let mut server = Server::postgres();
    server.start().await;
    let url = format!("postgres://postgres@{}/postgres", server.address());
    let mut blog = blog(&Home::at(Some(&url), None)).await;
    published_by_its_schedule(&blog, "Before").await;
    server.kill();
    refused_in_time(&blog).await;
    server.start().await;
    back_in_time(&blog).await;
    published_by_its_schedule(&blog, "After").await;
    blog.signal(test_kit::Signal::Terminate);
    assert!(blog.ended(Duration::from_secs(25)).success());
}

#[tokio::test]
async fn a_database_that_is_away_at_the_start_is_waited_for() {
    let mut server = Server::postgres();
    let url = format!("postgres://postgres@{}/postgres", server.address());
    let blog = Process::start(BLOG, &Home::at(Some(&url), None), &[]);
    refused_in_time(&blog).await;
    server.start().await;
    back_in_time(&blog).await;
    let blog = blog.ready().await;
    published_by_its_schedule(&blog, "At last").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fall_silent_hold_nobody_up_and_are_replaced() {
    let url = test_kit::database().await;
    let (server, name) = {
        let rest = url.split_once('@').expect("a user").1;
        rest.split_once('/').expect("a database")
    };
    let proxy = Proxy::to(server).await;
    let through = format!("postgres://postgres@{}/{name}", proxy.address());
    let blog = blog(&Home::at(Some(&through), None)).await;
    published_by_its_schedule(&blog, "Before").await;
    proxy.set(Network::Silent);
    refused_in_time(&blog).await;
    proxy.set(Network::Open);
    back_in_time(&blog).await;
    published_by_its_schedule(&blog, "After").await;
    proxy.set(Network::Cut);
    refused_in_time(&blog).await;
    proxy.set(Network::Open);
    back_in_time(&blog).await;
}

#[tokio::test]
async fn a_broker_that_dies_in_the_middle_of_a_burst_changes_nothing_the_user_sees_and_gets_every_event_later() {
    const POSTS: usize = 25_000;
    let mut kafka = Server::kafka();
    kafka.start().await;
    let url = test_kit::database().await;
    let home = Home::at(Some(&url), Some(&kafka.address()));
    let blog = blog(&home).await;
    seed(&home, i32::try_from(POSTS).expect("a count")).await;
    let published = async || count(&home, "SELECT count(*) FROM posts WHERE status = 'published'").await;
    while published().await == 0 {}
    kafka.kill();
    let post = made(&blog, json!({ "title": "Nobody notices" })).await;
    blog.api.post(&format!("{}/publish", at(&post))).await.expect(200);
    for edit in 0..20 {
        blog.api.patch(&at(&post), &json!({ "title": format!("Edit {edit}") })).await.expect(200);
    }
    while published().await < i64::try_from(POSTS).expect("a count") + 1 {}
    blog.admin.get("/readyz").await.expect(200);
    let waiting = count(&home, "SELECT count(*) FROM outbox_waiting").await;
    assert!(waiting > 0, "the broker is away");
    eventually_within(Duration::from_secs(30), "the metric tells of it", async || {
        let metrics = blog.admin.get("/metrics").await.text;
        let pending = metrics.lines().find(|line| line.starts_with("outbox_pending"))?;
        pending.rsplit(' ').next()?.parse::<f64>().is_ok_and(|pending| pending > 0.0).then_some(())
    })
    .await;
    kafka.start().await;

    let broker = KafkaBroker::new(KafkaConfig::new(&kafka.address())).expect("a client");
    let mut reader = eventually_within(Duration::from_secs(30), "the broker to answer", async || {
        broker.tail(&["blog.post.published", "blog.post.updated"], Start::Earliest).await.ok()
    })
    .await;
    let (mut published, mut edits) = (HashMap::new(), Vec::new());
    let began = Instant::now();
    while published.len() < POSTS + 1 || edits.len() < 20 {
        assert!(began.elapsed() < Duration::from_secs(90), "{} of {}", published.len(), POSTS + 1);
        for message in reader.poll(5_000, Duration::from_millis(500)).await.unwrap_or_default() {
            let event = events::Event::from_json(&message.body).expect("an event");
            if event.event_type == "blog.post.updated" {
                edits.push((event.sequence, event.id));
            } else {
                published.entry(event.subject).or_insert_with(HashSet::new).insert(event.id);
            }
        }
    }
    assert!(published.values().all(|ids| ids.len() == 1), "one id for each");
    // What was sent again stands behind what it repeats; without repetitions the order is that of the edits.
    let mut seen = HashSet::new();
    edits.retain(|edit| seen.insert(*edit));
    assert!(edits.len() == 20 && edits.is_sorted(), "{edits:?}");
}
