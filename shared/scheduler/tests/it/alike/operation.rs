//! What can be asked of a store, and what it answers, as text that can be compared.

use std::{fmt::Debug, time::Duration};

use scheduler::{
    Instant, StoreError,
    kinds::{Held, LeaseTake, Take},
    ledger::{Ending, NewRun, Outcome, Pause, RunRow},
    policy::{Decision, Resume},
    store::{Announcement, QueueOf, Recovery, Retention, RunPage, Window},
};
use serde_json::Value;
use uuid::Uuid;

use super::rows::Alike;
use crate::world::LEASE;

/// One operation, with everything it is given.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Advance(Duration),
    Announce(String, Announcement),
    Schedules(Vec<String>),
    Look(Vec<String>),
    Replicas(String),
    Decide(Vec<Decision>, String),
    Enqueue(String, NewRun, u64),
    TakeQueued(Vec<QueueOf>, String),
    Running(Vec<String>),
    Recover(Vec<Recovery>, Vec<(Held, i64)>, String),
    Renew(Vec<Held>),
    Finish(Held, Ending),
    Note(String, Uuid, Outcome),
    Release(Held),
    Fenced(Held),
    Pause(String, Pause),
    Resume(String, Resume),
    Override(String, i64, Option<Value>, (Instant, Option<Instant>)),
    Run(Uuid),
    Runs(RunPage),
    RunAt(String, Instant),
    PreviousSuccess(String),
    SetAside(String, Uuid, String),
    Failures(String, Option<Uuid>, u64),
    Retry(String, Uuid),
    NextFailure(String),
    Prune(String, Retention),
    Record(String, String, NewRun, Ending),
    Work(Vec<Statement>, bool),
}

/// A statement of a work transaction.
#[derive(Debug, Clone)]
pub(crate) enum Statement {
    Complete(Held, Ending),
    Checkpoint(Held, i64, Option<Value>),
    Wait(Held, i64, Value, Instant),
    Window(Window),
    Clear(String, Vec<Uuid>),
    Put(Uuid, Instant),
    Arm(Uuid, Instant),
    Take(Take, Option<Instant>),
    Claim(LeaseTake),
    Lock(Vec<Held>),
    Extend(Vec<Held>, Instant),
    GiveBack(Vec<Held>, Instant),
    Settle(Vec<Held>, Option<Instant>),
    NextDue(String),
}

impl Operation {
    /// Whether it reads or writes the table of due rows, which all jobs share.
    pub(crate) fn touches_rows(&self) -> bool {
        use Statement::{Arm, Claim, Extend, GiveBack, Lock, NextDue, Put, Settle, Take};
        let of_rows = |statement: &Statement| {
            matches!(
                statement,
                Put(..) | Arm(..) | Take(..) | Claim(_) | Lock(_) | Extend(..) | GiveBack(..) | Settle(..) | NextDue(_)
            )
        };
        matches!(self, Self::Work(statements, _) if statements.iter().any(of_rows))
    }

    /// What it says when all it looked for was held by others: it leaves that out and is asked again later.
    pub(crate) fn found_nothing(&self) -> Option<&'static str> {
        match self {
            Self::TakeQueued(..) => Some("[]"),
            Self::Recover(..) => Some("([], [])"),
            _ => None,
        }
    }

    /// Its name, for counting.
    pub(crate) fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
    }
}

/// An answer as text; of an error only its kind, for each engine has words of its own.
fn told<T: Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("error, transient: {}", error.is_transient()),
    }
}

/// Rows in an order of ours, where the contract names none.
fn by_id(mut rows: Vec<RunRow>) -> Vec<RunRow> {
    rows.sort_by_key(|row| row.id);
    rows
}

