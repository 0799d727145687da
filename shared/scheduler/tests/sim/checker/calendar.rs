//! When a schedule fires, worked out once more and differently: minute by minute, in UTC.

use chrono::{Datelike, DurationRound, TimeDelta, Timelike};
use scheduler::{
    Instant,
    schedule::{Schedule, Spec},
};

/// A schedule as the checker reads it.
#[derive(Debug, Clone)]
pub(crate) struct Calendar {
    when: When,
    jitter: TimeDelta,
    grace: Option<TimeDelta>,
}

#[derive(Debug, Clone)]
enum When {
    Every(TimeDelta),
    /// Minute, hour, day of the month, month, day of the week: one bit each.
    Fields([u64; 5]),
    Never,
}

/// `*`, `*/n`, `a`, `a-b`, `a,b`: all that the generator writes.
fn field(text: &str, from: u32, to: u32) -> u64 {
    let part = |part: &str| -> Vec<u32> {
        if let Some(step) = part.strip_prefix("*/") {
            return (from..=to).step_by(step.parse().unwrap()).collect();
        }
        match part.split_once('-') {
            _ if part == "*" => (from..=to).collect(),
            Some((first, last)) => (first.parse().unwrap()..=last.parse().unwrap()).collect(),
            None => vec![part.parse().unwrap()],
        }
    };
    text.split(',').flat_map(part).fold(0, |bits, at| bits | 1 << at)
}

impl Calendar {
    pub(crate) fn of(spec: &Spec) -> Self {
        let delta = |duration| TimeDelta::from_std(duration).unwrap();
        let when = match &spec.schedule {
            Schedule::Interval { every } => When::Every(delta(*every)),
            Schedule::None => When::Never,
            Schedule::Cron { expression, .. } => {
                let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
                let mut fields = [0; 5];
                for ((field_of, text), (from, to)) in fields.iter_mut().zip(expression.split(' ')).zip(bounds) {
                    *field_of = field(text, from, to);
                }
                When::Fields(fields)
            }
        };
        Self { when, jitter: delta(spec.jitter), grace: spec.misfire_grace.map(delta) }
    }

    /// The first instant after `after`; intervals count from `anchor`.
    pub(crate) fn next(&self, anchor: Instant, after: Instant) -> Option<Instant> {
        match &self.when {
            When::Never => None,
            When::Every(every) => {
                let mut at = anchor;
                let steps = (after - anchor).num_milliseconds() / every.num_milliseconds();
                at += TimeDelta::milliseconds(every.num_milliseconds() * (steps - 1));
                while at <= after {
                    at += *every;
                }
                Some(at)
            }
            When::Fields([minutes, hours, days, months, weekdays]) => {
                let mut at = after.duration_trunc(TimeDelta::minutes(1)).unwrap() + TimeDelta::minutes(1);
                let has = |bits: &u64, at: u32| bits >> at & 1 == 1;
                loop {
                    let day = has(days, at.day())
                        && has(months, at.month())
                        && has(weekdays, at.weekday().num_days_from_sunday());
                    if !day || !has(hours, at.hour()) {
                        at = at.duration_trunc(TimeDelta::hours(1)).unwrap() + TimeDelta::hours(1);
                    } else if has(minutes, at.minute()) {
                        return Some(at);
                    } else {
                        at += TimeDelta::minutes(1);
                    }
                }
            }
        }
    }

    fn gap(&self, anchor: Instant, nominal: Instant) -> Option<TimeDelta> {
        self.next(anchor, nominal).map(|next| next - nominal)
    }

    /// Nominal plus jitter: the hash that the ledger documents, modulo the room there is.
    pub(crate) fn fire(&self, job: &str, anchor: Instant, nominal: Instant) -> Instant {
        let room = self.gap(anchor, nominal).map_or(self.jitter, |gap| gap - TimeDelta::milliseconds(1));
        let span = self.jitter.min(room).num_microseconds().unwrap();
        if span <= 0 {
            return nominal;
        }
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in job.bytes().chain(nominal.timestamp_micros().to_be_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash ^= hash >> 32;
        nominal + TimeDelta::microseconds(i64::try_from(hash % span.unsigned_abs()).unwrap())
    }

    pub(crate) fn grace(&self, anchor: Instant, nominal: Instant) -> TimeDelta {
        let hour = TimeDelta::hours(1);
        match (&self.when, self.grace) {
            (_, Some(grace)) => grace,
            (When::Every(every), None) => *every,
            (_, None) => self.gap(anchor, nominal).map_or(hour, |gap| gap.min(hour)),
        }
    }

    pub(crate) fn every(&self) -> Option<TimeDelta> {
        if let When::Every(every) = &self.when { Some(*every) } else { None }
    }
}
