//! Waking exactly when the next row falls due: read when, sleep until then, pass, read again.
//!
//! Pure: from what arrived to what to do. The dispatcher performs it.

use std::time::Duration;

use crate::{Instant, ledger::Wake, runner::mail::Next};

/// A hint is followed at once, but hints have the next due time read no more often than this: what comes meanwhile is gathered.
pub(crate) const DEBOUNCE: Duration = Duration::from_millis(2);
/// Due rows that others have locked: look again after this, doubling to [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// After a read that took longer than this, a pass that ends with more to do is followed by one that goes on behind it, so
/// that reading takes no more than a tenth of the time. (An old snapshot may keep the server from clearing away what was
/// dealt with, and each read goes past all of it.)
const SLOW: Duration = Duration::from_millis(20);
/// Reading is one part of so many.
const PARTS: u32 = 10;
/// How late rows that no hint announced must be to count as rescued by the sweep.
const RESCUED_MS: i64 = 1_000;

/// What the runner knows of one job's due rows.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "reading, passing, again and hinted are told apart by name")]
pub(crate) struct DueState {
    /// When the next row falls due.
    next: Option<Instant>,
    /// Where a pass begins, if that is known.
    first: Option<Instant>,
    /// `next` lay ahead when it was read, so its time wakes the pass, whatever hints come meanwhile.
    foreseen: bool,
    /// What will have woken the pass.
    wake: Option<Wake>,
    /// Read the next due time at this monotonic moment.
    read_at: Option<Duration>,
    /// The last read began at this monotonic moment,
    last_read: Option<Duration>,
    /// and the last one that a hint asked for at this.
    last_hinted: Option<Duration>,
    /// When the last read was answered, and how long it took.
    answered: Option<(Duration, Duration)>,
    /// Pass not before this monotonic moment.
    not_before: Option<Duration>,
    reading: bool,
    passing: bool,
    /// A hint came while reading or passing.
    again: bool,
    /// The coming read was asked for by a hint, not by the pass before it or the sweep.
    asked: bool,
    /// It was asked for by a commit here: tell the others.
    hinted: bool,
    backoff: Option<Duration>,
    announced: Option<Instant>,
}

/// What to do for a job now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Do {
    Read { hinted: bool },
    Pass { wake: Wake, first: Option<Instant> },
}

impl DueState {
    /// Something may be due earlier than known.
    pub(crate) fn hint(&mut self, monotonic: Duration, here: bool) {
        self.hinted |= here;
        self.wake.get_or_insert(Wake::Hint);
        self.asked = true;
        if self.reading || self.passing {
            self.again = true;
        } else {
            let gathered = self.last_hinted.map_or(monotonic, |last| monotonic.max(last + DEBOUNCE));
            self.read_at.get_or_insert(gathered);
        }
    }

    /// The regular look, in case a hint was lost.
    pub(crate) fn sweep(&mut self, monotonic: Duration) {
        if !self.reading && !self.passing {
            self.read_at.get_or_insert(monotonic);
        }
    }

    /// A read was answered at this moment.
    pub(crate) fn answered(&mut self, monotonic: Duration) {
        self.answered = self.last_read.map(|began| (monotonic, monotonic.saturating_sub(began)));
    }

    /// The next due time was read. Whether it is worth telling other replicas.
    pub(crate) fn read(&mut self, next: Next, now: Instant, hinted: bool) -> bool {
        let due = next.at;
        self.reading = false;
        self.next = due;
        self.first = next.first;
        self.foreseen = due.is_some_and(|due| due > now);
        if self.foreseen || due.is_none() {
            self.wake = None;
            // Whoever had the rows locked has dealt with them.
            self.backoff = None;
            self.not_before = None;
        }
        if self.announced.is_some_and(|announced| announced <= now) {
            self.announced = None;
        }
        let earlier = due.is_some_and(|due| self.announced.is_none_or(|announced| due < announced));
        if hinted && earlier {
            self.announced = due;
            return true;
        }
        false
    }

    /// Reading failed: again after a back-off.
    pub(crate) fn unread(&mut self, monotonic: Duration) {
        self.reading = false;
        self.read_at = Some(monotonic + BACKOFF_MAX);
    }

    /// A pass is over. How many rows it rescued that no hint had announced.
    pub(crate) fn passed(&mut self, monotonic: Duration, wake: Wake, passed: &crate::body::Passed) -> i64 {
        self.passing = false;
        if passed.transient {
            self.back_off(monotonic);
        } else if passed.items == 0 && passed.error.is_none() {
            // Nothing could be claimed; if rows are due all the same, others have them locked.
            self.back_off(monotonic);
        } else {
            self.backoff = None;
            self.not_before = None;
        }
        self.read_at = Some(monotonic);
        if passed.more {
            self.wake = Some(wake);
            self.not_before = None;
            self.backoff = None;
            let slow = self.answered.filter(|(_, took)| *took > SLOW);
            if slow.is_some_and(|(at, took)| monotonic < at + took * PARTS) {
                self.next = passed.last;
                self.first = passed.last;
                self.foreseen = false;
            }
        }
        if wake == Wake::Due && passed.lateness_ms >= RESCUED_MS { passed.items } else { 0 }
    }

    fn back_off(&mut self, monotonic: Duration) {
        let backoff = self.backoff.map_or(BACKOFF, |backoff| (backoff * 2).min(BACKOFF_MAX));
        self.backoff = Some(backoff);
        self.not_before = Some(monotonic + backoff);
    }

    /// What to do now, if anything. `enabled`: this process may pass.
    pub(crate) fn act(&mut self, now: Instant, monotonic: Duration, enabled: bool) -> Option<Do> {
        if self.reading || self.passing {
            return None;
        }
        // Before any read: hints that come faster than reads are answered would otherwise keep it from ever passing.
        let due = self.next.is_some_and(|due| due <= now) && self.not_before.is_none_or(|at| at <= monotonic);
        if enabled && due {
            self.next = None;
            self.passing = true;
            let hinted = self.wake.take().filter(|_| !self.foreseen);
            return Some(Do::Pass { wake: hinted.unwrap_or(Wake::Due), first: self.first.take() });
        }
        if std::mem::take(&mut self.again) {
            self.read_at.get_or_insert(monotonic);
        }
        if self.read_at.is_some_and(|at| at <= monotonic) {
            self.read_at = None;
            self.last_read = Some(monotonic);
            if std::mem::take(&mut self.asked) {
                self.last_hinted = Some(monotonic);
            }
            self.reading = true;
            return Some(Do::Read { hinted: std::mem::take(&mut self.hinted) });
        }
        None
    }

    /// When there may be something to do next, in monotonic time.
    pub(crate) fn wake_at(&self, now: Instant, monotonic: Duration, enabled: bool) -> Option<Duration> {
        if self.reading || self.passing {
            return None;
        }
        let pass = self.next.filter(|_| enabled).map(|due| {
            // One millisecond more than the estimate says, so that the database agrees that it is due.
            let ahead = (due - now).to_std().map_or(Duration::ZERO, |ahead| ahead + Duration::from_millis(1));
            (monotonic + ahead).max(self.not_before.unwrap_or_default())
        });
        [pass, self.read_at].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
