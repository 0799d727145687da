//! Processor time of this process and of the database server together.

use std::path::Path;

use sqlx::PgConnection;

/// Ticks of the clock a second; Linux tells processes' times in these, whatever the kernel.
const TICKS: f64 = 100.0;

/// Processor time since a moment.
pub(crate) struct Cpu {
    postmaster: u32,
    /// Another process that works, beside this one.
    worker: Option<u32>,
    before: f64,
}

impl Cpu {
    /// From now on, with the server behind `connection`, which runs on this machine.
    pub(crate) async fn of(connection: &mut PgConnection) -> Self {
        let backend: i32 =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await.expect("the server answers");
        let postmaster = stat(Path::new(&format!("/proc/{backend}"))).map_or(0, |stat| stat.parent);
        Self { postmaster, worker: None, before: used(postmaster, None) }
    }

    /// The same with the process that works for this one, from now on.
    pub(crate) fn with(self, worker: u32) -> Self {
        Self { worker: Some(worker), before: used(self.postmaster, Some(worker)), ..self }
    }

    /// Seconds since then.
    pub(crate) fn since(&self) -> f64 {
        used(self.postmaster, self.worker) - self.before
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

/// Seconds of this process, the server and all its backends, gone ones included.
fn used(postmaster: u32, worker: Option<u32>) -> f64 {
    let own = stat(Path::new("/proc/self")).map_or(0, |stat| stat.own);
    let worker = worker.and_then(|worker| stat(Path::new(&format!("/proc/{worker}")))).map_or(0, |stat| stat.own);
    let server = stat(Path::new(&format!("/proc/{postmaster}"))).map_or(0, |stat| stat.own + stat.ended);
    let processes = std::fs::read_dir("/proc").expect("Linux tells of processes");
    let backends = processes.flatten().filter_map(|process| stat(&process.path()));
    let backends: u64 = backends.filter(|stat| stat.parent == postmaster).map(|stat| stat.own).sum();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let ticks = (own + worker + server + backends) as f64;
    ticks / TICKS
}
