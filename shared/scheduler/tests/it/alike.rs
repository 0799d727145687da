//! The three stores are one: random operations side by side, with the same results and the same rows.
//!
//! `STORE_OPERATIONS` says how many (100,000 unless told), `STORE_SEED` where a run begins.

mod generator;
mod operation;
mod rows;

use std::{sync::Arc, time::Duration};

use scheduler::{
    clock::{Clock, ManualClock},
    store::memory::MemoryStore,
};

use self::{
    generator::Generator,
    operation::{Operation, apply, everything},
    rows::Alike,
};
use crate::world::{clock, memory, postgres_db, sql, sqlite_db};

/// Operations of which a failure tells.
const TOLD: usize = 12;
const TOLD_CHARS: usize = 600;
/// After so many operations all rows are compared.
const COMPARED_EVERY: usize = 200;
/// Workers side by side, each with stores of its own.
const WORKERS: u64 = 2;
/// Operations that lead up to those that run at once, and those.
const BEFORE: usize = 12;
const AT_ONCE: usize = 3;

#[expect(clippy::disallowed_methods, reason = "a number for the test run")]
fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

#[expect(clippy::print_stdout, reason = "whoever runs this by hand wants to know how much was tried")]
fn tell(text: &str) {
    println!("{text}");
}

fn jobs_of(prefix: &str) -> Vec<String> {
    ["tick", "claim", "steps"].iter().map(|kind| format!("{prefix}{kind}")).collect()
}

/// Where two long texts part, with what stands around it.
fn parted(expected: &str, found: &str) -> String {
    let at = expected.chars().zip(found.chars()).take_while(|(one, other)| one == other).count();
    let around = |text: &str| text.chars().skip(at.saturating_sub(400)).take(800).collect::<String>();
    format!("memory: ...{}...\nfound:  ...{}...", around(expected), around(found))
}

/// Compares what two stores said.
fn same(what: &str, expected: &str, found: &str, seed: u64, done: &[Operation]) {
    let told = |operation: &Operation| format!("  {operation:?}").chars().take(TOLD_CHARS).collect::<String>();
    let last: Vec<String> = done.iter().rev().take(TOLD).rev().map(told).collect();
    assert!(
        expected == found,
        "seed {seed}, operation {}: {what} differs from memory\n{}\nthe last:\n{}",
        done.len(),
        parted(expected, found),
        last.join("\n")
    );
}

