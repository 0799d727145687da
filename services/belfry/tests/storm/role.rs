//! Processes of the storms beside the platform, to be killed: this program, started again to play a role.

use std::process::{Child, Command, Stdio};

use crate::{consumer, lessee, variable};

/// Which role the program was started again for.
const ROLE: &str = "STORM_ROLE";

/// A process that plays a role; it is killed when it is dropped.
pub(crate) struct Player(Child);

impl Player {
    /// Starts it under `tracer` (a program and its arguments, or nothing), which may end it at any moment. It ends with this
    /// process.
    pub(crate) fn start(tracer: &[&str], role: &str, vars: &[(&str, &str)]) -> Self {
        let this = std::env::current_exe().expect("this program");
        let mut command = Command::new("setpriv");
        // Should the tracer be killed, so is what it traced.
        command.args(["--pdeathsig", "KILL"]).args(tracer).args(["setpriv", "--pdeathsig", "KILL"]).arg(this);
        command.args(["--exact", "role::play", "--ignored", "--nocapture"]);
        command.env_clear().env("PATH", "/usr/bin:/bin").env(ROLE, role).envs(vars.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it can be started"))
    }

    /// Whether it has ended.
    pub(crate) fn gone(&mut self) -> bool {
        self.0.try_wait().expect("it can be waited for").is_some()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "not a test: where a storm starts this program again, as a consumer or a lessee that it may kill"]
async fn play() {
    match variable(ROLE).as_deref() {
        Some(consumer::ROLE) => consumer::play().await,
        Some(lessee::ROLE) => Box::pin(lessee::play()).await,
        // Somebody runs the ignored tests by hand.
        _ => {}
    }
}
