//! The auditor and the doctor: silent where all is well, and each fault that is planted is found.

use std::time::Duration;

use broker::{Broker, KafkaBroker, KafkaConfig, Record};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use test_kit::{Home, Process, Server, Signal, eventually};
use uuid::Uuid;

use crate::{Said, published, run, up};

/// Asks the auditor or the doctor of the platform that lives here.
fn asked(command: &[&str], home: &Home) -> Said {
    let folder = home.folder().to_string_lossy().into_owned();
    let mut args = command.to_vec();
    args.extend(["--data-dir", &folder, "--json"]);
    let vars: Vec<(&str, &str)> = home.vars().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    run(&args, &vars)
}

/// The checks that found something, with the exit code.
fn found(said: &Said) -> (i32, Vec<String>) {
    let answer: Value =
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {} {}", said.out, said.err));
    let items = answer["items"].as_array().expect("a list");
    let bad = items.iter().filter(|item| item["found"].as_u64().is_some_and(|found| found > 0));
    (said.code, bad.map(|item| item["check"].as_str().expect("a name").to_owned()).collect())
}

/// Some ticks, a post on time, and nothing on its way.
async fn worked(platform: &Process, home: &Home) {
    published(platform, "Told", 300).await;
    eventually("some ticks, and all has left", async || {
        let said = asked(&["audit"], home);
        let answer: Value = serde_json::from_str(&said.out).ok()?;
        let examined =
            |check: &str| answer["items"].as_array()?.iter().find(|item| item["check"] == check)?["examined"].as_u64();
        (examined("instants missing")? >= 5 && examined("events lost")? >= 3).then_some(())
    })
    .await;
}

const OFTEN: &[(&str, &str)] = &[("POST_PUBLISHER_INTERVAL", "500ms")];

#[tokio::test]
async fn a_platform_on_files_is_audited_while_it_runs_and_is_clean() {
    let home = Home::embedded();
    let platform = up(&home, OFTEN).await;
    worked(&platform, &home).await;
    assert_eq!(found(&asked(&["audit"], &home)), (0, Vec::new()));
    let said = asked(&["doctor"], &home);
    assert_eq!(said.code, 0, "{}", said.out);
    let table = run(&["audit", "--data-dir", &home.folder().to_string_lossy()], &[]);
    assert!(table.out.contains("instants missing") && table.out.contains("events lost"), "{}", table.out);
}

/// The tables that are put back after each planted fault.
const TABLES: &[&str] = &["job_runs", "job_schedules", "outbox", "outbox_waiting", "inbox", "dead_letters", "posts"];

async fn keep(rows: &mut PgConnection) {
    rows.execute("CREATE SCHEMA kept").await.expect("a schema");
    for table in TABLES {
        let text = format!("CREATE TABLE kept.{table} AS TABLE blog.{table}");
        rows.execute(AssertSqlSafe(text)).await.expect("a copy");
    }
}

async fn put_back(rows: &mut PgConnection) {
    for table in TABLES {
        let text = format!(
            "TRUNCATE blog.{table} CASCADE; INSERT INTO blog.{table} OVERRIDING SYSTEM VALUE SELECT * FROM kept.{table}"
        );
        rows.execute(AssertSqlSafe(text)).await.expect("it is put back");
    }
}

/// Each fault, and the check that must find it.
const FAULTS: &[(&str, &str)] = &[
    ("instants missing", "DELETE FROM job_runs WHERE id = (SELECT id FROM middle)"),
    (
        "instants doubled",
        "INSERT INTO job_runs SELECT (jsonb_populate_record(r, jsonb_build_object('id', gen_random_uuid(), 'run_key', 'tick:x'))).*
         FROM job_runs r WHERE id = (SELECT id FROM middle)",
    ),
    ("rows unexplained", "UPDATE job_runs SET instants = 5 WHERE id = (SELECT id FROM middle)"),
    ("rows unexplained", "UPDATE job_runs SET outcome = NULL WHERE id = (SELECT id FROM middle)"),
    ("rows unexplained", "UPDATE job_runs SET into_run = gen_random_uuid() WHERE id = (SELECT id FROM middle)"),
    ("jobs overdue", "UPDATE job_schedules SET next_at = now() - interval '5 minutes'"),
    (
        "runs stuck",
        "UPDATE job_runs SET state = 'running', outcome = NULL, finished_at = NULL, owner = 'gone',
             lease_until = now() - interval '5 minutes' WHERE id = (SELECT id FROM middle)",
    ),
    ("due rows stuck", "UPDATE posts SET due_at = now() - interval '5 minutes'"),
    (
        "events not delivered",
        "WITH late AS (UPDATE outbox SET recorded_at = now() - interval '5 minutes'
             WHERE position = (SELECT min(position) FROM outbox) RETURNING position, key)
         INSERT INTO outbox_waiting SELECT position, key FROM late",
    ),
    (
        "events lost",
        "INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at)
         SELECT gen_random_uuid(), topic, key, 99, body, headers, recorded_at FROM outbox LIMIT 1",
    ),
    ("events without a row", "DELETE FROM outbox WHERE position = (SELECT min(position) FROM outbox)"),
    (
        "effects told twice",
        "INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at)
         SELECT gen_random_uuid(), topic, key, sequence, body, headers, recorded_at FROM outbox LIMIT 1",
    ),
    (
        "dead letters",
        "INSERT INTO dead_letters (id, direction, consumer, topic, key, body, headers, error, attempts, given_up_at)
         VALUES (gen_random_uuid(), 'out', 'relay', 't', 'k', '', '[]', 'no', 1, now())",
    ),
    (
        "effects applied twice",
        "ALTER TABLE inbox DROP CONSTRAINT inbox_pkey; INSERT INTO inbox (consumer, event_id, taken_at)
         SELECT 'c', '0195a000-0000-7000-8000-000000000001', now() FROM generate_series(1, 2)",
    ),
];

