//! Several replicas, killed and frozen: every post once, every event once.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use broker::Message;
use events::Event;
use serde_json::json;
use test_kit::{Home, Process, Recorded, Signal, eventually_within};

use crate::{
    BLOG,
    lifecycle::{count, seed},
    made,
};

const SCHEDULED: &str = "blog.post.scheduled.published";
const LONG: Duration = Duration::from_secs(120);

/// The ids of the events of each key.
fn ids(messages: &[Message]) -> HashMap<String, HashSet<uuid::Uuid>> {
    let mut ids: HashMap<String, HashSet<uuid::Uuid>> = HashMap::new();
    for message in messages {
        let event = Event::from_json(&message.body).expect("an event");
        ids.entry(message.key.clone()).or_default().insert(event.id);
    }
    ids
}

async fn keys(home: &Home) -> HashSet<String> {
    let rows: Vec<(uuid::Uuid,)> =
        sqlx::query_as("SELECT id FROM posts").fetch_all(&mut home.rows("blog").await).await.expect("posts");
    rows.into_iter().map(|(id,)| id.to_string()).collect()
}

async fn prepared(posts: i32) -> (Home, Recorded) {
    let home = Home::servers().await;
    let events = Recorded::of(&[SCHEDULED]).await;
    let off = Process::start(BLOG, &home, &[("POST_PUBLISHER_ENABLED", "false")]).ready().await;
    drop(off);
    seed(&home, posts).await;
    (home, events)
}

#[tokio::test]
async fn three_replicas_killed_at_random_publish_each_of_ten_thousand_posts_once() {
    const POSTS: i32 = 10_000;
    let (home, mut events) = prepared(POSTS).await;
    let mut replicas: Vec<Process> =
        (0..3).map(|_| Process::start(BLOG, &home, &[("POST_PUBLISHER_INTERVAL", "1s")])).collect();
    for kill in 0..8_usize {
        let _pause = tokio::time::timeout(Duration::from_millis(400), std::future::pending::<()>()).await;
        let victim = (kill * 7 + 3) % replicas.len();
        replicas[victim].signal(Signal::Kill);
        replicas[victim].ended(Duration::from_secs(5));
        replicas[victim] = Process::start(BLOG, &home, &[("POST_PUBLISHER_INTERVAL", "1s")]);
    }
    eventually_within(LONG, "all posts to be published", async || {
        (count(&home, "SELECT count(*) FROM posts WHERE status = 'published'").await == i64::from(POSTS)).then_some(())
    })
    .await;
    let ours = keys(&home).await;
    let mine = |all: &[Message]| all.iter().filter(|message| ours.contains(&message.key)).cloned().collect::<Vec<_>>();
    events.until(LONG, |all| ids(&mine(all)).len() >= ours.len()).await;
    let said = ids(&mine(events.settled().await));
    assert_eq!(said.len(), ours.len(), "every post was said");
    assert!(said.values().all(|ids| ids.len() == 1), "exactly one event id for each");
    assert_eq!(count(&home, "SELECT count(*) FROM posts WHERE version <> 2").await, 0, "each was written once");
    let doubled = "SELECT count(*) FROM (SELECT run_key FROM job_runs WHERE run_key LIKE 'tick:%' GROUP BY job, run_key HAVING count(*) > 1) d";
    assert_eq!(count(&home, doubled).await, 0, "no instant has two runs");
}

#[tokio::test]
async fn a_frozen_replica_that_wakes_after_its_lease_changes_nothing() {
    let (home, mut events) = prepared(3_000).await;
    let sleeper = Process::start(BLOG, &home, &[]);
    eventually_within(LONG, "it to begin", async || {
        (count(&home, "SELECT count(*) FROM posts WHERE status = 'published'").await > 0).then_some(())
    })
    .await;
    sleeper.signal(Signal::Freeze);
    let other = Process::start(BLOG, &home, &[]);
    eventually_within(LONG, "the other to do the rest", async || {
        (count(&home, "SELECT count(*) FROM posts WHERE status = 'published'").await == 3_000).then_some(())
    })
    .await;
    // Longer than the lease of a run, so that the sleeper's is taken over.
    eventually_within(LONG, "the sleeper's run to be ended by the other", async || {
        (count(&home, "SELECT count(*) FROM job_runs WHERE state = 'running'").await == 0).then_some(())
    })
    .await;
    sleeper.signal(Signal::Thaw);
    made(&other, json!({ "title": "Goes on" })).await;
    let ours = keys(&home).await;
    let mine = |all: &[Message]| all.iter().filter(|message| ours.contains(&message.key)).cloned().collect::<Vec<_>>();
    events.until(LONG, |all| ids(&mine(all)).len() >= 3_000).await;
    let said = ids(&mine(events.settled().await));
    assert!(said.values().all(|ids| ids.len() == 1), "one event id for each post");
    assert_eq!(count(&home, "SELECT count(*) FROM posts WHERE status = 'published' AND version <> 2").await, 0);
}

#[tokio::test]
async fn twenty_five_thousand_due_posts_are_published_by_one_pass_in_bounded_memory() {
    let (home, mut events) = prepared(25_000).await;
    let blog = Process::start(BLOG, &home, &[]).ready().await;
    let began = std::time::Instant::now();
    eventually_within(LONG, "all posts to be published", async || {
        (count(&home, "SELECT count(*) FROM posts WHERE status = 'published'").await == 25_000).then_some(())
    })
    .await;
    let took = began.elapsed();
    let ours = keys(&home).await;
    events.until(LONG, |all| all.iter().filter(|message| ours.contains(&message.key)).count() >= 25_000).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", blog.id())).expect("its status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak_kib < 300_000, "{peak_kib} KiB after 25,000 posts in {took:?}");
}
