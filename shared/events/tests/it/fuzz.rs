//! Whatever a topic holds is an event, or an error in words.

use chrono::{DurationRound, TimeDelta};
use events::{DecodeError, Event, MAX_ENVELOPE_BYTES, blog};
use test_kit::fuzz;

use crate::samples;

/// What envelopes are made of, and what breaks readers of JSON.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "1e999",
    "18446744073709551616",
    "\\u0000",
    "\\ud800",
    "\"id\":",
    "\"type\":\"\"",
    "\"source\":7",
    "\"time\":\"-0001-01-01T00:00:00Z\"",
    "+99999-12-31T23:59:60Z",
    "\"timestamp\":",
    "\"sequence\":\"-9223372036854775809\"",
    "\"subject\":null",
    "\"data\":",
    "\u{feff}",
    "\u{202e}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

#[test]
fn fuzz_whatever_is_read_as_an_event_is_written_as_the_same_event() {
    let examples: Vec<Vec<u8>> = samples::all().iter().map(Event::to_json).collect();
    fuzz::all(20_000, fuzz::bytes(&examples, WORDS), |bytes| match Event::from_json(&bytes) {
        Ok(event) => {
            assert!(!event.event_type.is_empty() && !event.source.is_empty());
            let again = Event::from_json(&event.to_json()).expect("what we write can be read");
            let time = event.time.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(event.time);
            assert_eq!(again, Event { time, ..event.clone() });
            // A consumer that asks for a type gets it or an error.
            let _either: [bool; 2] =
                [event.data::<blog::PostCreated>().is_ok(), event.data::<blog::PostDeleted>().is_ok()];
            for (name, value) in event.headers() {
                assert!(!name.is_empty() && String::from_utf8(value).is_ok());
            }
        }
        Err(DecodeError::TooLarge(size)) => assert!(size > MAX_ENVELOPE_BYTES),
        Err(error) => assert!(!error.to_string().is_empty()),
    });
}
