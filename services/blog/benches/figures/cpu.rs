//! Processor time of whoever works and of the database server together.

use std::path::Path;

use sqlx::PgConnection;

/// Ticks of the clock a second; Linux tells processes' times in these, whatever the kernel.
const TICKS: f64 = 100.0;

/// Processor time since a moment.
pub(crate) struct Cpu {
    /// The server, if there is one.
    postmaster: Option<u32>,
    workers: Vec<u32>,
    before: f64,
}

impl Cpu {
    /// Of this process, from now on.
    pub(crate) fn here() -> Self {
        Self { postmaster: None, workers: Vec::new(), before: 0.0 }.by(&[std::process::id()])
    }

    /// The same with the server behind `connection`, which runs on this machine.
    pub(crate) async fn of(connection: &mut PgConnection) -> Self {
        let backend: i32 =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await.expect("the server answers");
        let postmaster = stat(Path::new(&format!("/proc/{backend}"))).map(|stat| stat.parent);
        Self { postmaster, ..Self::here() }.by(&[std::process::id()])
    }

    /// The same where other processes work and this one only asks, from now on.
    pub(crate) fn by(self, workers: &[u32]) -> Self {
        let mut cpu = Self { workers: workers.to_vec(), ..self };
        cpu.before = cpu.used();
        cpu
    }

    /// Seconds since then.
    pub(crate) fn since(&self) -> f64 {
        self.used() - self.before
    }

    /// Seconds since then for each 1,000 of `count`.
    pub(crate) fn of_thousand(&self, count: f64) -> f64 {
        self.since() * 1_000.0 / count
    }

    /// Seconds of the workers, the server and all its backends, gone ones included.
    fn used(&self) -> f64 {
        let workers: f64 = self.workers.iter().map(|worker| of_process(*worker)).sum();
        let Some(postmaster) = self.postmaster else { return workers };
        let server = stat(Path::new(&format!("/proc/{postmaster}"))).map_or(0, |stat| stat.own + stat.ended);
        let processes = std::fs::read_dir("/proc").expect("Linux tells of processes");
        let backends = processes.flatten().filter_map(|process| stat(&process.path()));
        let backends: u64 = backends.filter(|stat| stat.parent == postmaster).map(|stat| stat.own).sum();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let ticks = (server + backends) as f64;
        workers + ticks / TICKS
    }
}

/// Seconds of a process of its own.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn of_process(id: u32) -> f64 {
    stat(Path::new(&format!("/proc/{id}"))).map_or(0.0, |stat| stat.own as f64 / TICKS)
}

struct Stat {
    parent: u32,
    /// Its own ticks, and those of children that have ended.
    own: u64,
    ended: u64,
}

/// `/proc/PID/stat`, after the name in brackets: state, parent, …, utime, stime, cutime, cstime.
fn stat(process: &Path) -> Option<Stat> {
    let text = std::fs::read_to_string(process.join("stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let parent = u32::try_from(number(1)).ok()?;
    Some(Stat { parent, own: number(11) + number(12), ended: number(13) + number(14) })
}
