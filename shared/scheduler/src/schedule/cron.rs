//! Cron expressions across clock changes, with time-zone rules of our own.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::LazyLock};

use chrono::DateTime;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    SignedDuration, Timestamp, civil,
    tz::{Offset, TimeZone, TimeZoneDatabase},
};

use super::Dst;
use crate::Instant;

/// The rules built into this program: those of the machine may be old.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
/// A change of the clock by this much or more is a correction.
const CORRECTION: SignedDuration = SignedDuration::from_hours(3);
const SECOND: SignedDuration = SignedDuration::from_secs(1);
/// The smallest step of an instant.
const TICK: SignedDuration = SignedDuration::from_micros(1);
/// Clock changes looked across for one match, at most: those of centuries.
const STRETCHES_MAX: usize = 10_000;

fn zone(name: &str) -> Option<TimeZone> {
    ZONES.get(name).ok()
}

/// Whether the zone is in the rules.
pub fn known_zone(name: &str) -> bool {
    zone(name).is_some()
}

/// Parsed expressions a thread remembers at most; beyond it starts anew.
const PARSED_MAX: usize = 1_024;

/// An expression that was read.
struct Parsed {
    cron: Cron,
    /// Whether it names its times of day: neither minute nor hour (nor second) begins with `*`.
    fixed_times: bool,
}

thread_local! {
    /// Reading an expression takes a hundred times as long as finding its next match.
    static PARSED: RefCell<HashMap<String, Rc<Parsed>>> = RefCell::default();
}

/// The expression, read once a thread.
fn parsed(expression: &str) -> Result<Rc<Parsed>, String> {
    PARSED.with_borrow_mut(|parsed| {
        if let Some(known) = parsed.get(expression) {
            return Ok(Rc::clone(known));
        }
        let new = Rc::new(parse(expression)?);
        if parsed.len() >= PARSED_MAX {
            parsed.clear();
        }
        parsed.insert(expression.to_owned(), Rc::clone(&new));
        Ok(new)
    })
}

fn parse(expression: &str) -> Result<Parsed, String> {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let starred = |field: Option<&&str>| field.is_some_and(|field| field.starts_with('*'));
    // Debian's crontab(5): either day matches when both fields are restricted; one that begins with `*` is not.
    let (days, weekdays) = (fields.iter().rev().nth(2), fields.last());
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .dom_and_dow(starred(days) || starred(weekdays))
        .build();
    let cron = parser.parse(expression).map_err(|error| error.to_string())?;
    let times = fields.get(..fields.len().saturating_sub(3)).unwrap_or_default();
    let hourly = expression.trim().eq_ignore_ascii_case("@hourly");
    Ok(Parsed { cron, fixed_times: !hourly && !times.iter().any(|field| starred(Some(field))) })
}

/// Whether the expression can be read and ever fires; what is wrong in words.
pub fn validate(expression: &str, zone_name: &str) -> Result<(), String> {
    let parsed = parse(expression)?;
    zone(zone_name).ok_or_else(|| format!("unknown time zone {zone_name:?}"))?;
    let from = civil::date(1970, 1, 1).at(0, 0, 0, 0);
    parsed.cron.find_next_occurrence(&from, false).map(drop).map_err(|_| "it never fires".to_owned())
}

/// The first firing strictly after `after`.
pub(super) fn next_after(expression: &str, zone_name: &str, dst: Dst, after: Instant) -> Option<Instant> {
    let parsed = parsed(expression).ok()?;
    let zone = zone(zone_name)?;
    let after = Timestamp::from_microsecond(after.timestamp_micros()).ok()?;
    let next = first_match(&parsed, &zone, dst == Dst::Literal, after)?;
    DateTime::from_timestamp_micros(next.as_microsecond())
}

/// A stretch of time in which the zone's clock runs evenly: from one change to the next.
struct Stretch {
    /// The change that began it; none: it always was so.
    began: Option<Timestamp>,
    /// The offset before it, when there was a change.
    before: Option<Offset>,
    offset: Offset,
    /// The change that ends it.
    ends: Option<(Timestamp, Offset)>,
}

impl Stretch {
    /// The one in which `at` lies.
    fn of(zone: &TimeZone, at: Timestamp) -> Self {
        // `preceding` leaves out a change at the very moment.
        let began = at.checked_add(TICK).ok().and_then(|after| zone.preceding(after).next());
        let began = began.map(|change| change.timestamp());
        let before = began.and_then(|began| began.checked_sub(TICK).ok()).map(|before| zone.to_offset(before));
        Self { began, before, offset: zone.to_offset(at), ends: change(zone, at) }
    }

    /// The one after it.
    fn next(self, zone: &TimeZone) -> Option<Self> {
        let (began, offset) = self.ends?;
        Some(Self { began: Some(began), before: Some(self.offset), offset, ends: change(zone, began) })
    }

    /// The wall clock at its beginning and right before, if fixed times mind the change: one of less than three hours.
    /// Larger ones are corrections, after which the new time counts at once (Debian's cron(8)).
    fn minded_change(&self) -> Option<(civil::DateTime, civil::DateTime)> {
        let (began, before) = (self.began?, self.before?);
        let size = self.offset.duration_since(before).abs();
        (size < CORRECTION).then(|| (self.offset.to_datetime(began), before.to_datetime(began)))
    }
}

/// The first change of the zone's clock after `at`.
fn change(zone: &TimeZone, at: Timestamp) -> Option<(Timestamp, Offset)> {
    zone.following(at).next().map(|change| (change.timestamp(), change.offset()))
}

/// The first match, stretch by stretch: within one the calendar alone decides.
///
/// `literal`: as the wall clock says, so twice in an overlap and never in a gap. Else as Debian's cron(8) does: a job
/// that runs at fixed times (neither minute nor hour begins with `*`) and whose time is skipped runs right after the gap,
/// and runs once in an overlap; other jobs go by elapsed time, which is what the wall clock says.
fn first_match(parsed: &Parsed, zone: &TimeZone, literal: bool, after: Timestamp) -> Option<Timestamp> {
    let fixed = !literal && parsed.fixed_times;
    let mut stretch = Stretch::of(zone, after);
    // Matches after this moment of the wall clock count.
    let mut wall = stretch.offset.to_datetime(after);
    for _ in 0..STRETCHES_MAX {
        if let Some((_, left)) = stretch.minded_change().filter(|(starts, left)| fixed && starts < left) {
            // What an overlap repeats has run already.
            wall = wall.max(left.checked_sub(SECOND).ok()?);
        }
        let found = parsed.cron.find_next_occurrence(&wall, false).ok()?;
        let at = stretch.offset.to_timestamp(found).ok()?;
        match stretch.ends {
            Some((end, _)) if at >= end => {
                stretch = stretch.next(zone)?;
                let starts = stretch.offset.to_datetime(end);
                let skipped = stretch.minded_change().is_some_and(|(starts, left)| left <= found && found < starts);
                if fixed && skipped {
                    return Some(end);
                }
                wall = starts.checked_sub(SECOND).ok()?;
            }
            _ => return Some(at),
        }
    }
    None
}
