//! `belfry jobs ...`

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::page_query;
use crate::{
    cli::{From, JobName, Jobs},
    client::Client,
    output::{Column, Output, text},
};

const JOB: &[Column] = &[
    ("SERVICE", "service"),
    ("JOB", "name"),
    ("SCHEDULE", "schedule.text"),
    ("ENABLED", "enabled"),
    ("PAUSED", "paused"),
    ("RUNNING", "running"),
    ("NEXT RUN", "next_run_at"),
    ("LAST OUTCOME", "last_run.outcome"),
    ("LAST SUCCESS", "last_success_at"),
];

const RUN: &[Column] = &[
    ("STARTED", "started_at"),
    ("NOMINAL", "nominal_at"),
    ("WOKEN BY", "wake_source"),
    ("STATE", "state"),
    ("OUTCOME", "outcome"),
    ("ITEMS", "items"),
    ("LATE MS", "lateness_ms"),
    ("ATTEMPT", "attempt"),
    ("ERROR", "error"),
];

const FAILURE: &[Column] = &[
    ("ROW", "row_id"),
    ("ATTEMPTS", "attempts"),
    ("NEXT ATTEMPT", "next_attempt_at"),
    ("GIVEN UP", "given_up_at"),
    ("ERROR", "error"),
];

fn path<'a>(job: &'a JobName, rest: &[&'a str]) -> Vec<&'a str> {
    ["admin", "v1", "jobs", &job.service, &job.job].into_iter().chain(rest.iter().copied()).collect()
}

fn rfc3339(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn word(answer: &Value, field: &str) -> String {
    text(answer.get(field).unwrap_or(&Value::Null))
}

/// Does what was asked about jobs.
pub(crate) async fn jobs(client: &Client, output: &Output, command: Jobs) -> anyhow::Result<()> {
    match command {
        Jobs::List => output.list(&client.get(&["admin", "v1", "jobs"], &[]).await?, JOB, "no jobs"),
        Jobs::Show { job } => output.one(&client.get(&path(&job, &[]), &[]).await?),
        Jobs::Runs { job, page } => {
            output.list(&client.get(&path(&job, &["runs"]), &page_query(&page)).await?, RUN, "no runs yet")
        }
        Jobs::Plan { job, count } => {
            let answer = client.get(&path(&job, &["plan"]), &[("count", Some(count.to_string()))]).await?;
            output.list(&answer, &[("NOMINAL", "nominal_at"), ("FIRES", "fire_at")], "it never fires by itself")
        }
        Jobs::Why { job, at } => {
            let answer = client.get(&path(&job, &["why"]), &[("at", Some(rfc3339(&at)))]).await?;
            output.said(&answer, &word(&answer, "text"))
        }
        Jobs::Failures { job, retry: Some(row), .. } => {
            let answer = client.post(&path(&job, &["failures", &row.to_string(), "retry"]), None).await?;
            output.said(&answer, &format!("row {row} may be claimed again"))
        }
        Jobs::Failures { job, retry: None, page } => {
            let answer = client.get(&path(&job, &["failures"]), &page_query(&page)).await?;
            output.list(&answer, FAILURE, "no row is set aside")
        }
        steer => self::steer(client, output, steer).await,
    }
}

/// Commands that change something.
async fn steer(client: &Client, output: &Output, command: Jobs) -> anyhow::Result<()> {
    match command {
        Jobs::Run { job, key, input } => {
            let body = match input {
                Some(input) => Some(json!({ "input": serde_json::from_str::<Value>(&input)? })),
                None => None,
            };
            let answer = client.post_once(&path(&job, &["run"]), body, key.as_deref()).await?;
            output.said(&answer, &format!("run {} is {}", word(&answer, "id"), word(&answer, "state")))
        }
        Jobs::Pause { job, reason, until } => {
            let mut body = json!({ "reason": reason });
            if let Some(until) = until {
                body["until"] = rfc3339(&until).into();
            }
            let answer = client.post(&path(&job, &["pause"]), Some(body)).await?;
            output.said(&answer, &format!("{}/{} is paused", job.service, job.job))
        }
        Jobs::Resume { job, from } => {
            let from = match from {
                From::Now => "now",
                From::CatchUp => "catch_up",
            };
            let answer = client.post(&path(&job, &["resume"]), Some(json!({ "from": from }))).await?;
            output.said(
                &answer,
                &format!("{}/{} goes on, next run {}", job.service, job.job, word(&answer, "next_run_at")),
            )
        }
        Jobs::Backfill { job, from, to } => {
            let body = json!({ "from": rfc3339(&from), "to": rfc3339(&to) });
            let answer = client.post(&path(&job, &["backfill"]), Some(body)).await?;
            output.list(&answer, RUN, "no instant in the range")
        }
        _ => Ok(()),
    }
}
