//! Costs that are the same each time, beside those of `costs.json`: instructions and allocations of what is done often,
//! statements and rows of a pass. `make bench-check`; `BLESS=1` writes the file anew. No time is measured.

#![allow(clippy::expect_used, reason = "a measurement that cannot go on panics; that is how it tells")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a measurement tells people what it finds")]
#![allow(clippy::disallowed_methods, reason = "the servers and the mode are told by the environment")]

#[path = "costs/committed.rs"]
mod committed;
#[path = "costs/statements.rs"]
mod statements;
#[path = "costs/valgrind.rs"]
mod valgrind;
#[path = "costs/work.rs"]
mod work;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, times, ..] = arguments.as_slice()
        && flag == "--work"
    {
        work::of(name).expect("the name of a work")(times.parse().expect("how often"));
        return ExitCode::SUCCESS;
    }
    let mut costs = committed::Costs::new();
    for (name, _) in work::WORKS {
        costs.insert(format!("{name}: instructions"), valgrind::instructions(name));
    }
    costs.insert("a tick: allocations".to_owned(), valgrind::allocations("a tick"));
    costs.insert("an event to its record: allocations".to_owned(), valgrind::allocations("an event to its record"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    costs.extend(runtime.block_on(statements::of_a_pass()));
    committed::compare(&costs)
}
