//! When hints are followed and when they are gathered.

use std::time::Duration;

use super::{DEBOUNCE, Do, DueState};
use crate::Instant;

const NOW: Instant = Instant::UNIX_EPOCH;

fn at(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn reads(state: &mut DueState, monotonic: Duration) -> bool {
    let reads = state.act(NOW, monotonic, true) == Some(Do::Read { hinted: true });
    if reads {
        state.read(None, NOW, true);
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
