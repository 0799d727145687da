//! `belfry events ...`, `belfry outbox ...`, `belfry dead-letters ...`

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::page_query;
use crate::{
    cli::{DeadLetters, Events, Outbox},
    client::Client,
    output::{Column, Output, text},
};

/// How often `events tail` asks for more.
const TAIL_EVERY: Duration = Duration::from_millis(500);
/// Events a question of `events tail` brings at most.
const TAIL_PAGE: &str = "200";

const WAITING: &[Column] = &[
    ("SERVICE", "service"),
    ("ID", "id"),
    ("TYPE", "topic"),
    ("KEY", "key"),
    ("RECORDED", "recorded_at"),
    ("LAST ERROR", "error"),
];

const LETTER: &[Column] = &[
    ("SERVICE", "service"),
    ("ID", "id"),
    ("DIRECTION", "direction"),
    ("TYPE", "topic"),
    ("KEY", "key"),
    ("ATTEMPTS", "attempts"),
    ("ERROR", "error"),
];

fn rfc3339(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Does what was asked about events.
pub(crate) async fn events(client: &Client, output: &Output, command: Events) -> anyhow::Result<()> {
    match command {
        Events::Tail { event_type, key, since, max } => tail(client, output, event_type, key, since, max).await,
        Events::Replay { service, from, to, types, force } => {
            let body = json!({
                "service": service, "from": rfc3339(&from), "to": rfc3339(&to), "types": types, "force": force,
            });
            let answer = client.post(&["admin", "v1", "events", "replay"], Some(body)).await?;
            let count = text(answer.get("replayed").unwrap_or(&Value::Null));
            output.said(&answer, &format!("{count} events are sent again"))
        }
    }
}

async fn tail(
    client: &Client,
    output: &Output,
    event_type: Option<String>,
    key: Option<String>,
    since: Option<DateTime<Utc>>,
    max: Option<u64>,
) -> anyhow::Result<()> {
    let mut cursor: Option<String> = None;
    let mut shown = 0;
    let since = since.map_or_else(|| "now".to_owned(), |since| rfc3339(&since));
    loop {
        let query = [
            ("type", event_type.clone()),
            ("key", key.clone()),
            ("since", cursor.is_none().then(|| since.clone())),
            ("cursor", cursor.clone()),
            ("limit", Some(TAIL_PAGE.to_owned())),
        ];
        let answer = client.get(&["admin", "v1", "events"], &query).await?;
        let items = answer.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for item in items {
            output.streamed(item, &sentence(item))?;
            shown += 1;
            if max.is_some_and(|max| shown >= max) {
                return Ok(());
            }
        }
        cursor = answer.get("next_cursor").and_then(Value::as_str).map(str::to_owned).or(cursor);
        if items.is_empty() {
            #[expect(clippy::disallowed_methods, reason = "a person watches; there is nothing to wake on")]
            tokio::time::sleep(TAIL_EVERY).await;
        }
    }
}

/// An event in one line.
fn sentence(item: &Value) -> String {
    let part = |pointer: &str| text(item.pointer(pointer).unwrap_or(&Value::Null));
    let data = item.pointer("/event/data").cloned().unwrap_or(Value::Null);
    format!("{}  {}  {}  {}", part("/event/time"), part("/topic"), part("/key"), text(&Value::String(data.to_string())))
}

/// Does what was asked about what waits to leave.
pub(crate) async fn outbox(client: &Client, output: &Output, command: Outbox) -> anyhow::Result<()> {
    let (service, id, verb, words) = match command {
        Outbox::List(page) => {
            let answer = client.get(&["admin", "v1", "outbox"], &page_query(&page)).await?;
            return output.list(&answer, WAITING, "nothing waits");
        }
        Outbox::Retry { service, id } => (service, id, "retry", "is tried now"),
        Outbox::Skip { service, id } => (service, id, "skip", "is among the dead letters"),
    };
    let answer = client.post(&["admin", "v1", "outbox", &service, &id.to_string(), verb], None).await?;
    output.said(&answer, &format!("{id} {words}"))
}

/// Does what was asked about dead letters.
pub(crate) async fn dead_letters(client: &Client, output: &Output, command: DeadLetters) -> anyhow::Result<()> {
    let (service, id, verb, words) = match command {
        DeadLetters::List(page) => {
            let answer = client.get(&["admin", "v1", "dead-letters"], &page_query(&page)).await?;
            return output.list(&answer, LETTER, "no dead letters");
        }
        DeadLetters::Replay { service, id } => (service, id, "replay", "is tried again"),
        DeadLetters::Discard { service, id } => (service, id, "discard", "is given up"),
    };
    let answer = client.post(&["admin", "v1", "dead-letters", &service, &id.to_string(), verb], None).await?;
    output.said(&answer, &format!("{id} {words}"))
}
