//! `belfry doctor`: looks at what the services run on, and says what would cost promises and what to do.

mod database;
mod kafka;

use std::process::ExitCode;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde_json::json;
use service_kit::{Service, config::Config};

use crate::{
    cli::{FAILED, Services},
    output::{Column, Output},
    platform,
};

/// Clocks may differ by this much; leases and graces are much longer.
const SKEW_MAX: TimeDelta = TimeDelta::seconds(1);
/// Zones change their rules several times a year.
const RULES_YEARS_MAX: i32 = 1;

const COLUMNS: &[Column] = &[("CHECK", "check"), ("STATE", "state"), ("FOUND", "found"), ("WHAT TO DO", "what_to_do")];

/// What one look found.
struct Finding {
    check: String,
    state: State,
    found: String,
    what_to_do: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Well,
    Bad,
    /// It could not be looked at.
    Unknown,
}

impl Finding {
    fn well(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Well, found: found.into(), what_to_do: "" }
    }

    fn unknown(check: impl Into<String>, why: &dyn std::fmt::Display) -> Self {
        let what_to_do = "make it reachable from here, and ask again";
        Self { check: check.into(), state: State::Unknown, found: why.to_string(), what_to_do }
    }

    /// Bad unless it holds.
    fn unless(holds: bool, check: impl Into<String>, found: impl Into<String>, what_to_do: &'static str) -> Self {
        let (check, found) = (check.into(), found.into());
        if holds { Self::well(check, found) } else { Self { check, state: State::Bad, found, what_to_do } }
    }
}

pub(crate) fn doctor(asked: &Services, json: bool) -> ExitCode {
    let output = Output::new(json);
    let (services, config) = match platform::configured(asked) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let looked = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(look(&services, &config)));
    let told = looked.map_err(anyhow::Error::from).and_then(|findings| tell(&output, &findings));
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            output.error(&error);
            ExitCode::from(FAILED)
        }
    }
}

fn tell(output: &Output, findings: &[Finding]) -> anyhow::Result<bool> {
    let item = |finding: &Finding| {
        let state = match finding.state {
            State::Well => "well",
            State::Bad => "bad",
            State::Unknown => "unknown",
        };
        json!({ "check": finding.check, "state": state, "found": finding.found, "what_to_do": finding.what_to_do })
    };
    let items: Vec<_> = findings.iter().map(item).collect();
    let well = findings.iter().all(|finding| finding.state == State::Well);
    output.list(&json!({ "items": items, "well": well }), COLUMNS, "nothing to look at")?;
    Ok(well)
}

async fn look(services: &[Service], config: &Config) -> Vec<Finding> {
    let mut findings = vec![rules(now())];
    findings.extend(database::look(services, config).await);
    findings.extend(kafka::look(services, config).await);
    findings
}

fn now() -> DateTime<Utc> {
    #[expect(clippy::disallowed_methods, reason = "the doctor compares this machine's clock with others")]
    Utc::now()
}

/// How old the rules of time zones are that are built in; their name begins with their year.
fn rules(now: DateTime<Utc>) -> Finding {
    let version = scheduler::schedule::tzdata_version();
    let year: Option<i32> = version.get(..4).and_then(|year| year.parse().ok());
    let young = year.is_some_and(|year| now.year() - year <= RULES_YEARS_MAX);
    Finding::unless(young, "time-zone rules", version, "update to a newer release: zones change their rules every year")
}

/// A clock against ours, given the moments before and after it was asked.
fn skew(whose: &str, theirs: DateTime<Utc>, before: DateTime<Utc>, after: DateTime<Utc>) -> Finding {
    // What lies between is the way there and back.
    let off = if theirs < before {
        before - theirs
    } else if theirs > after {
        theirs - after
    } else {
        TimeDelta::zero()
    };
    Finding::unless(
        off <= SKEW_MAX,
        format!("clock of {whose}"),
        format!("{} ms apart", off.num_milliseconds()),
        "keep all clocks in step (NTP); what is due is decided by the database's clock",
    )
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};

    use super::{State, rules, skew};

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a moment")
    }

    #[test]
    fn old_rules_are_a_finding() {
        assert!(rules(at("2026-11-26T00:00:00Z")).state == State::Well);
        assert!(rules(at("2029-01-01T00:00:00Z")).state == State::Bad);
    }

    #[test]
    fn a_clock_is_apart_only_as_far_as_the_way_does_not_explain() {
        let (before, after) = (at("2026-11-26T00:00:00Z"), at("2026-11-26T00:00:05Z"));
        for (theirs, state) in [
            (before + TimeDelta::seconds(2), State::Well),
            (before - TimeDelta::seconds(1), State::Well),
            (before - TimeDelta::milliseconds(1_001), State::Bad),
            (after + TimeDelta::milliseconds(1_001), State::Bad),
        ] {
            assert!(skew("it", theirs, before, after).state == state, "{theirs}");
        }
    }
}
