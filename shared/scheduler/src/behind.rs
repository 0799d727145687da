//! Batches that go on behind each other, so that what is dealt with is not read past again and again.

use uuid::Uuid;

use crate::Instant;

/// Batches that are taken from behind the one before, until one is taken from the beginning again: a row that falls due
/// meanwhile with an older time waits no longer than for these.
const FROM_BEGINNING: u32 = 10;

/// Where the next batch of a pass begins.
#[derive(Default)]
pub(crate) struct Behind {
    /// Where the beginning is.
    start: Option<(Instant, Uuid)>,
    row: Option<(Instant, Uuid)>,
    batches: u32,
}

impl Behind {
    /// The beginning is where the first due row was read, if that is known. What was dealt with by passes before lies in
    /// front of it, and a server that must keep that for an old snapshot would read past all of it.
    pub(crate) fn starting_at(first: Option<Instant>) -> Self {
        // Just before it: rows that fall due at the same moment are none of those before.
        let start = first.map(|first| (first - chrono::TimeDelta::microseconds(1), Uuid::max()));
        Self { start, ..Self::default() }
    }

    /// The row behind which it begins; `None`: before all rows.
    pub(crate) fn row(&self) -> Option<(Instant, Uuid)> {
        self.row.or(self.start)
    }

    /// Whether it begins at the beginning.
    pub(crate) fn begins(&self) -> bool {
        self.row.is_none()
    }

    /// After a batch that came to its limit with this row as its last; one that did not, or failed, has none.
    pub(crate) fn go_on(&mut self, last: Option<(Instant, Uuid)>) {
        self.batches = if last.is_some() && self.batches < FROM_BEGINNING { self.batches + 1 } else { 0 };
        self.row = last.filter(|_| self.batches > 0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on panics; that is how it tells")]

    use super::*;

    #[test]
    fn ten_full_batches_go_on_behind_each_other_and_then_one_is_taken_from_the_beginning() {
        let last = Some((Instant::UNIX_EPOCH, Uuid::nil()));
        let mut behind = Behind::default();
        let begins: Vec<bool> = (0..12)
            .map(|_| {
                let begins = behind.begins();
                behind.go_on(last);
                begins
            })
            .collect();
        assert_eq!(begins.iter().filter(|begins| **begins).count(), 2);
        assert!(begins[0] && begins[11], "{begins:?}");
        behind.go_on(None);
        assert_eq!(behind.row(), None, "a batch that is not full is followed by one from the beginning");
    }

    #[test]
    fn the_beginning_is_just_before_the_first_due_row_that_was_read() {
        let first = Instant::UNIX_EPOCH;
        let mut behind = Behind::starting_at(Some(first));
        let (due, id) = behind.row().unwrap();
        assert!(behind.begins() && due < first && (due, id) < (first, Uuid::nil()));
        behind.go_on(Some((first, Uuid::nil())));
        assert_eq!((behind.begins(), behind.row()), (false, Some((first, Uuid::nil()))));
        behind.go_on(None);
        assert_eq!((behind.begins(), behind.row()), (true, Some((due, id))));
    }
}
