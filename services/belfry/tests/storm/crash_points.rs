//! Every crash point: a process is killed at its first, second, ... call that sends or syncs, until it comes through.
//! What is left behind is then carried on by a process that nobody kills, and audited.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use reqwest::Method;
use sqlx::{Connection, Executor, Row};
use test_kit::{Home, Process, Server, Signal, eventually_within};

use crate::{BELFRY, audit, consumer, lasts, lessee, long, role::Player, tell};

/// What sends or syncs.
const CALLS: &str = "fsync,fdatasync,sendto,sendmsg,writev,pwrite64";
/// No scenario needs more of these calls in one thread.
const CALLS_MAX: usize = 2_000;
/// A process that lives so long after all was asked of it has come through.
const THROUGH: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(60);
const VARS: &[(&str, &str)] = &[("POST_PUBLISHER_INTERVAL", "1s")];
/// Due rows of a scenario.
const POSTS: usize = 5;
/// So many points of a scenario are tried beside each other, each in a home of its own.
const BESIDE: usize = 3;

/// What is asked of the process that is killed.
#[derive(Debug, Clone, Copy)]
enum Scenario {
    /// Nothing but to start on no tables at all.
    Migration,
    /// Ticks, due rows claimed, their events relayed.
    ClaimAndRelay,
    ManualRun,
    Pause,
}

const SCENARIOS: [Scenario; 4] = [Scenario::Migration, Scenario::ClaimAndRelay, Scenario::ManualRun, Scenario::Pause];

/// The calls at which it is killed: all of them, or in the short form more and more sparsely.
fn nth() -> impl Iterator<Item = usize> {
    let next = |n: &usize| Some(if long() { n + 1 } else { n + 1 + n / 2 });
    std::iter::successors(Some(1), next).take_while(|n| *n < CALLS_MAX)
}

fn tracer(n: usize) -> Vec<String> {
    let inject = format!("inject={CALLS}:signal=KILL:when={n}");
    let trace = format!("trace={CALLS}");
    ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned).to_vec()
}

/// Whether this machine lets a process be traced at all.
fn may_trace() -> bool {
    let tried = std::process::Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        tell("NOT TRIED: crash points, for this machine lets no process be traced");
    }
    may
}

/// Where a scenario is played.
#[derive(Clone, Copy)]
enum Place {
    Files,
    Servers,
}

impl Place {
    async fn home(&self) -> Home {
        match self {
            Self::Files => Home::embedded(),
            Self::Servers => Home::at(Some(&test_kit::database().await), Some(&test_kit::kafka())),
        }
    }

    /// A home in which some posts are due.
    async fn prepared(&self) -> Home {
        let home = self.home().await;
        let off = [("POST_PUBLISHER_ENABLED", "false")];
        let platform = Process::platform(BELFRY, &home, &off).ready().await;
        for number in 0..POSTS {
            #[expect(clippy::disallowed_methods, reason = "the post is planned for the real clock")]
            let due = chrono::Utc::now() + chrono::TimeDelta::milliseconds(300);
            let post = serde_json::json!({ "title": format!("Due {number}"), "published_at": due.to_rfc3339() });
            platform.api.post_json("/api/blog/posts", &post).await.expect(201);
        }
        platform.signal(Signal::Kill);
        lasts(Duration::from_millis(300)).await;
        home
    }
}

/// Asks what the scenario asks, of a process that may die meanwhile.
async fn ask(scenario: Scenario, process: &Process) {
    let (verb, body): (_, &[u8]) = match scenario {
        Scenario::Migration | Scenario::ClaimAndRelay => return,
        Scenario::ManualRun => ("run", b"{}"),
        Scenario::Pause => ("pause", br#"{"reason":"to see"}"#),
    };
    let path = format!("/admin/v1/jobs/blog/post_publisher/{verb}");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let json = [("content-type", "application/json")];
        match process.admin.try_send(Method::POST, &path, &json, Some(body)).await {
            // Not ready yet.
            Ok(answer) if answer.status >= 500 || answer.status == 404 => lasts(Duration::from_millis(20)).await,
            _ => return,
        }
    }
}

/// Lets it be killed at the nth call. True: it came through, that is, it lived for a while after it was ready and asked.
async fn killed_at(n: usize, scenario: Scenario, home: &Home) -> bool {
    let tracer = tracer(n);
    let tracer: Vec<&str> = tracer.iter().map(String::as_str).collect();
    let Some(mut process) = Process::traced(&tracer, BELFRY, home, VARS) else { return false };
    ask(scenario, &process).await;
    let (began, mut ready) = (Instant::now(), None);
    while ready.is_none_or(|at: Instant| at.elapsed() < THROUGH) {
        if process.gone() {
            return false;
        }
        assert!(began.elapsed() < PATIENCE, "{scenario:?}: it neither dies nor gets ready, at call {n}");
        if ready.is_none() {
            let answer = process.admin.try_send(Method::GET, "/readyz", &[], None).await;
            ready = answer.is_ok_and(|answer| answer.status == 200).then(Instant::now);
        }
        lasts(Duration::from_millis(10)).await;
    }
    // Only its tracer is waited for when it is dropped.
    let address = process.admin_address.clone();
    drop(process);
    eventually_within(PATIENCE, "its death", async || std::net::TcpStream::connect(&address).err()).await;
    true
}

