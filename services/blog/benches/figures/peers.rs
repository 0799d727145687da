//! What peers reach with the same work, on the same server, in the same round. `make bench-peers`.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};

use crate::{
    Size,
    burn::{self, ROWS_A_SECOND},
    cpu::{self, Cpu},
    fires, nudge, percentiles,
    rows::resident_kib,
    table::{Rate, Table},
};

/// Jobs whose time from the call that puts them in to their start is measured.
const ASKED: usize = 300;
/// A peer that says nothing for so long is given up, and ended.
const PATIENCE: Duration = Duration::from_mins(15);
/// Peers of which some thousand jobs a second are known.
const SLOW: [&str; 2] = ["awa", "db-scheduler"];
/// As many schedules as peers are asked to hold in one process.
const PEERS_SCHEDULES: usize = 100_000;

/// Where `shared/test-kit/peers/build.sh` put them.
fn built() -> Vec<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/peers"));
    let entries = std::fs::read_dir(folder).expect("peers are made by shared/test-kit/peers/build.sh");
    let mut all: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join("run").exists()).collect();
    all.sort();
    all
}

/// Says so, and waits to be told to go: the peer's side.
pub(crate) fn ready() {
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).expect("somebody says go");
}

/// Whether `build.sh` says that the peer knows how.
fn knows(folder: &Path, mode: &str) -> bool {
    let modes = std::fs::read_to_string(folder.join("modes")).unwrap_or_default();
    modes.split_whitespace().any(|known| known == mode)
}

/// A peer that has made its tables and waits.
struct Ready {
    child: Child,
    said: Receiver<String>,
}

impl Ready {
    fn to(program: &Path, url: &str, mode: &str, count: usize) -> Self {
        let mut command = Command::new(program);
        command.args([url, mode, &count.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the peer can be started");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (say, said) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
        let mut ready = Self { child, said };
        ready.expect("ready");
        ready
    }

    fn expect(&mut self, word: &str) {
        assert_eq!(self.line(), word);
    }

    fn line(&mut self) -> String {
        self.said.recv_timeout(PATIENCE).expect("the peer says something in time")
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().expect("it is piped").write_all(b"go\n").expect("the peer listens");
    }

    fn number(&mut self) -> f64 {
        self.line().parse().expect("a number")
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What schedules in a process of their own did.
pub(crate) struct Fired {
    /// Runs due within the window, as far as they began before its end and a second.
    pub(crate) runs: f64,
    /// Median of the lateness, ms.
    pub(crate) middle: f64,
    /// 99th percentile, ms.
    pub(crate) end: f64,
    /// Per cent of a core while they were counted.
    pub(crate) processor: f64,
    /// Resident memory.
    pub(crate) kib: f64,
}

pub(crate) fn fired(program: &Path, schedules: usize) -> Fired {
    let mut peer = Ready::to(program, "-", "fires", schedules);
    peer.go();
    peer.expect("counting");
    let (before, began) = (cpu::of_process(peer.child.id()), Instant::now());
    let line = peer.line();
    let processor = (cpu::of_process(peer.child.id()) - before) / began.elapsed().as_secs_f64() * 100.0;
    let mut numbers = line.split_whitespace().map(|number| number.parse().expect("a number"));
    let mut next = || numbers.next().expect("three numbers");
    let (runs, middle, end) = (next(), next(), next());
    peer.expect("ready");
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let kib = resident_kib(peer.child.id()) as f64;
    peer.go();
    Fired { runs, middle, end, processor, kib }
}

async fn own_database() -> (String, PgConnection) {
    let url = test_kit::database().await;
    let server = PgConnection::connect(&url).await.expect("the database answers");
    (url, server)
}

/// Rows a second; a peer that was told to stop is waited for.
async fn burned(folder: &Path, count: i32) -> Rate {
    let (url, mut server) = own_database().await;
    let mut peer = Ready::to(&folder.join("run"), &url, "burn", usize::try_from(count).unwrap_or(0));
    let cpu = Cpu::of(&mut server).await.by(&[peer.child.id()]);
    peer.go();
    let seconds = peer.number();
    Rate { rate: f64::from(count) / seconds, cpu: cpu.of_thousand(f64::from(count)) }
}

async fn asked(folder: &Path) -> (f64, f64) {
    let (url, _server) = own_database().await;
    let mut peer = Ready::to(&folder.join("run"), &url, "latency", ASKED);
    peer.go();
    percentiles((0..ASKED).map(|_| peer.number()).collect())
}

/// Queues first, then schedulers, each followed by Belfry.
pub(crate) async fn measure(table: &mut Table, size: Size) {
    let built = built();
    for folder in built.iter().filter(|folder| knows(folder, "burn")) {
        let name = name(folder);
        // One that does some thousand a second is asked for a tenth: it would take minutes.
        let count = if SLOW.contains(&name.as_str()) { size.due / 10 } else { size.due };
        table.rate(&format!("{name}: no-op jobs"), ROWS_A_SECOND, burned(folder, count).await, None);
    }
    burn::beside_peers(table, size).await;
    for folder in built.iter().filter(|folder| knows(folder, "latency")) {
        let (name, (middle, end)) = (name(folder), asked(folder).await);
        table.put(&format!("{name}: from putting a job in to its start, p50"), "ms", middle);
        table.put(&format!("{name}: from putting a job in to its start, p99"), "ms", end);
    }
    nudge::beside_peers(table).await;
    for &schedules in size.schedules.iter().filter(|schedules| **schedules <= PEERS_SCHEDULES) {
        for folder in built.iter().filter(|folder| knows(folder, "fires")) {
            fires::put(table, &name(folder), schedules, &fired(&folder.join("run"), schedules), None);
        }
        fires::put(table, "Belfry", schedules, &fires::ours(schedules), None);
    }
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
