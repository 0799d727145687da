//! The topics against the outbox: nothing lost, nothing invented, nothing out of order.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use broker::{Broker, KafkaBroker, REPLAY_HEADER, Start};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{Check, Log, Window, rows::Reader};

/// Rows and messages that one question brings at most.
const PAGE: usize = 10_000;
/// How long a poll waits, and how long topics are read at most.
const POLL: Duration = Duration::from_millis(500);
const READ_MAX: Duration = Duration::from_secs(600);
/// How long published rows are kept for a replay.
const ROWS_KEPT: TimeDelta = TimeDelta::days(7);
/// What a topic may have dropped by now, less a margin.
const MARGIN: TimeDelta = TimeDelta::hours(1);

/// An event in a topic.
struct Arrived {
    id: Uuid,
    topic: String,
    key: String,
    sequence: i64,
    time: Option<DateTime<Utc>>,
    replay: bool,
}

/// What an envelope says, read by its documentation alone.
fn arrived(topic: String, key: String, body: &[u8], replay: bool) -> Option<Arrived> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    let time = text("time").and_then(|time| time.parse().ok());
    let sequence = text("sequence").and_then(|sequence| sequence.parse().ok()).unwrap_or(0);
    Some(Arrived { id: text("id")?.parse().ok()?, topic, key, sequence, time, replay })
}

pub(super) async fn checks(reader: &Reader, service: &str, log: &Log, window: Window) -> anyhow::Result<Vec<Check>> {
    let topics: Vec<&events::EventType> = events::said_by(service).collect();
    let names: Vec<&str> = topics.iter().map(|topic| topic.name).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    // First what is recorded, then what has arrived: what arrives in between is newer than what is looked for.
    let published = published(reader, window, &topics).await?;
    let read = match log {
        Log::Kafka(config) => kafka(config, &names).await,
        Log::File(file) => embedded(file, &names).await,
    };
    let messages = match read {
        Ok(messages) => messages,
        Err(error) => {
            let mut unread = Check::new("topics");
            unread.first = Some(format!("not read: {error:#}"));
            return Ok(vec![unread]);
        }
    };
    let there: HashSet<Uuid> = messages.iter().map(|message| message.id).collect();
    let mut lost = Check::new("events lost");
    lost.examined = published.len() as u64;
    for (id, what) in &published {
        lost.found(u64::from(!there.contains(id)), || format!("{what} {id} is marked and not in its topic"));
    }
    let unknown = unknown(reader, &messages, window).await?;
    Ok(vec![lost, unknown, order(&messages, window)])
}

/// Events marked as published that a topic must still hold.
async fn published(
    reader: &Reader,
    window: Window,
    topics: &[&events::EventType],
) -> anyhow::Result<Vec<(Uuid, String)>> {
    let kept = topics.iter().map(|topic| topic.retention).min().unwrap_or_default();
    let kept_from = window.now - TimeDelta::from_std(kept).unwrap_or(TimeDelta::MAX) + MARGIN;
    let (from, to) = (window.from.max(kept_from), window.to);
    let (mut all, mut after) = (Vec::new(), 0_i64);
    loop {
        let text = format!(
            "SELECT position, id, topic, key FROM outbox o
             WHERE NOT EXISTS (SELECT 1 FROM outbox_waiting w WHERE w.position = o.position) AND recorded_at >= $1
             AND recorded_at <= $2 AND position > $3 ORDER BY position LIMIT {PAGE}"
        );
        let rows = reader.all(&text, vec![from.into(), to.into(), after.into()]).await?;
        for row in &rows {
            after = row.try_get("", "position")?;
            let (topic, key): (String, String) = (row.try_get("", "topic")?, row.try_get("", "key")?);
            all.push((row.try_get("", "id")?, format!("{topic} of {key}")));
        }
        if rows.len() < PAGE {
            return Ok(all);
        }
    }
}