/// Carries on, and looks whether all is as if nothing had happened.
async fn carried_on(scenario: Scenario, home: &Home, n: usize) {
    let mut platform = Process::platform(BELFRY, home, VARS).ready().await;
    // The database may still be busy with what the dead left behind.
    eventually_within(PATIENCE, "the job to be resumed", async || {
        let from = serde_json::json!({ "from": "now" });
        let resume = platform.admin.post_json("/admin/v1/jobs/blog/post_publisher/resume", &from).await;
        assert!(resume.status < 300 || resume.status == 503, "{scenario:?} at {n}: {}", resume.text);
        (resume.status < 300).then_some(())
    })
    .await;
    let posts = if matches!(scenario, Scenario::Migration) { 0 } else { POSTS };
    let what = format!("{scenario:?}, killed at call {n}: all is done, and the audit is clean");
    eventually_within(PATIENCE, &what, async || {
        let list = platform.api.get("/api/blog/posts?status=published&limit=100").await;
        let items = list.json["items"].as_array().or(list.json["data"].as_array())?.clone();
        // Created as version 1, published as version 2: whoever publishes twice leaves 3.
        let once = items.iter().all(|post| post["version"] == 2);
        assert!(once, "{scenario:?} at {n}: {items:#?}");
        (items.len() == posts && audit(home, home.url().is_none()).0).then_some(())
    })
    .await;
    platform.signal(Signal::Terminate);
    assert!(platform.ended(Duration::from_secs(30)).success());
}

/// The points of a scenario that are still to be tried, shared by those who try them.
struct Points {
    nth: Vec<usize>,
    next: AtomicUsize,
    /// The place in `nth` of the first at which it came through.
    through: AtomicUsize,
}

impl Points {
    async fn try_them(&self, scenario: Scenario, place: Place) {
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= self.nth.len().min(self.through.load(Ordering::Relaxed)) {
                return;
            }
            let home = match scenario {
                Scenario::Migration => place.home().await,
                _ => place.prepared().await,
            };
            if killed_at(self.nth[at], scenario, &home).await {
                self.through.fetch_min(at, Ordering::Relaxed);
            }
            carried_on(scenario, &home, self.nth[at]).await;
        }
    }
}

fn every_point(what: &str, place: Place) {
    let _beside = crate::ALONE.blocking_read();
    if !may_trace() {
        return;
    }
    for scenario in SCENARIOS {
        let nth: Vec<usize> = nth().collect();
        let through = AtomicUsize::new(nth.len());
        let points = Points { nth, next: AtomicUsize::new(0), through };
        // Threads, for to start a process and to audit a home keep one.
        std::thread::scope(|threads| {
            for _ in 0..BESIDE {
                threads.spawn(|| {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    runtime.block_on(points.try_them(scenario, place));
                });
            }
        });
        let through = points.through.load(Ordering::Relaxed);
        assert!(through < points.nth.len(), "{scenario:?} on {what} never came through");
        tell(&format!("{through:4} crash points of {scenario:?} on {what}"));
    }
}

#[test]
fn whatever_call_on_files_it_dies_at_the_next_process_carries_on() {
    every_point("files", Place::Files);
}

#[test]
fn whatever_call_to_servers_it_dies_at_the_next_process_carries_on() {
    every_point("servers", Place::Servers);
}

/// Lets a process that is to be killed at some call go on until it is `done`. False: it was killed before.
async fn came_through(mut player: Player, mut done: impl AsyncFnMut() -> bool) -> bool {
    loop {
        if player.gone() {
            return false;
        }
        if done().await {
            return true;
        }
        lasts(Duration::from_millis(20)).await;
    }
}

async fn count(rows: &mut sqlx::PgConnection, text: &'static str) -> i64 {
    rows.fetch_one(text).await.expect("a count").get(0)
}