/// Carries the operation out; what the store answered.
pub(crate) async fn apply<S: Alike>(store: &S, operation: &Operation) -> String {
    use Operation as O;
    match operation {
        O::Advance(_) => String::new(),
        O::Announce(replica, said) => told(store.announce(replica, std::slice::from_ref(said)).await),
        O::Schedules(jobs) => told(store.schedules(jobs).await.map(|mut rows| {
            rows.sort_by(|a, b| a.job.cmp(&b.job));
            rows
        })),
        O::Look(jobs) => told(store.look(jobs).await.map(|mut look| {
            look.schedules.sort_by(|a, b| a.job.cmp(&b.job));
            look
        })),
        O::Replicas(job) => told(store.replicas(job).await.map(|mut rows| {
            rows.sort_by(|a, b| a.replica.cmp(&b.replica));
            rows
        })),
        O::Decide(decisions, owner) => told(store.decide(decisions.clone(), owner, LEASE).await),
        O::Enqueue(job, run, limit) => told(store.enqueue(job, run.clone(), *limit).await),
        O::TakeQueued(jobs, owner) => told(store.take_queued(jobs, owner, LEASE).await.map(by_id)),
        O::Running(jobs) => told(store.running(jobs).await.map(by_id)),
        O::Recover(jobs, stale, owner) => {
            told(store.recover(jobs, stale, owner, LEASE).await.map(|found| (by_id(found.resumed), by_id(found.ended))))
        }
        O::Renew(held) => told(store.renew(held, LEASE).await.map(|mut renewals| {
            renewals.sort_by_key(|renewal| (renewal.held.id, renewal.held.epoch));
            renewals
        })),
        O::Finish(held, ending) => told(store.finish(*held, ending).await),
        O::Note(job, run, outcome) => told(store.note(job, *run, *outcome).await),
        O::Release(held) => told(store.release(*held).await),
        O::Fenced(held) => told(store.fenced(*held).await),
        O::Pause(job, pause) => told(store.pause(job, pause).await),
        O::Resume(job, resume) => told(store.resume(job, resume).await),
        O::Override(job, epoch, overrides, next) => {
            told(store.set_override(job, *epoch, overrides.clone(), *next).await)
        }
        O::Run(id) => told(store.run(*id).await),
        O::Runs(page) => told(store.runs(page).await),
        O::RunAt(job, at) => told(store.run_at(job, *at).await),
        O::PreviousSuccess(job) => told(store.previous_success(job).await),
        O::SetAside(job, row, error) => told(store.set_aside(job, *row, error).await),
        O::Failures(job, after, limit) => told(store.failures(job, *after, *limit).await),
        O::Retry(job, row) => told(store.retry_failure(job, *row).await),
        O::NextFailure(job) => told(store.next_failure(job).await),
        O::Prune(job, keep) => told(store.prune(job, *keep).await),
        O::Record(job, owner, run, ending) => told(store.record(job, owner, run.clone(), ending).await),
        O::Work(statements, commit) => work(store, statements, *commit).await,
    }
}

async fn work<S: Alike>(store: &S, statements: &[Statement], commit: bool) -> String {
    let (mut tx, now) = store.begin(LEASE).await.unwrap();
    let mut answers = vec![now.to_string()];
    for statement in statements {
        let answer = carry_out(store, &mut tx, statement).await;
        let fenced = answer == "Ok(false)";
        answers.push(answer);
        if fenced {
            // The contract: whoever is fenced rolls back.
            store.rollback(tx).await.unwrap();
            return answers.join("; ");
        }
    }
    answers.push(told(if commit { store.commit(tx).await } else { store.rollback(tx).await }));
    answers.join("; ")
}

/// One statement of a transaction.
async fn carry_out<S: Alike>(store: &S, tx: &mut S::Tx, statement: &Statement) -> String {
    let kind = |answer: Result<bool, StoreError>| format!("{:?}", answer.map_err(|error| error.is_transient()));
    let sorted = |mut held: Vec<Held>| {
        held.sort_by_key(|held| held.id);
        format!("{held:?}")
    };
    match statement {
        Statement::Complete(held, ending) => kind(store.complete(tx, *held, ending).await),
        Statement::Checkpoint(held, items, cursor) => kind(store.checkpoint(tx, *held, *items, cursor.as_ref()).await),
        Statement::Wait(held, items, cursor, until) => kind(store.wait(tx, *held, *items, cursor, *until).await),
        Statement::Window(window) => told(store.window(tx, window).await),
        Statement::Clear(job, rows) => told(store.clear_failures(tx, job, rows).await),
        Statement::Put(id, due) => {
            store.put(tx, *id, *due).await;
            String::new()
        }
        Statement::Arm(id, due) => {
            store.settle(tx, *id, Some(*due)).await;
            String::new()
        }
        Statement::Take(take, then) => {
            let taken = store.take(tx, take).await;
            for id in &taken {
                store.settle(tx, *id, *then).await;
            }
            format!("{taken:?}")
        }
        Statement::Claim(take) => format!("{:?}", store.claim(tx, take).await),
        Statement::Lock(held) => sorted(store.lock(tx, held).await),
        Statement::Extend(held, until) => sorted(store.extend(tx, held, *until).await),
        Statement::GiveBack(held, now) => {
            store.give_back(tx, held, *now).await;
            String::new()
        }
        Statement::Settle(held, due) => {
            let ours = store.lock(tx, held).await;
            for held in &ours {
                store.settle(tx, held.id, *due).await;
            }
            sorted(ours)
        }
        Statement::NextDue(job) => format!("{:?}", store.next_due(tx, job).await),
    }
}

/// Every row of these jobs, and every due row.
pub(crate) async fn everything<S: Alike>(store: &S, jobs: &[String]) -> String {
    let mut all = vec![apply(store, &Operation::Schedules(jobs.to_vec())).await];
    for job in jobs {
        let page = RunPage { job: job.clone(), before: None, outcomes: Vec::new(), limit: 1_000 };
        for question in
            [Operation::Replicas(job.clone()), Operation::Runs(page), Operation::Failures(job.clone(), None, 1_000)]
        {
            all.push(apply(store, &question).await);
        }
    }
    all.push(format!("{:?}", store.things().await));
    all.join("\n")
}
