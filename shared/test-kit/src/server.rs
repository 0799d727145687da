//! Servers of a test's own, which it may stop, kill and start again.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use uuid::Uuid;

use crate::project;

/// How long a server may take to be up.
const UP: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

enum Kind {
    Postgres { durable: bool },
    Kafka { controller: u16, advertised: Option<String> },
}

/// A PostgreSQL or Kafka of one test.
pub struct Server {
    kind: Kind,
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

/// Where ports are looked for: below those that the system gives to connections, which could take one while its server
/// is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Ports of loopback that are free now.
fn free_ports<const N: usize>() -> [u16; N] {
    let mut from = PORTS.start + u16::try_from(Uuid::now_v7().as_u128() % 11_000).expect("it is small");
    let bound = [(); N].map(|()| {
        loop {
            from += 1;
            assert!(PORTS.contains(&from), "no port is free");
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", from)) {
                return listener;
            }
        }
    });
    bound.map(|listener| listener.local_addr().expect("it is bound").port())
}

impl Server {
    /// A PostgreSQL that is not started yet.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn postgres() -> Self {
        let [port] = free_ports();
        Self { kind: Kind::Postgres { durable: false }, port, folder: folder(), child: None }
    }

    /// A PostgreSQL that keeps what it acknowledged, also when it is killed.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn durable_postgres() -> Self {
        let mut server = Self::postgres();
        server.kind = Kind::Postgres { durable: true };
        server
    }

    /// A Kafka that tells its clients to come to this address.
    #[must_use]
    pub fn advertised(mut self, address: &str) -> Self {
        if let Kind::Kafka { advertised, .. } = &mut self.kind {
            *advertised = Some(address.to_owned());
        }
        self
    }

    /// Its data.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A Kafka that is not started yet.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn kafka() -> Self {
        let [port, controller] = free_ports();
        Self { kind: Kind::Kafka { controller, advertised: None }, port, folder: folder(), child: None }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it, with what it had before.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(&mut self) {
        let servers = project().join("shared/test-kit/servers");
        let (folder, port) = (self.folder.path(), self.port.to_string());
        let mut command = match &self.kind {
            Kind::Postgres { durable } => {
                let mut command = Command::new(servers.join("postgres.sh"));
                command.arg(folder).arg(&port).arg(if *durable { "durable" } else { "fast" });
                command
            }
            Kind::Kafka { controller, advertised } => {
                let mut command = Command::new(servers.join("kafka.sh"));
                command.arg("run").arg(folder).arg(&port).arg(controller.to_string()).args(advertised);
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it can be started");
        self.child = Some(child);
        let (address, began) = (self.address(), Instant::now());
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            let ended = self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            assert!(!ended && began.elapsed() < UP, "{address} does not answer (ended: {ended}):\n{}", self.said());
            let _never = tokio::time::timeout(LOOK, std::future::pending::<()>()).await;
        }
    }

    /// The end of its log.
    fn said(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Stops it at once, as a crash would.
    ///
    /// # Panics
    /// When it was not started.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it was started");
        // PostgreSQL's children end with their parent when it stops immediately; a killed parent leaves them for a moment.
        let signal = if matches!(self.kind, Kind::Postgres { .. }) { "-QUIT" } else { "-KILL" };
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill can be started");
        assert!(sent.success(), "the server is there");
        child.wait().expect("it can be waited for");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_none())) {
            self.kill();
        }
    }
}

/// A folder that the server's own user may enter.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).expect("its rights can be set");
    folder
}