async fn kafka(config: &broker::KafkaConfig, names: &[&str]) -> anyhow::Result<Vec<Arrived>> {
    let broker = KafkaBroker::new(config.clone())?;
    anyhow::ensure!(broker.healthy().await, "Kafka does not answer");
    let mut reader = broker.tail(names, Start::Earliest).await?;
    let (mut all, began) = (Vec::new(), Instant::now());
    loop {
        anyhow::ensure!(began.elapsed() < READ_MAX, "reading the topics took longer than {READ_MAX:?}");
        let messages = reader.poll(PAGE, POLL).await?;
        if messages.is_empty() && reader.lag().await?.values().sum::<i64>() == 0 {
            break;
        }
        for message in messages {
            let replay = message.headers.iter().any(|(name, _)| name == REPLAY_HEADER);
            all.extend(arrived(message.topic, message.key, &message.body, replay));
        }
    }
    reader.close().await;
    Ok(all)
}

/// The embedded log's file, beside the process that has it open.
async fn embedded(file: &std::path::Path, names: &[&str]) -> anyhow::Result<Vec<Arrived>> {
    let log = Reader::file(file)?;
    let mut all = Vec::new();
    for name in names {
        let mut next = 0_i64;
        loop {
            let text = format!(
                "SELECT offset, key, body, replay FROM events WHERE topic = $1 AND offset >= $2
                 ORDER BY offset LIMIT {PAGE}"
            );
            let rows = log.all(&text, vec![(*name).into(), next.into()]).await?;
            for row in &rows {
                next = row.try_get::<i64>("", "offset")? + 1;
                let (body, replay): (Vec<u8>, String) = (row.try_get("", "body")?, row.try_get("", "replay")?);
                let key = row.try_get("", "key")?;
                all.extend(arrived((*name).to_owned(), key, &body, !replay.is_empty()));
            }
            if rows.len() < PAGE {
                break;
            }
        }
    }
    Ok(all)
}

/// Events in a topic that no row knows of. Rows are read after the topics: an event is in its row before it is in its topic.
async fn unknown(reader: &Reader, messages: &[Arrived], window: Window) -> anyhow::Result<Check> {
    let mut check = Check::new("events without a row");
    let mut known: HashSet<Uuid> = HashSet::new();
    // Rows are kept for a week, and until they have left.
    let from = window.from.max(window.now - ROWS_KEPT + MARGIN);
    let mut after = 0_i64;
    loop {
        let text = format!(
            "SELECT position, id FROM outbox WHERE recorded_at >= $1 AND position > $2 ORDER BY position LIMIT {PAGE}"
        );
        let rows = reader.all(&text, vec![from.into(), after.into()]).await?;
        for row in &rows {
            after = row.try_get("", "position")?;
            known.insert(row.try_get("", "id")?);
        }
        if rows.len() < PAGE {
            break;
        }
    }
    for row in reader.all("SELECT event_id FROM dead_letters WHERE event_id IS NOT NULL", Vec::new()).await? {
        known.insert(row.try_get("", "event_id")?);
    }
    for message in messages.iter().filter(|message| message.time.is_some_and(|at| at >= from && at <= window.to)) {
        check.examined += 1;
        let invented = !known.contains(&message.id);
        check.found(u64::from(invented), || format!("{} of {} {}", message.topic, message.key, message.id));
    }
    Ok(check)
}

/// First arrivals of a key must rise with its versions; what comes again with its id does not count.
fn order(messages: &[Arrived], window: Window) -> Check {
    let mut check = Check::new("events out of order");
    let (mut seen, mut last): (HashSet<Uuid>, HashMap<(&str, &str), i64>) = (HashSet::new(), HashMap::new());
    for message in messages.iter().filter(|message| !message.replay) {
        if !seen.insert(message.id) {
            continue;
        }
        check.examined += 1;
        let newest = last.entry((&message.topic, &message.key)).or_insert(message.sequence);
        if message.sequence < *newest && message.time.is_some_and(|at| at >= window.from && at <= window.to) {
            let (topic, key, sequence) = (&message.topic, &message.key, message.sequence);
            let after = *newest;
            check.found(1, || format!("{topic} of {key}: version {sequence} after {after}"));
        }
        *newest = (*newest).max(message.sequence);
    }
    check
}
