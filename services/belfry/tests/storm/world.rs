//! Three replicas and a consumer on servers of their own, each reached through a network that can fail.

use std::{
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use test_kit::{Client, Home, Network, Process, Proxy, Server, Signal, eventually_within};

use crate::{
    BELFRY, audit, consumer, lasts,
    load::{Load, Sent},
    long,
    role::Player,
};

/// How long everything may take to be done once all is well again.
const PATIENCE: Duration = Duration::from_secs(240);
/// Replicas of blog: in the long form more, so that many stand still at once.
pub(crate) fn replicas() -> usize {
    if long() { 6 } else { 3 }
}

const VARS: &[(&str, &str)] = &[("POST_PUBLISHER_INTERVAL", "1s"), ("SHUTDOWN_GRACE", "10s")];

/// Where replicas can be reached at the moment.
pub(crate) type Addresses = Arc<Mutex<Vec<Option<(Client, Client)>>>>;

pub(crate) struct World {
    pub(crate) postgres: Server,
    pub(crate) kafka: Server,
    pub(crate) to_postgres: Proxy,
    pub(crate) to_kafka: Proxy,
    /// As replicas see the servers, and as the auditor does.
    home: Home,
    direct: Home,
    pub(crate) replicas: Vec<Option<Process>>,
    frozen: Vec<Option<Instant>>,
    consumer: Option<Player>,
    addresses: Addresses,
    load: Option<Load>,
}

fn url(address: &str) -> String {
    format!("postgres://postgres@{address}/postgres")
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        let mut postgres = Server::durable_postgres();
        let kafka = Server::kafka();
        let (to_postgres, to_kafka) = (Proxy::to(&postgres.address()).await, Proxy::to(&kafka.address()).await);
        let mut kafka = kafka.advertised(&to_kafka.address());
        tokio::join!(postgres.start(), kafka.start());
        let home = Home::at(Some(&url(&to_postgres.address())), Some(&to_kafka.address()));
        let direct = Home::at(Some(&url(&postgres.address())), Some(&to_kafka.address()));
        let frozen = vec![None; replicas()];
        let addresses: Addresses = Arc::new(Mutex::new(vec![None; replicas()]));
        let mut world = Self {
            postgres,
            kafka,
            to_postgres,
            to_kafka,
            home,
            direct,
            replicas: (0..replicas()).map(|_| None).collect(),
            frozen,
            consumer: None,
            addresses,
            load: None,
        };
        world.start(0);
        let first = world.replicas[0].take().expect("it was started");
        world.replicas[0] = Some(first.ready().await);
        consumer::prepare(world.direct.url().expect("a database")).await;
        for replica in 1..replicas() {
            world.start(replica);
        }
        world.start_consumer();
        world.load = Some(Load::begin(seed, Arc::clone(&world.addresses)));
        world
    }

    /// Starts a replica in the place of one that has ended.
    pub(crate) fn start(&mut self, at: usize) {
        let process = Process::platform(BELFRY, &self.home, VARS);
        let reached = (Client::new(&process.api_address), Client::new(&process.admin_address));
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(reached);
        self.replicas[at] = Some(process);
        self.frozen[at] = None;
    }

    fn start_consumer(&mut self) {
        self.consumer = Some(consumer::start(&[], self.home.url().expect("a database"), &self.to_kafka.address()));
    }

    /// Kills a replica and starts it again.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.replicas[at].take() {
            process.signal(Signal::Kill);
            process.ended(Duration::from_secs(10));
        }
        self.start(at);
    }

    pub(crate) fn kill_consumer(&mut self) {
        self.consumer = None;
        self.start_consumer();
    }

    /// Asks a replica to stop, `times` times, and starts it again.
    pub(crate) fn terminate(&mut self, at: usize, times: usize) {
        if self.frozen[at].is_some() {
            self.thaw(at);
        }
        if let Some(mut process) = self.replicas[at].take() {
            for time in 0..times {
                if time > 0 {
                    std::thread::park_timeout(Duration::from_millis(30));
                }
                drop(Command::new("kill").args(["-TERM", &process.id().to_string()]).status());
            }
            let status = process.ended(Duration::from_secs(30));
            assert!(status.success() || times > 1, "a stop ends well: {status}\n{}", process.said());
        }
        self.start(at);
    }

    pub(crate) fn freeze(&mut self, at: usize) {
        if self.frozen[at].is_none()
            && let Some(process) = &self.replicas[at]
        {
            process.signal(Signal::Freeze);
            self.frozen[at] = Some(Instant::now());
        }
    }

    pub(crate) fn thaw(&mut self, at: usize) {
        if let (Some(_), Some(process)) = (self.frozen[at].take(), &self.replicas[at]) {
            process.signal(Signal::Thaw);
        }
    }

    /// A connection that no fault of the network touches.
    pub(crate) async fn rows(&self) -> PgConnection {
        let url = self.direct.url().expect("a database");
        eventually_within(PATIENCE, "the database to answer", async || PgConnection::connect(url).await.ok()).await
    }

    /// The end of all faults: everything runs and can be reached.
    pub(crate) async fn calm(&mut self) {
        self.to_postgres.set(Network::Open);
        self.to_kafka.set(Network::Open);
        for at in 0..replicas() {
            self.thaw(at);
        }
        lasts(Duration::from_secs(5)).await;
    }

    pub(crate) async fn stop_load(&mut self) -> Sent {
        self.load.take().expect("it was begun").end().await
    }

    /// Waits until the audit is clean and every acknowledged post is published and heard; what the auditor says.
    pub(crate) async fn settled(&mut self, sent: &Sent) -> String {
        let began = Instant::now();
        loop {
            let (clean, table) = audit(&self.direct, true);
            let open = self.open(sent).await;
            if clean && open.is_empty() {
                return table;
            }
            let said: Vec<String> = self.replicas.iter().flatten().map(last_words).collect();
            assert!(
                began.elapsed() < PATIENCE,
                "not clean after {PATIENCE:?}:\n{table}\n{open:#?}\n{}",
                said.join("\n")
            );
            lasts(Duration::from_secs(2)).await;
        }
    }

    /// What is not as it must be in the end.
    async fn open(&self, sent: &Sent) -> Vec<String> {
        let mut rows = self.rows().await;
        let mut wrong = Vec::new();
        let titles: Vec<String> = sqlx::query("SELECT title FROM blog.posts")
            .fetch_all(&mut rows)
            .await
            .expect("posts")
            .iter()
            .map(|row| row.get(0))
            .collect();
        let once: std::collections::HashSet<&String> = titles.iter().collect();
        if once.len() != titles.len() {
            wrong.push(format!("{} posts were made twice", titles.len() - once.len()));
        }
        let lost = sent.acknowledged.iter().filter(|title| !once.contains(title)).count();
        if lost > 0 {
            wrong.push(format!("{lost} acknowledged posts are not there"));
        }
        for (what, text) in [
            ("posts are not published", "SELECT count(*) FROM blog.posts WHERE status <> 'published'"),
            (
                "posts were published twice",
                "SELECT count(*) FROM (SELECT key FROM blog.outbox WHERE topic = 'blog.post.published'
                     GROUP BY key HAVING count(*) > 1) AS twice",
            ),
            ("effects of the consumer happened twice", "SELECT count(*) - count(DISTINCT event_id) FROM hearer.heard"),
            (
                "events were not heard",
                "SELECT count(*) FROM blog.outbox o WHERE topic LIKE 'blog.post.%published'
                     AND NOT EXISTS (SELECT 1 FROM hearer.heard h WHERE h.event_id = o.id)",
            ),
            ("events were given up", "SELECT count(*) FROM hearer.dead_letters"),
            (
                "runs go on",
                "SELECT count(*) FROM blog.job_runs WHERE state <> 'done' AND fire_at < now() - interval '30 seconds'",
            ),
        ] {
            let row = sqlx::query(AssertSqlSafe(text)).fetch_one(&mut rows).await.expect("a count");
            let count: i64 = row.get(0);
            if count != 0 {
                wrong.push(format!("{count} {what}"));
            }
        }
        wrong
    }

    /// Stops everything; nothing of it goes on.
    pub(crate) fn end(mut self) {
        for mut process in self.replicas.drain(..).flatten() {
            process.signal(Signal::Terminate);
            assert!(process.ended(Duration::from_secs(30)).success());
        }
        let (clean, table) = audit(&self.direct, true);
        assert!(clean, "after the stop:\n{table}");
        self.consumer = None;
        let folder = self.home.folder().to_string_lossy().into_owned();
        let left: Vec<String> = std::fs::read_dir("/proc")
            .expect("processes")
            .flatten()
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
            .filter(|line| line.contains(&folder))
            .collect();
        assert!(left.is_empty(), "left running: {left:?}");
    }
}

fn last_words(process: &Process) -> String {
    let said = process.said();
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}
