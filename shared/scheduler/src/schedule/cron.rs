//! Cron expressions across clock changes, with time-zone rules of our own.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::LazyLock};

use chrono::DateTime;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    SignedDuration, Timestamp, Zoned, civil,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

use super::Dst;
use crate::Instant;

/// The rules built into this program: those of the machine may be old.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
/// Clock changes are not longer than this.
const CHANGE: SignedDuration = SignedDuration::from_hours(3);
/// Wall-clock matches looked at around a clock change, at most.
const LOOK: usize = 50_000;

fn zone(name: &str) -> Option<TimeZone> {
    ZONES.get(name).ok()
}

/// Whether the zone is in the rules.
pub fn known_zone(name: &str) -> bool {
    zone(name).is_some()
}

/// Parsed expressions a thread remembers at most; beyond it starts anew.
const PARSED_MAX: usize = 1_024;

thread_local! {
    /// Reading an expression takes a hundred times as long as finding its next match.
    static PARSED: RefCell<HashMap<String, Rc<Cron>>> = RefCell::default();
}

/// The expression, read once a thread.
fn parsed(expression: &str) -> Result<Rc<Cron>, String> {
    PARSED.with_borrow_mut(|parsed| {
        if let Some(cron) = parsed.get(expression) {
            return Ok(Rc::clone(cron));
        }
        let cron = Rc::new(parse(expression)?);
        if parsed.len() >= PARSED_MAX {
            parsed.clear();
        }
        parsed.insert(expression.to_owned(), Rc::clone(&cron));
        Ok(cron)
    })
}

fn parse(expression: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(expression).map_err(|error| error.to_string())
}

/// Whether the expression can be read and ever fires; what is wrong in words.
pub fn validate(expression: &str, zone_name: &str) -> Result<(), String> {
    let cron = parse(expression)?;
    let zone = zone(zone_name).ok_or_else(|| format!("unknown time zone {zone_name:?}"))?;
    let from = Timestamp::UNIX_EPOCH.to_zoned(zone);
    cron.find_next_occurrence(&from, false).map(drop).map_err(|_| "it never fires".to_owned())
}

/// The first firing strictly after `after`.
pub(super) fn next_after(expression: &str, zone_name: &str, dst: Dst, after: Instant) -> Option<Instant> {
    let cron = parsed(expression).ok()?;
    let zone = zone(zone_name)?;
    let after = Timestamp::from_microsecond(after.timestamp_micros()).ok()?;
    let next = match dst {
        Dst::Vixie => vixie(&cron, after.to_zoned(zone)),
        Dst::Literal => literal(&cron, &zone, after),
    }?;
    DateTime::from_timestamp_micros(next.as_microsecond())
}

fn vixie(cron: &Cron, after: Zoned) -> Option<Timestamp> {
    let moment = after.timestamp();
    let next = cron.find_next_occurrence(&after, false).ok()?.timestamp();
    (next > moment).then_some(next)
}

/// Each match of the wall clock: in the overlap twice, in the gap not at all.
fn literal(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let here = after.to_zoned(zone.clone());
    let near = |at: Option<Timestamp>| at.is_some_and(|at| at.duration_until(after).abs() <= CHANGE * 2);
    let change_before = zone.preceding(after).next().map(|change| change.timestamp());
    let change_after = zone.following(after).next().map(|change| change.timestamp());
    let mut wall = here.datetime();
    if near(change_before) || near(change_after) {
        wall = wall.checked_sub(CHANGE).ok()?;
    }
    let mut best: Option<Timestamp> = None;
    for _ in 0..LOOK {
        wall = cron.find_next_occurrence(&wall, false).ok()?;
        for at in moments(zone, wall).into_iter().flatten().filter(|at| *at > after) {
            best = Some(best.map_or(at, |best| best.min(at)));
        }
        let done = best.is_some_and(|best| {
            let seen = best.to_zoned(zone.clone()).datetime();
            !near_change(zone, best) || wall >= seen.saturating_add(CHANGE)
        });
        if done {
            break;
        }
    }
    best
}

/// Whether a clock change lies close to `at`.
fn near_change(zone: &TimeZone, at: Timestamp) -> bool {
    let close = |change: Timestamp| change.duration_until(at).abs() <= CHANGE;
    zone.preceding(at).next().is_some_and(|change| close(change.timestamp()))
        || zone.following(at).next().is_some_and(|change| close(change.timestamp()))
}

/// The moments at which the wall clock shows `wall`.
fn moments(zone: &TimeZone, wall: civil::DateTime) -> [Option<Timestamp>; 2] {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => [offset.to_timestamp(wall).ok(), None],
        AmbiguousOffset::Gap { .. } => [None, None],
        AmbiguousOffset::Fold { before, after } => [before.to_timestamp(wall).ok(), after.to_timestamp(wall).ok()],
    }
}
