//! When hints are followed and when they are gathered.

use std::time::Duration;

use super::{DEBOUNCE, Do, DueState};
use crate::{Instant, body::Passed, ledger::Wake, runner::mail::Next};

const NOW: Instant = Instant::UNIX_EPOCH;
const DUE: Next = Next { at: Some(NOW), first: Some(NOW) };
const PASS: Do = Do::Pass { wake: Wake::Hint, first: Some(NOW) };

fn at(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn reads(state: &mut DueState, monotonic: Duration) -> bool {
    let reads = state.act(NOW, monotonic, true) == Some(Do::Read { hinted: true });
    if reads {
        state.read(Next::default(), NOW, true);
    }
    reads
}

#[test]
fn a_hint_is_followed_at_once() {
    let mut state = DueState::default();
    state.hint(at(7), true);
    assert!(reads(&mut state, at(7)));
    let long_after = at(7) + DEBOUNCE;
    state.hint(long_after, true);
    assert!(reads(&mut state, long_after));
}

#[test]
fn hints_that_come_soon_after_a_read_are_gathered_into_one_more() {
    let mut state = DueState::default();
    state.hint(at(0), true);
    assert!(reads(&mut state, at(0)));
    for micros in [1, 500, 1_999] {
        state.hint(at(micros), true);
        assert!(!reads(&mut state, at(micros)), "{micros} us after a read");
        assert_eq!(state.wake_at(NOW, at(micros), true), Some(DEBOUNCE));
    }
    assert!(reads(&mut state, DEBOUNCE));
    assert_eq!(state.wake_at(NOW, DEBOUNCE, true), None, "one read for all of them");
}

#[test]
fn a_hint_soon_after_a_pass_and_the_read_that_follows_it_is_followed_at_once() {
    let mut state = DueState::default();
    state.hint(at(0), true);
    assert_eq!(state.act(NOW, at(0), true), Some(Do::Read { hinted: true }));
    state.read(DUE, NOW, true);
    assert_eq!(state.act(NOW, at(300), true), Some(PASS));
    state.passed(at(2_100), Wake::Hint, &Passed { items: 1, ..Passed::default() });
    assert_eq!(state.act(NOW, at(2_100), true), Some(Do::Read { hinted: false }), "is there more");
    state.read(Next::default(), NOW, false);
    state.hint(at(2_400), true);
    assert!(reads(&mut state, at(2_400)), "no hint was read for since the first");
    state.hint(at(2_500), true);
    assert!(!reads(&mut state, at(2_500)), "but now one was");
}

#[test]
fn hints_that_come_faster_than_reads_are_answered_keep_no_pass_from_beginning() {
    let mut state = DueState::default();
    state.hint(at(0), true);
    assert_eq!(state.act(NOW, at(0), true), Some(Do::Read { hinted: true }));
    // A read that takes long: another hint comes meanwhile.
    state.hint(at(50_000), true);
    state.read(DUE, NOW, true);
    assert_eq!(state.act(NOW, at(140_000), true), Some(PASS));
    state.hint(at(150_000), true);
    assert_eq!(state.act(NOW, at(150_000), true), None, "while it passes");
    state.passed(at(160_000), Wake::Hint, &Passed { items: 1, ..Passed::default() });
    assert_eq!(state.act(NOW, at(160_000), true), Some(Do::Read { hinted: true }), "what the hints told of");
}

/// Reads something due, which takes so long; passes for ten milliseconds; whether it passes again before it reads.
fn passes_again(read_millis: u64) -> bool {
    let read = Duration::from_millis(read_millis);
    let mut state = DueState::default();
    state.hint(at(0), true);
    assert_eq!(state.act(NOW, at(0), true), Some(Do::Read { hinted: true }));
    state.answered(read);
    state.read(DUE, NOW, true);
    assert_eq!(state.act(NOW, read, true), Some(PASS));
    let (ended, more) = (read + at(10_000), Passed { items: 1, more: true, last: Some(NOW), ..Passed::default() });
    state.passed(ended, Wake::Hint, &more);
    state.act(NOW, ended, true) == Some(PASS)
}

#[test]
fn a_pass_with_more_to_do_is_read_after_unless_reading_would_take_most_of_the_time() {
    assert!(!passes_again(1), "a read is cheap");
    assert!(passes_again(100), "a read goes past much that an old snapshot keeps");
}
