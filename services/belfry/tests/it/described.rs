//! A client that knows nothing of the platform but its API descriptions (schemathesis): every operation with what the
//! description allows and with what it does not, and stories of operations that lead to one another.
//!
//! `make described` asks much more often.

use std::{path::Path, process::Command};

use test_kit::{Client, Home, project};

use crate::{Said, run, up};

#[expect(clippy::disallowed_methods, reason = "how much is tried, and by whom, is told by the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// How many inputs for each operation and how many stories, beside inputs that cover each rule of the description once. Unless
/// more are asked for, they are the same each time.
fn amount() -> Vec<String> {
    match variable("SCHEMATHESIS_EXAMPLES") {
        Some(examples) => vec!["--max-examples".to_owned(), examples],
        None => ["--max-examples", "5", "--seed", "1"].map(str::to_owned).to_vec(),
    }
}

/// Asks everything that the document at this address describes; how many requests were made.
#[expect(clippy::print_stdout, reason = "whoever runs this by hand wants to know what was tried")]
fn asked(address: &str, folder: &Path) -> u64 {
    std::fs::create_dir(folder).expect("a folder can be made");
    let python = variable("CLIENTS_PYTHON").expect("CLIENTS_PYTHON: run the tests with `make test`");
    let mut command = Command::new(Path::new(&python).with_file_name("schemathesis"));
    command.arg("--config-file").arg(project().join("shared/test-kit/clients/schemathesis.toml"));
    command.arg("run").arg(format!("http://{address}/openapi.json")).args(amount());
    // A valid request may still name what is not there, or a state the post is not in.
    command.args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"]);
    command.args(["--request-timeout", "20", "--no-color"]);
    // It leaves what it remembers where it is started.
    let output = command.current_dir(folder).output().expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let (_, summary) = text.split_once("Test cases:").expect("a summary");
    println!("{address}: {}", summary.split_whitespace().take(4).collect::<Vec<_>>().join(" "));
    let passed = summary.split_whitespace().nth(2).expect("how many passed");
    passed.parse().expect("a number")
}

#[tokio::test]
async fn a_client_that_knows_only_the_descriptions_finds_nothing_that_differs_from_them() {
    let home = Home::embedded();
    let mut platform = up(&home, &[("POST_PUBLISHER_INTERVAL", "1s")]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (public, operations) = (folder.path().join("public"), folder.path().join("operations"));
    let requests = std::thread::scope(|scope| {
        let public = scope.spawn(|| asked(&platform.api_address, &public));
        asked(&platform.admin_address, &operations) + public.join().expect("nothing differs")
    });
    assert!(requests > 1_000, "{requests} requests are too few to have asked for everything");
    assert!(!platform.gone() && !platform.said().contains("panicked"), "{}", platform.said());
    // The connection from the beginning has been idle for so long that the platform closes it.
    Client::new(&platform.admin_address).get("/readyz").await.expect(200);
    let folder = home.folder().to_string_lossy().into_owned();
    let Said { code, out, err } = run(&["audit", "--data-dir", &folder], &[]);
    assert_eq!(code, 0, "after {requests} requests: {out}{err}");
}
