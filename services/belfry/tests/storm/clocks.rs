//! Clocks of replicas that are wrong: hours off, stepped to and fro, across changes of daylight-saving time.

use std::time::{Duration, Instant};

use sqlx::{Executor, Row};
use test_kit::{Home, Process, Signal, eventually_within};

use crate::{BELFRY, audit, lasts, long, tell};

const PATIENCE: Duration = Duration::from_secs(120);
/// What the clock of the third replica is set to, one after the other: hours off, and moments at which clocks change in
/// Berlin (the process lives there).
const STEPS: &[&str] = &[
    "+0",
    "+3h",
    "-9h",
    "@2026-03-29 01:59:55",
    "@2026-10-25 02:59:55",
    "+400d",
    "-25h",
    "@2026-10-25 01:00:01",
    "+1m",
    "-1m",
];

fn faketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").expect("libraries").flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|file| file.exists());
    found.expect("libfaketime: run the tests with `make test`").to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_clocks_of_replicas_make_nothing_late_early_or_twice() {
    let _alone = crate::ALONE.write().await;
    let home = Home::servers().await;
    let (library, folder) = (faketime(), tempfile::tempdir().expect("a folder"));
    let file = folder.path().join("time");
    let set = |step: &str| {
        // Written whole, for it is read at any moment.
        let next = file.with_extension("next");
        std::fs::write(&next, step).and_then(|()| std::fs::rename(&next, &file)).expect("it can be written");
    };
    set("+0");
    let file_name = file.to_string_lossy().into_owned();
    let off = |by: &'static str| {
        vec![
            ("POST_PUBLISHER_INTERVAL", "1s"),
            ("TZ", "Europe/Berlin"),
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            if by.is_empty() { ("FAKETIME_TIMESTAMP_FILE", file_name.as_str()) } else { ("FAKETIME", by) },
            ("FAKETIME_CACHE_DURATION", "1"),
        ]
    };
    let first = Process::platform(BELFRY, &home, &off("+5h")).ready().await;
    let (second, third) = (Process::platform(BELFRY, &home, &off("-7h")), Process::platform(BELFRY, &home, &off("")));
    let replicas = [first, second.ready().await, third.ready().await];
    let rounds = if long() { 60 } else { 10 };
    let mut posts = 0_i64;
    for round in 0..rounds {
        set(STEPS[round % STEPS.len()]);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1_200) {
            let replica = &replicas[usize::try_from(posts).expect("it is small") % 3];
            #[expect(clippy::disallowed_methods, reason = "the post is planned for the real clock")]
            let due = chrono::Utc::now() + chrono::TimeDelta::milliseconds(700);
            let post = serde_json::json!({ "title": format!("Clock {posts}"), "published_at": due.to_rfc3339() });
            replica.api.post_json("/api/blog/posts", &post).await.expect(201);
            posts += 1;
            lasts(Duration::from_millis(250)).await;
        }
    }
    let mut rows = home.rows("blog").await;
    eventually_within(PATIENCE, "all posts to be published", async || {
        let text = "SELECT count(*) FROM posts WHERE status = 'published' AND version = 2";
        let row = rows.fetch_one(text).await.expect("a count");
        (row.get::<i64, _>(0) == posts).then_some(())
    })
    .await;
    // By the database's clock alone: when it was written, against when it was due.
    let text = "SELECT coalesce(max(extract(epoch FROM updated_at - published_at)), 0)::float8,
            coalesce(min(extract(epoch FROM updated_at - published_at)), 0)::float8 FROM posts";
    let row = rows.fetch_one(text).await.expect("figures");
    let (latest, earliest): (f64, f64) = (row.get(0), row.get(1));
    assert!(earliest >= 0.0, "published {earliest} s before its time");
    assert!(latest < 6.0, "published {latest} s late: more than a sweep");
    // Under libfaketime the Kafka client spins in its waits and delivers next to nothing: what is left is for one with a
    // right clock.
    drop(replicas);
    let mut last = Process::platform(BELFRY, &home, &[("POST_PUBLISHER_INTERVAL", "1s")]);
    eventually_within(PATIENCE, "all events to leave", async || {
        let row = rows.fetch_one("SELECT count(*) FROM outbox_waiting").await.expect("a count");
        (row.get::<i64, _>(0) == 0).then_some(())
    })
    .await;
    last.signal(Signal::Terminate);
    assert!(last.ended(Duration::from_secs(30)).success(), "{}", last.said());
    let (clean, table) = audit(&home, false);
    assert!(clean, "{table}");
    tell(&format!("{rounds} steps of clocks, {posts} posts, the latest {latest:.3} s late"));
}
