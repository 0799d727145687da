//! What one more repetition of a work costs, by running it under valgrind.

use std::process::Command;

/// Repetitions after which nothing is done for the first time, and those that are counted.
const WARM: u64 = 100;
const COUNTED: u64 = 1_000;

/// Instructions of one repetition.
pub(crate) fn instructions(work: &str) -> f64 {
    let tool = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    of_one(work, &tool, "Collected : ")
}

/// Allocations of one repetition.
pub(crate) fn allocations(work: &str) -> f64 {
    of_one(work, &["--tool=memcheck", "--undef-value-errors=no"], "total heap usage: ")
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn of_one(work: &str, tool: &[&str], label: &str) -> f64 {
    let (warm, all) = (count(work, WARM, tool, label), count(work, WARM + COUNTED, tool, label));
    all.saturating_sub(warm) as f64 / COUNTED as f64
}

fn count(work: &str, times: u64, tool: &[&str], label: &str) -> u64 {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new("valgrind");
    let child = command.args(tool).arg(program).args(["--work", work, &times.to_string()]);
    let output = child.output().expect("valgrind is installed; shared/test-kit/servers/prerequisites.sh test");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{work} under valgrind: {told}");
    let found = told.split_once(label).map(|(_, rest)| rest);
    let digits = found.map(|rest| rest.chars().take_while(|c| c.is_ascii_digit() || *c == ','));
    let number: Option<String> = digits.map(|digits| digits.filter(char::is_ascii_digit).collect());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no `{label}` in what valgrind told: {told}"))
}
