//! Services as processes: started as a user starts them, and ended with the test, however it ends.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{Client, Home, eventually_within};

/// How long a process may take to be up.
const UP: Duration = Duration::from_secs(20);

/// What a process is sent.
#[derive(Debug, Clone, Copy)]
pub enum Signal {
    /// Stop.
    Terminate,
    /// Die.
    Kill,
    /// Stand still.
    Freeze,
    /// Go on.
    Thaw,
}

/// A process of a service.
pub struct Process {
    child: Child,
    /// Its public API.
    pub api: Client,
    /// Its operations API.
    pub admin: Client,
    /// Where its public API listens.
    pub api_address: String,
    /// Where its operations API listens.
    pub admin_address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `binary serve` at home, with more variables, and waits until it is up.
    ///
    /// # Panics
    /// When it does not come up; with what it said.
    pub fn start(binary: &str, home: &Home, vars: &[(&str, &str)]) -> Self {
        Self::run(binary, &["serve", "--embedded"], home, vars)
    }

    /// Starts `binary serve` as in production: on servers, and the tables are somebody else's to make.
    ///
    /// # Panics
    /// When it does not come up; with what it said.
    pub fn deployed(binary: &str, home: &Home, vars: &[(&str, &str)]) -> Self {
        Self::run(binary, &["serve"], home, vars)
    }

    /// Starts every service in one process (`belfry up`) at home, and waits until it is up.
    ///
    /// # Panics
    /// When it does not come up; with what it said.
    pub fn platform(binary: &str, home: &Home, vars: &[(&str, &str)]) -> Self {
        Self::run(binary, &["up"], home, vars)
    }

    /// Starts every service in one process that may refuse to come up.
    ///
    /// # Errors
    /// What it said, when it did not come up.
    pub fn try_platform(binary: &str, home: &Home, vars: &[(&str, &str)]) -> Result<Self, String> {
        Self::launch(&[binary, "up"], home, vars)
    }

    /// Starts every service in one process under `tracer` (a program and its arguments), which may end it at any moment.
    /// `None`: it ended before it was up.
    ///
    /// # Panics
    /// When it neither comes up nor ends.
    pub fn traced(tracer: &[&str], binary: &str, home: &Home, vars: &[(&str, &str)]) -> Option<Self> {
        let mut program = tracer.to_vec();
        // Should the tracer be killed, so is what it traced.
        program.extend(["setpriv", "--pdeathsig", "KILL", binary, "up"]);
        Self::launch(&program, home, vars).ok()
    }

    fn run(binary: &str, command_line: &[&str], home: &Home, vars: &[(&str, &str)]) -> Self {
        let program: Vec<&str> = std::iter::once(binary).chain(command_line.iter().copied()).collect();
        Self::launch(&program, home, vars)
            .unwrap_or_else(|said| panic!("{binary} did not come up on {}:\n{said}", home.name))
    }

    /// The process, or what it said when it did not come up.
    fn launch(program: &[&str], home: &Home, vars: &[(&str, &str)]) -> Result<Self, String> {
        // setpriv becomes the program; the kernel kills it when the thread of this test ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(program).arg("--data-dir").arg(home.folder());
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.envs(home.vars().iter().cloned());
        command.envs([("HTTP_ADDR", "127.0.0.1:0"), ("ADMIN_ADDR", "127.0.0.1:0"), ("LOG_FORMAT", "json")]);
        command.envs(vars.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be started");
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (up, is_up) = mpsc::channel();
        let (kept, output) = (Arc::clone(&log), child.stdout.take().expect("its output"));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(addresses) = addresses(&line) {
                    // Nobody waits any more when this is a second line of the kind.
                    drop(up.send(addresses));
                }
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let (kept, errors) = (Arc::clone(&log), child.stderr.take().expect("its errors"));
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        // It hears at once when its output ends.
        let Ok((api, admin)) = is_up.recv_timeout(UP) else {
            drop(child.kill());
            drop(child.wait());
            return Err(log.lock().unwrap_or_else(PoisonError::into_inner).join("\n"));
        };
        let (api, api_address) = (Client::new(&api), api);
        Ok(Self { child, api, admin: Client::new(&admin), api_address, admin_address: admin, log })
    }

    /// Waits until it says that it is ready.
    pub async fn ready(self) -> Self {
        eventually_within(UP, "readiness", async || (self.admin.get("/readyz").await.status == 200).then_some(()))
            .await;
        self
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When there is no such process any more.
    pub fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Terminate => "-TERM",
            Signal::Kill => "-KILL",
            Signal::Freeze => "-STOP",
            Signal::Thaw => "-CONT",
        };
        let sent = Command::new("kill").args([name, &self.id().to_string()]).status().expect("kill can be started");
        assert!(sent.success(), "the process is there");
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// When it cannot be told.
    pub fn gone(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_some()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it has not within `patience`.
    pub fn ended(&mut self, patience: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(began.elapsed() < patience, "it has not ended within {patience:?}:\n{}", self.said());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// All it has said.
    pub fn said(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where it listens, from the line that says that it is up.
fn addresses(line: &str) -> Option<(String, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["message"] != "up" {
        return None;
    }
    Some((line["http"].as_str()?.to_owned(), line["admin"].as_str()?.to_owned()))
}
