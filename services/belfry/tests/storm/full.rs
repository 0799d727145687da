//! What runs full: disks, and an outbox whose broker is away for long.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use test_kit::{Home, Process, Server, Signal, eventually_within};

use crate::{BELFRY, audit, lasts, long, tell};

const PATIENCE: Duration = Duration::from_secs(90);
const VARS: &[(&str, &str)] = &[("POST_PUBLISHER_INTERVAL", "1s")];

/// A small disk in the place of a folder, while it lives.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// `None`: only the superuser may.
    fn over(folder: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size},mode=711");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "belfry-test"]).arg(folder).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self { folder: folder.to_owned() })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).expect("a file");
        let block = vec![0_u8; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("it is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.folder).status());
    }
}

fn post(title: &str) -> serde_json::Value {
    #[expect(clippy::disallowed_methods, reason = "the post is planned for the real clock")]
    let due = chrono::Utc::now() + chrono::TimeDelta::milliseconds(500);
    serde_json::json!({ "title": title, "content": "x".repeat(2_000), "published_at": due.to_rfc3339() })
}

/// Writes posts until `refused` were not acknowledged; the titles that were.
async fn write(process: &Process, kind: &str, count: usize, refused: usize) -> Vec<String> {
    let (mut kept, mut lost) = (Vec::new(), 0);
    for number in 0..count {
        let title = format!("{kind} {number}");
        let began = Instant::now();
        let (body, json) = (post(&title).to_string(), [("content-type", "application/json")]);
        let answer = process.api.try_send(reqwest::Method::POST, "/api/blog/posts", &json, Some(body.as_bytes())).await;
        assert!(began.elapsed() < Duration::from_secs(20), "an answer comes, if not a good one");
        match answer {
            Ok(answer) if answer.status == 201 => kept.push(title),
            Ok(answer) => {
                assert!(answer.status >= 500, "{} {}", answer.status, answer.text);
                lost += 1;
            }
            Err(_) => lost += 1,
        }
        if lost > refused {
            break;
        }
    }
    assert!(refused == 0 || lost > refused, "the disk was full and every post was acknowledged");
    kept
}

/// All acknowledged posts are there and published, once.
async fn all_published(process: &Process, titles: &[String]) {
    eventually_within(PATIENCE, "all acknowledged posts to be published", async || {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = process.api.get(&format!("/api/blog/posts?status=published&limit=100{cursor}")).await;
            let items = page.json["items"].as_array()?.clone();
            found.extend(items.iter().filter_map(|item| item["title"].as_str().map(str::to_owned)));
            match page.json["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        titles.iter().all(|title| found.iter().filter(|found| *found == title).count() == 1).then_some(())
    })
    .await;
}

/// Writes before, while and after the disk is full; `freed` does what an operator does once there is room again. All that was
/// acknowledged is there in the end.
async fn through_a_full_disk(what: &str, disk: &Disk, home: &Home, tries: usize, freed: impl AsyncFnOnce()) {
    let mut process = Process::platform(BELFRY, home, VARS).ready().await;
    let mut kept = write(&process, "before", 30, 0).await;
    disk.fill();
    kept.extend(write(&process, "full", tries, 5).await);
    lasts(Duration::from_secs(3)).await;
    disk.free();
    freed().await;
    assert!(!process.gone(), "it lives:\n{}", process.said());
    eventually_within(PATIENCE, "it to take posts again", async || {
        let answer = process.api.post_json("/api/blog/posts", &post("again")).await;
        (answer.status == 201).then_some(())
    })
    .await;
    kept.extend(write(&process, "after", 30, 0).await);
    all_published(&process, &kept).await;
    process.signal(Signal::Terminate);
    assert!(process.ended(Duration::from_secs(30)).success());
    let (clean, table) = audit(home, true);
    assert!(clean, "{table}");
    tell(&format!("a full disk under {what}: {} posts acknowledged, all there", kept.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_files_refuses_and_loses_nothing() {
    let _alone = crate::ALONE.write().await;
    let home = Home::embedded();
    let Some(disk) = Disk::over(home.folder(), "24m") else {
        return tell("NOT TRIED: a full disk under files, for only the superuser may mount a small one");
    };
    through_a_full_disk("SQLite and the log", &disk, &home, 400, async || {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_postgresql_refuses_and_loses_nothing() {
    let _alone = crate::ALONE.write().await;
    let mut server = Server::durable_postgres();
    let Some(disk) = Disk::over(server.folder(), "300m") else {
        return tell("NOT TRIED: a full disk under PostgreSQL, for only the superuser may mount a small one");
    };
    server.start().await;
    let url = format!("postgres://postgres@{}/postgres", server.address());
    let home = Home::at(Some(&url), None);
    let freed = async || {
        if PgConnection::connect(&url).await.is_err() {
            lasts(Duration::from_secs(2)).await;
        }
        // It may have given up altogether: an operator starts it again.
        if PgConnection::connect(&url).await.is_err() {
            server.kill();
            server.start().await;
        }
    };
    through_a_full_disk("PostgreSQL", &disk, &home, 20_000, freed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_away_for_long_is_told_everything_in_order_and_memory_stays_bounded() {
    let _alone = crate::ALONE.write().await;
    let rows = if long() { 1_000_000 } else { 30_000 };
    let mut kafka = Server::kafka();
    let url = test_kit::database().await;
    let home = Home::at(Some(&url), Some(&kafka.address()));
    let mut process = Process::platform(BELFRY, &home, VARS);
    eventually_within(PATIENCE, "the tables", async || {
        let mut look = PgConnection::connect(&url).await.ok()?;
        look.execute("SELECT 1 FROM blog.outbox LIMIT 1").await.ok()
    })
    .await;
    let mut database = home.rows("blog").await;
    // What a change records: many keys, each with rising versions.
    let text = format!(
        "WITH said AS (INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at)
         SELECT e.id, 'blog.post.updated', e.key, e.version,
                convert_to(json_build_object('specversion', '1.0', 'id', e.id, 'type', 'blog.post.updated', 'source',
                    'blog-service', 'subject', e.key, 'time', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
                    'sequence', lpad(e.version::text, 20, '0'), 'data', json_build_object('title', 'Bells'))::text, 'UTF8'),
                '[]', now()
         FROM (SELECT gen_random_uuid() AS id, 'key-' || n % 1000 AS key, n / 1000 AS version
               FROM generate_series(1, {rows}) AS n ORDER BY n) AS e RETURNING position, key)
         INSERT INTO outbox_waiting SELECT position, key FROM said"
    );
    database.execute(AssertSqlSafe(text)).await.expect("rows");
    lasts(Duration::from_secs(2)).await;
    let began = Instant::now();
    kafka.start().await;
    let patience = Duration::from_secs(if long() { 600 } else { 120 });
    eventually_within(patience, "everything to have left", async || {
        let row = database.fetch_one("SELECT count(*) FROM outbox_waiting").await.expect("a count");
        (row.get::<i64, _>(0) == 0).then_some(())
    })
    .await;
    let took = began.elapsed();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("its status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak_kib < 300_000, "{peak_kib} KiB");
    process.signal(Signal::Terminate);
    assert!(process.ended(Duration::from_secs(30)).success());
    let (clean, table) = audit(&home, true);
    assert!(clean, "{table}");
    tell(&format!("{rows} events after an absence of Kafka: all told in {took:?}, at most {peak_kib} KiB"));
}