/// Offsets are committed and heartbeats sent for so long after a consumer has heard all, until it counts as come through.
const HEARTBEATS: Duration = Duration::from_secs(8);
/// Posts of blog that were heard of.
const HEARD: &str = "SELECT count(DISTINCT key) FROM hearer.heard h JOIN blog.posts p ON p.id::text = h.key";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_call_a_consumer_dies_at_each_effect_happens_once() {
    let _beside = crate::ALONE.read().await;
    if !may_trace() {
        return;
    }
    // A broker of its own: events of others would be calls of its consumer.
    let mut broker = Server::kafka();
    broker.start().await;
    let (url, kafka) = (test_kit::database().await, broker.address());
    let home = Home::at(Some(&url), Some(&kafka));
    consumer::prepare(&url).await;
    let platform = Process::platform(BELFRY, &home, VARS).ready().await;
    let mut rows = sqlx::PgConnection::connect(&url).await.expect("the database answers");
    let (mut points, mut through, mut posts) = (0, false, 0_i64);
    for n in nth() {
        posts += 1;
        let post = serde_json::json!({ "title": format!("Heard {n}") });
        let id = platform.api.post_json("/api/blog/posts", &post).await.expect(201).json["id"].clone();
        platform.api.post(&format!("/api/blog/posts/{}/publish", id.as_str().expect("an id"))).await.expect(200);
        let tracer = tracer(n);
        let tracer: Vec<&str> = tracer.iter().map(String::as_str).collect();
        let consumer = consumer::start(&tracer, &url, &kafka);
        let (began, mut heard) = (Instant::now(), None);
        through = came_through(consumer, async || {
            assert!(began.elapsed() < PATIENCE, "it neither dies nor hears, at call {n}");
            if heard.is_none() && count(&mut rows, HEARD).await == posts {
                heard = Some(Instant::now());
            }
            heard.is_some_and(|at: Instant| at.elapsed() > HEARTBEATS)
        })
        .await;
        if through {
            break;
        }
        points += 1;
    }
    assert!(through, "it never came through");
    let last = consumer::start(&[], &url, &kafka);
    eventually_within(PATIENCE, "every post to be heard", async || {
        (count(&mut rows, HEARD).await == posts).then_some(())
    })
    .await;
    let twice = "SELECT count(*) - count(DISTINCT event_id) FROM hearer.heard";
    assert_eq!(count(&mut rows, twice).await, 0, "no effect happened twice");
    tell(&format!("{points:4} crash points of the inbox"));
    drop(last);
}

/// What must not be, of letters that were asked about.
const OF_LETTERS: &[(&str, &str)] = &[
    (
        "letters were not settled once",
        "SELECT count(*) FROM letters l WHERE (SELECT count(*) FROM settled s WHERE s.id = l.id) <> 1",
    ),
    (
        "answers are of an owner who had lost the row",
        "SELECT count(*) FROM settled s JOIN letters l USING (id) WHERE s.epoch <> l.lease_epoch",
    ),
    (
        "answers have no question",
        "SELECT count(*) FROM settled s WHERE NOT EXISTS (SELECT 1 FROM asked a WHERE a.id = s.id AND a.epoch = s.epoch)",
    ),
    (
        "letters were asked about twice by one owner",
        "SELECT count(*) FROM (SELECT 1 FROM asked GROUP BY id, epoch HAVING count(*) > 1) AS twice",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_call_a_lessee_dies_at_each_row_is_asked_about_and_settled_once_by_who_holds_it() {
    let _beside = crate::ALONE.read().await;
    if !may_trace() {
        return;
    }
    let url = test_kit::database().await;
    lessee::prepare(&url).await;
    let mut rows = sqlx::PgConnection::connect(&url).await.expect("the database answers");
    rows.execute("SET search_path = lessee").await.expect("it is set");
    let mut count = async |text| count(&mut rows, text).await;
    let open = "SELECT count(*) FROM letters WHERE due_at IS NOT NULL AND lost_count = 0 AND lease_owner IS NULL";
    let (mut points, mut through) = (0, false);
    for n in nth() {
        let made =
            "WITH made AS (INSERT INTO letters (id, due_at) SELECT gen_random_uuid(), now() FROM generate_series(1, 5)
                        RETURNING id) SELECT count(*) FROM made";
        assert_eq!(count(made).await, 5);
        let tracer = tracer(n);
        let tracer: Vec<&str> = tracer.iter().map(String::as_str).collect();
        let lessee = lessee::start(&tracer, &url);
        let (began, mut settled) = (Instant::now(), None);
        through = came_through(lessee, async || {
            assert!(began.elapsed() < PATIENCE, "it neither dies nor gets done, at call {n}");
            // New rows are settled, those of the dead wait for the end of their leases.
            if settled.is_none() && count(open).await == 0 {
                settled = Some(Instant::now());
            }
            settled.is_some_and(|at: Instant| at.elapsed() > THROUGH)
        })
        .await;
        if through {
            break;
        }
        points += 1;
    }
    assert!(through, "it never came through");
    let last = lessee::start(&[], &url);
    eventually_within(PATIENCE, "every letter to be settled", async || {
        (count("SELECT count(*) FROM letters WHERE due_at IS NOT NULL").await == 0).then_some(())
    })
    .await;
    for (what, text) in OF_LETTERS {
        assert_eq!(count(text).await, 0, "{what}");
    }
    let lost = count("SELECT count(*) FROM letters WHERE lost_count > 0").await;
    assert!(lost > 0, "no owner died while it held a row");
    tell(&format!("{points:4} crash points of a lease, {lost} rows taken over from the dead"));
    drop(last);
}