#[tokio::test]
async fn each_fault_that_is_planted_in_rows_and_topics_is_found() {
    let mut kafka = Server::kafka();
    kafka.start().await;
    let url = test_kit::database().await;
    let home = Home::at(Some(&url), Some(&kafka.address()));
    let mut platform = up(&home, OFTEN).await;
    worked(&platform, &home).await;
    platform.signal(Signal::Terminate);
    assert!(platform.ended(Duration::from_secs(30)).success());
    assert_eq!(found(&asked(&["audit"], &home)), (0, Vec::new()), "nothing is left to find");

    let mut rows = home.rows("blog").await;
    rows.execute(
        "CREATE TEMPORARY VIEW middle AS SELECT id FROM job_runs WHERE wake_source = 'tick' AND state = 'done'
         ORDER BY nominal_at OFFSET 2 LIMIT 1",
    )
    .await
    .expect("a view");
    keep(&mut rows).await;
    for (check, fault) in FAULTS {
        rows.execute(*fault).await.unwrap_or_else(|error| panic!("{check}: {error}"));
        let (code, checks) = found(&asked(&["audit"], &home));
        assert!(code == 1 && checks.iter().any(|found| found == check), "{check}: found {checks:?}");
        put_back(&mut rows).await;
    }
    assert_eq!(found(&asked(&["audit"], &home)), (0, Vec::new()), "all is put back");

    out_of_order(&mut rows, &kafka.address()).await;
    assert_eq!(found(&asked(&["audit"], &home)), (1, vec!["events out of order".to_owned()]));
    rows.close().await.expect("it closes");

    kafka.kill();
    let said = asked(&["audit"], &home);
    assert!(said.code == 0 && said.out.contains("not read"), "without topics the rows are audited: {}", said.out);
}

/// Sends an event with a version before the one that its key has reached; its row says the same.
async fn out_of_order(rows: &mut PgConnection, kafka: &str) {
    let id = Uuid::now_v7();
    let text = format!(
        "INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at)
         SELECT '{id}', topic, key, -1, body, headers, now() FROM outbox ORDER BY position LIMIT 1
         RETURNING topic, key, recorded_at"
    );
    let row = sqlx::query(AssertSqlSafe(text)).fetch_one(rows).await.expect("a row");
    let (topic, key): (String, String) = (sqlx::Row::get(&row, "topic"), sqlx::Row::get(&row, "key"));
    let at: chrono::DateTime<chrono::Utc> = sqlx::Row::get(&row, "recorded_at");
    let body = json!({ "id": id, "type": topic, "source": "blog-service", "time": at, "sequence": "-1", "data": {} });
    let record = Record { id, topic, key, body: body.to_string().into(), headers: Vec::new() };
    let broker = KafkaBroker::new(KafkaConfig::new(kafka)).expect("a broker");
    assert_eq!(broker.producer().send(vec![record]).await, [Ok(())]);
}

#[tokio::test]
async fn the_doctor_says_what_would_cost_promises_and_what_to_do() {
    let mut kafka = Server::kafka();
    kafka.start().await;
    let url = test_kit::database().await;
    let home = Home::at(Some(&url), Some(&kafka.address()));
    let bad = |said: &Said| -> Vec<String> {
        let answer: Value = serde_json::from_str(&said.out).expect("JSON");
        let items = answer["items"].as_array().expect("a list");
        let bad = items.iter().filter(|item| item["state"] != "well");
        bad.inspect(|item| assert!(item["what_to_do"].as_str().is_some_and(|text| !text.is_empty()), "{item}"))
            .map(|item| item["check"].as_str().expect("a name").to_owned())
            .collect()
    };
    let before = asked(&["doctor"], &home);
    assert_eq!(before.code, 1);
    let found = bad(&before);
    assert!(
        found.contains(&"blog: tables".to_owned()) && found.contains(&"Kafka: topics missing".to_owned()),
        "{found:?}"
    );

    let platform = up(&home, OFTEN).await;
    worked(&platform, &home).await;
    let mut rows = home.rows("blog").await;
    let name = url.rsplit_once('/').expect("a name").1;
    for (setting, value) in [("synchronous_commit", "off"), ("default_transaction_read_only", "on")] {
        let text = format!("ALTER DATABASE {name} SET {setting} = {value}");
        rows.execute(AssertSqlSafe(text)).await.expect("it is set");
    }
    let said = asked(&["doctor"], &home);
    let found = bad(&said);
    for check in ["PostgreSQL: synchronous_commit", "PostgreSQL: default_transaction_read_only"] {
        assert!(found.contains(&check.to_owned()), "{check}: {}", said.out);
    }
    for check in ["clock of the database", "clock of the broker", "blog: tables", "Kafka: compacted", "time-zone rules"]
    {
        assert!(said.out.contains(check) && !found.contains(&check.to_owned()), "{check}: {}", said.out);
    }
}
