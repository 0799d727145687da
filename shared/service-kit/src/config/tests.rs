//! What is refused, and how it is told.

use chrono::{DateTime, TimeDelta, Utc};
use scheduler::Kind;
use test_kit::fuzz;

use super::*;

/// What values of variables are made of.
const WORDS: &[&str] = &[
    "*",
    "*/",
    "/0",
    ",",
    "-",
    "L",
    "W",
    "#",
    "LW",
    "?",
    "@",
    "MON",
    "60",
    "99999999999999999999",
    "-1",
    " ",
    "\t",
    "\n",
    "\0",
    "é",
    "s",
    "ms",
    "h",
    "d",
    "years",
    "1e9",
    "0",
    "%",
    "postgres://",
    ":",
    "@",
    "//",
    "Europe/Berlin",
    "../../etc",
];

/// Values by the variable that takes them.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "_CRON",
        &[
            "*/5 * * * *",
            "0 3 * * MON-FRI",
            "0 0 L,15W * *",
            "30 2 1-7 * 1#1",
            "@daily",
            "0 0 0 29 2 *",
            "5/10 0-23/2 * JAN,6 ?",
        ],
    ),
    ("_TIMEZONE", &["UTC", "Europe/Berlin", "America/St_Johns", "Etc/GMT+12"]),
    ("_INTERVAL", &["5m", "1h 30m", "250ms", "7days", "1month"]),
    ("_MISFIRE_GRACE", &["2m", "1s"]),
    ("_JITTER", &["0s", "10s", "900ms"]),
    ("_TIMEOUT", &["30s", "1h30m"]),
    ("_ENABLED", &["true", "false"]),
    ("_COALESCE", &["latest", "all"]),
    ("_OVERLAP", &["skip", "buffer_all"]),
    ("_DST", &["vixie", "literal"]),
];

fn job(vars: &[(&str, &str)]) -> Result<JobSettings, Vec<Invalid>> {
    let mut vars = vars.iter().map(|(suffix, value)| (format!("JOB{suffix}"), (*value).to_owned())).collect();
    let default = Schedule::Interval { every: std::time::Duration::from_secs(300) };
    JobSettings::take("JOB", &mut vars, default, Kind::Tick)
}

#[test]
fn fuzz_a_schedule_is_refused_by_its_variable_or_goes_on_and_on() {
    let now: DateTime<Utc> = DateTime::from_timestamp_nanos(1_795_000_000_000_000_000);
    for (suffix, examples) in EXAMPLES {
        fuzz::all(1_500, fuzz::text(examples, WORDS), |value| {
            let zone = [("_CRON", "30 2 * * *")];
            let beside: &[(&str, &str)] = if ["_TIMEZONE", "_DST"].contains(suffix) { &zone } else { &[] };
            match job(&[beside, &[(suffix, &value)]].concat()) {
                Ok(settings) => {
                    let mut last = now;
                    for _ in 0..20 {
                        let next = settings.spec.next_after(now, last).expect("what is accepted fires some day");
                        let fires = settings.spec.fire_at("job", now, next);
                        assert!(next > last && fires >= next && fires - next <= TimeDelta::days(3_660), "{value:?}");
                        last = next;
                    }
                }
                Err(wrong) => {
                    assert_eq!(wrong[0].variable, format!("JOB{suffix}"));
                    assert_eq!(wrong[0].value, value);
                    let told = Refused(wrong).to_string();
                    assert!(!told.trim_end_matches('\n').chars().any(|c| c.is_control() && c != '\n'), "{told:?}");
                    assert_eq!(told.lines().count(), 2, "one line for each: {told:?}");
                }
            }
        });
    }
}

#[test]
fn fuzz_a_process_is_refused_by_its_variables_and_tells_no_secret() {
    let start = Start { embedded: true, data_dir: "data".into(), port: 8081 };
    let examples: &[(&str, &[&str])] = &[
        (
            "DATABASE_URL",
            &["postgres://belfry:hunter2@db.example.org:5432/belfry?sslmode=require", "sqlite:///var/x.sqlite"],
        ),
        ("KAFKA_BROKERS", &["kafka:9092,[::1]:9093", "127.0.0.1:9092"]),
        ("HTTP_ADDR", &["127.0.0.1:8080", "[::1]:80"]),
        ("ADMIN_ADDR", &["127.0.0.1:9080"]),
        ("SHUTDOWN_GRACE", &["25s", "1h"]),
        ("RUST_LOG", &["info,scheduler=debug", "off"]),
        ("RATE_LIMIT_RPS", &["0", "4294967295"]),
        ("KEYCLOAK_URL", &["https://id.example.org", "http://127.0.0.1:8080"]),
        ("LOG_FORMAT", &["json", "human"]),
    ];
    for (name, examples) in examples {
        fuzz::all(1_000, fuzz::text(examples, WORDS), |value| {
            let vars = BTreeMap::from([((*name).to_owned(), value.clone())]);
            if let Err(refused) = Config::read(vars, &[], &start) {
                let told = refused.to_string();
                assert!(!told.contains("hunter2"), "{told}");
                assert!(refused.0.iter().all(|wrong| !wrong.expected.is_empty()), "{told}");
            }
        });
    }
}
