//! The catalogue, and the page that is made of it.

use std::{collections::HashSet, fmt::Write};

use events::State;
use serde_json::Value;

use crate::samples;

#[test]
fn names_are_service_noun_and_past_verb_and_are_used_once() {
    let mut seen = HashSet::new();
    for event in events::catalogue() {
        assert!(seen.insert(event.name), "{} twice", event.name);
        assert!(event.name.starts_with(&format!("{}.", event.service)), "{}", event.name);
        assert!(event.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.'), "{}", event.name);
        assert!(event.partitions > 0 && !event.consumers.is_empty(), "{}", event.name);
    }
}

#[test]
fn subscriptions_follow_from_the_catalogue() {
    assert_eq!(events::subscription("webhook").len(), events::catalogue().len());
    assert!(events::subscription("blog").is_empty());
    assert_eq!(events::said_by("link").map(|event| event.name).collect::<Vec<_>>(), ["link.expired"]);
    assert!(events::by_name("blog.post.sung").is_none());
}

#[test]
fn the_catalogue_page_is_what_the_code_says() {
    test_kit::page("docs/events.md", &page());
}

fn page() -> String {
    let mut page = String::from(
        "# Events\n\nWritten by `make docs` from `shared/events`; a test keeps it true.\n\n\
         Every event is one JSON object, a [CloudEvents 1.0](https://cloudevents.io) structured event at the same time\n\
         (`application/cloudevents+json`). Its topic is its type, its key is `subject`. `id` is what repetitions are told by;\n\
         `sequence` rises with each write of its subject, with gaps. Unknown fields are to be ignored.\n\n\
         | type | said by | heard by | data | partitions | kept |\n|---|---|---|---|---|---|\n",
    );
    for event in events::catalogue() {
        let state = match event.state {
            State::Full => "the whole",
            State::Delta => "a change",
        };
        let days = event.retention.as_secs() / 86_400;
        let heard = event.consumers.join(", ");
        let (name, service, partitions) = (event.name, event.service, event.partitions);
        writeln!(page, "| `{name}` | {service} | {heard} | {state} | {partitions} | {days} days |").unwrap();
    }
    page.push_str("\n## The envelope\n\n");
    let whole = samples::all().remove(2);
    let json: Value = serde_json::from_slice(&whole.to_json()).unwrap();
    writeln!(page, "```json\n{}\n```", serde_json::to_string_pretty(&json).unwrap()).unwrap();
    page.push_str(
        "\nHeaders of the message: `content-type`, `event_type`, `timestamp`, `traceparent` where there is one, and \
         `replay` on what an\noperator sent again.\n\n## The data of each type\n",
    );
    for event in samples::all() {
        let data = serde_json::to_string_pretty(&event.data).unwrap();
        write!(page, "\n### `{}`\n\n```json\n{data}\n```\n", event.event_type).unwrap();
    }
    page
}