async fn side_by_side(seed: u64, count: u64) {
    let time = clock();
    let (memory, _memory) = memory(&time);
    let (file, _file) = sqlite_db().await;
    let (server, _schema) = postgres_db(4).await;
    let (sqlite, postgres) = (sql(&file, &time), sql(&server, &time));
    let jobs = jobs_of("");
    let mut generator = Generator::new(seed, &jobs);
    let mut done: Vec<Operation> = Vec::new();
    for number in 0..usize::try_from(count).unwrap() {
        let operation = generator.next(&memory, &time).await;
        done.push(operation.clone());
        if done.len() > 10 * TOLD {
            done.drain(..9 * TOLD);
        }
        if let Operation::Advance(by) = operation {
            time.advance(by);
            continue;
        }
        let expected = apply(&memory, &operation).await;
        same("sqlite", &expected, &apply(&sqlite, &operation).await, seed, &done);
        same("postgresql", &expected, &apply(&postgres, &operation).await, seed, &done);
        if number % COMPARED_EVERY == 0 {
            let expected = everything(&memory, &jobs).await;
            same("sqlite", &expected, &everything(&sqlite, &jobs).await, seed, &done);
            same("postgresql", &expected, &everything(&postgres, &jobs).await, seed, &done);
        }
    }
    tell(&format!("seed {seed}: {count} operations alike on three stores: {:?}", generator.counts()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_have_the_same_results_on_all_three_stores() {
    let (count, first) = (variable("STORE_OPERATIONS", 100_000), variable("STORE_SEED", 1));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(side_by_side(first + worker, count / WORKERS));
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
}

/// A memory store that went through `operations`, with the results of the last `tail`.
async fn replayed(operations: &[&Operation], tail: usize, jobs: &[String]) -> (Vec<String>, String) {
    let time = clock();
    let (store, _keep) = memory(&time);
    let mut results = Vec::new();
    for operation in operations {
        match operation {
            Operation::Advance(by) => time.advance(*by),
            other => results.push(apply(&store, other).await),
        }
    }
    let results = results.split_off(results.len() - tail);
    (results, everything(&store, jobs).await)
}

/// Every order of what is in `of`, each with all of it.
fn orders(of: &[usize]) -> Vec<Vec<usize>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let first = |at: usize| {
        let others: Vec<usize> = of.iter().copied().filter(|other| *other != at).collect();
        orders(&others).into_iter().map(move |rest| [vec![at], rest].concat())
    };
    of.iter().flat_map(|at| first(*at)).collect()
}

/// The orders that explain `found`: of all operations, or of all but some that found nothing, for they leave out
/// what another holds at that moment.
fn explanations(racing: &[Operation], found: &[String]) -> Vec<Vec<usize>> {
    let may_leave_out = |at: &usize| racing[*at].found_nothing() == Some(found[*at].as_str());
    let (leaving, all): (Vec<usize>, Vec<usize>) = (0..racing.len()).partition(may_leave_out);
    let parts = (0..1_usize << leaving.len()).rev().map(|part| {
        let with = leaving.iter().enumerate().filter(|(bit, _)| part >> bit & 1 == 1).map(|(_, at)| *at);
        all.iter().copied().chain(with).collect::<Vec<_>>()
    });
    parts.flat_map(|part| orders(&part)).collect()
}

/// What leads up to a race, and the operations that race.
async fn race(seed: u64, jobs: &[String]) -> (Vec<Operation>, Vec<Operation>, Arc<ManualClock>, MemoryStore) {
    let time = clock();
    let (store, _keep) = memory(&time);
    let mut generator = Generator::new(seed, jobs);
    let mut before = Vec::new();
    while before.len() < BEFORE {
        let operation = generator.next(&store, &time).await;
        match &operation {
            Operation::Advance(by) => time.advance(*by),
            other => drop(apply(&store, other).await),
        }
        before.push(operation);
    }
    time.advance(Duration::from_secs(1));
    before.push(Operation::Advance(Duration::from_secs(1)));
    let mut racing = Vec::new();
    while racing.len() < AT_ONCE {
        let operation = generator.next(&store, &time).await;
        // Claims leave out what others hold: that is no order of one after the other.
        if !matches!(operation, Operation::Advance(_)) && !operation.touches_rows() {
            racing.push(operation);
        }
    }
    (before, racing, time, store)
}

async fn at_once<S: Alike>(what: &str, seed: u64, store: &S, time: &Arc<ManualClock>) {
    let jobs = jobs_of(&format!("{what}{seed}-"));
    let (before, racing, ..) = race(seed, &jobs).await;
    for operation in before.iter().filter(|operation| !operation.touches_rows()) {
        match operation {
            Operation::Advance(by) => time.advance(*by),
            other => drop(apply(store, other).await),
        }
    }
    let found = futures_util::future::join_all(racing.iter().map(|operation| apply(store, operation))).await;
    let rows = everything(store, &jobs).await;
    let mut told = Vec::new();
    for order in explanations(&racing, &found) {
        let lead = before.iter().filter(|operation| !operation.touches_rows());
        let all: Vec<&Operation> = lead.chain(order.iter().map(|at| &racing[*at])).collect();
        let (results, state) = replayed(&all, order.len(), &jobs).await;
        let expected: Vec<&String> = order.iter().map(|at| &found[*at]).collect();
        if state == rows && results.iter().eq(expected) {
            return;
        }
        told.push(format!("in the order {order:?}\nresults: {results:#?}\n{}", parted(&state, &rows)));
    }
    panic!(
        "{what}, seed {seed}: at once, these have a result that no order of them has\n{}\nresults: {found:#?}\n{}",
        racing.iter().map(|operation| format!("  {operation:?}")).collect::<Vec<_>>().join("\n"),
        told.first().map_or("", String::as_str)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_at_once_have_the_results_of_one_after_the_other() {
    let (races, first) = (variable("STORE_OPERATIONS", 100_000) / 200, variable("STORE_SEED", 1));
    let (file, _file) = sqlite_db().await;
    let (server, _schema) = postgres_db(8).await;
    for seed in first..first + races {
        let time = clock();
        assert_eq!(time.now(), clock().now());
        at_once("sqlite", seed, &sql(&file, &time), &time).await;
        let time = clock();
        at_once("postgresql", seed, &sql(&server, &time), &time).await;
    }
    tell(&format!("{races} races of {AT_ONCE} operations on sqlite and on postgresql"));
}
