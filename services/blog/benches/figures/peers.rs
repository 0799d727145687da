//! What peers reach with the same work, on the same server, in the same round. `make bench-peers`.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use sqlx::{Connection, PgConnection};

use crate::{Size, burn, cpu::Cpu, percentiles, table::Table};

/// Jobs whose time from the call that puts them in to their start is measured.
const ASKED: i32 = 300;

/// Where `shared/test-kit/peers/build.sh` put them.
fn built() -> Vec<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/peers"));
    let entries = std::fs::read_dir(folder).expect("peers are made by shared/test-kit/peers/build.sh");
    let mut all: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join("run").exists()).collect();
    all.sort();
    all
}

/// A peer that has made its tables and waits.
struct Ready {
    child: Child,
    said: std::io::Lines<BufReader<ChildStdout>>,
    server: PgConnection,
}

impl Ready {
    async fn to(folder: &Path, mode: &str, count: i32) -> Self {
        let url = test_kit::database().await;
        let server = PgConnection::connect(&url).await.expect("the database answers");
        let mut command = Command::new(folder.join("run"));
        command.args([&url, mode, &count.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the peer can be started");
        let said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut ready = Self { child, said, server };
        assert_eq!(ready.line(), "ready", "{}", folder.display());
        ready
    }

    fn line(&mut self) -> String {
        self.said.next().expect("the peer says something").expect("it can be read")
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

/// Rows a second; a peer that was told to stop is waited for.
async fn burned(folder: &Path, count: i32) -> burn::Burned {
    let mut peer = Ready::to(folder, "burn", count).await;
    let cpu = Cpu::of(&mut peer.server).await.with(peer.child.id());
    peer.go();
    let seconds = peer.number();
    burn::Burned { rate: f64::from(count) / seconds, cpu: cpu.since() * 1_000.0 / f64::from(count) }
}

async fn asked(folder: &Path) -> (f64, f64) {
    let mut peer = Ready::to(folder, "latency", ASKED).await;
    peer.go();
    percentiles((0..ASKED).map(|_| peer.number()).collect())
}

pub(crate) async fn measure(table: &mut Table, size: Size) {
    for folder in built() {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        burn::put(table, &format!("{name}: no-op jobs"), &burned(&folder, size.due).await, None);
        let (middle, end) = asked(&folder).await;
        table.put(&format!("{name}: from putting a job in to its start, p50"), "ms", middle);
        table.put(&format!("{name}: from putting a job in to its start, p99"), "ms", end);
    }
    burn::beside_peers(table, size).await;
}
