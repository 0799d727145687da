//! The envelope: one JSON object for a CloudEvents SDK and for readers of the documented fields.

use events::{DecodeError, Event, MAX_ENVELOPE_BYTES};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::samples;

#[test]
fn every_event_type_has_one_sample_here() {
    let named: Vec<String> = samples::all().into_iter().map(|event| event.event_type).collect();
    let known: Vec<&str> = events::catalogue().iter().map(|event| event.name).collect();
    assert_eq!(named, known);
}

#[test]
fn an_envelope_is_this_json() {
    let event = samples::all().into_iter().find(|event| event.event_type == "blog.post.scheduled.published").unwrap();
    let json: Value = serde_json::from_slice(&event.to_json()).unwrap();
    assert_eq!(
        json,
        json!({
            "specversion": "1.0",
            "id": "01900000-0000-7000-8000-000000000001",
            "type": "blog.post.scheduled.published",
            "source": "blog-service",
            "subject": "01900000-0000-7000-8000-000000000002",
            "time": "2026-06-01T08:00:00.000512Z",
            "timestamp": "2026-06-01T08:00:00.000512Z",
            "datacontenttype": "application/json",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "sequence": "00000000000000000007",
            "data": {
                "post_id": "01900000-0000-7000-8000-000000000002",
                "title": "Bells that ring on time",
                "slug": "bells-that-ring-on-time",
                "scheduled_at": "2026-06-01T08:00:00Z",
                "published_at": "2026-06-01T08:00:00.000512Z"
            }
        })
    );
}

#[test]
fn every_event_is_read_back_as_it_was_said() {
    for event in samples::all() {
        assert!(event.data.is_object(), "{}: {}", event.event_type, event.data);
        assert_eq!(Event::from_json(&event.to_json()).unwrap(), event);
        assert_eq!(event.service(), events::by_name(&event.event_type).unwrap().service);
    }
}

#[test]
fn an_envelope_may_have_900_kibibytes_and_not_one_byte_more() {
    let mut event = samples::all().remove(0);
    event.data = Value::String(String::new());
    let room = 921_600 - event.to_json().len();
    event.data = Value::String("x".repeat(room));
    assert_eq!(Event::from_json(&event.to_json()).unwrap(), event);
    event.data = Value::String("x".repeat(room + 1));
    assert!(matches!(Event::from_json(&event.to_json()), Err(DecodeError::TooLarge(921_601))));
}

#[test]
fn an_event_of_somebody_who_writes_only_the_documented_fields_is_read() {
    let least = json!({
        "id": "01900000-0000-7000-8000-000000000001", "type": "blog.post.created", "source": "blog-service",
        "timestamp": "2026-06-01T10:00:00+02:00", "data": { "new_field": 1 }, "unknown": [1, 2]
    });
    let event = Event::from_json(least.to_string().as_bytes()).unwrap();
    assert_eq!((event.time.to_rfc3339(), event.sequence), ("2026-06-01T08:00:00+00:00".to_owned(), 0));
}

#[test]
fn what_is_no_envelope_says_what_is_wrong() {
    let cases: [(&str, &str); 5] = [
        ("{", "not an event envelope"),
        (r#"{"id":"x","type":"a","source":"b","data":{}}"#, "not an event envelope"),
        (r#"{"id":"01900000-0000-7000-8000-000000000001","type":"a","source":"b","data":{}}"#, "time"),
        (
            r#"{"id":"01900000-0000-7000-8000-000000000001","type":"","source":"b","time":"2026-06-01T08:00:00Z"}"#,
            "type",
        ),
        (
            r#"{"id":"01900000-0000-7000-8000-000000000001","type":"a","source":"","time":"2026-06-01T08:00:00Z"}"#,
            "source",
        ),
    ];
    for (bytes, why) in cases {
        let error = Event::from_json(bytes.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(why), "{bytes}: {error}");
    }
    let large = vec![b' '; MAX_ENVELOPE_BYTES + 1];
    assert!(matches!(Event::from_json(&large), Err(DecodeError::TooLarge(_))));
}

#[test]
fn headers_say_type_time_and_trace() {
    let event = samples::all().remove(0);
    let headers: Vec<(String, String)> =
        event.headers().into_iter().map(|(name, value)| (name, String::from_utf8(value).unwrap())).collect();
    let told: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        told,
        [
            ("content-type", "application/cloudevents+json"),
            ("event_type", "blog.post.created"),
            ("timestamp", "2026-06-01T08:00:00.000512Z"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ]
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _read = Event::from_json(&bytes);
    }

    #[test]
    fn whatever_text_an_event_carries_comes_back(title in any::<String>(), sequence in 0..i64::MAX) {
        let mut event = samples::all().remove(0);
        event.sequence = sequence;
        event.data["title"] = title.into();
        prop_assert_eq!(Event::from_json(&event.to_json()).unwrap(), event);
    }
}
