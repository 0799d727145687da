//! The expressions that are compared.

use std::collections::BTreeSet;

const MINUTES: &[&str] = &["*", "0", "30", "*/15", "5-10", "0,30", "*/20", "59", "1-59/7", "45"];
const HOURS: &[&str] = &["*", "0", "1", "2", "3", "*/2", "0-6", "1,13", "23", "2-3", "*/6"];
const DAYS: &[&str] = &["1", "15", "31", "L", "LW", "10-20", "29", "30", "1,15", "5-25/5", "*/10"];
const MONTHS: &[&str] = &["1", "3", "*/3", "2", "11", "JAN", "3,10", "APR-SEP", "4-10"];
const WEEKDAYS: &[&str] = &["1", "0", "7", "MON", "1-5", "5L", "1#2", "SUN#1", "MON-FRI", "6,0", "3#5", "0L", "*/2"];
/// `nW`: the weekday nearest to a day, which cronsim does not know. Not 29W to 31W: where a month has no such day croniter
/// takes its last, and we leave the month out, as for 31 alone.
const NEAREST: &[&str] = &["15W", "1W", "28W", "6W", "2W"];

/// Some of these, written by hand: what people write most, and what goes wrong most.
const BY_HAND: &[&str] = &[
    "* * * * *",
    "*/5 * * * *",
    "0 * * * *",
    "30 1 * * *",
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "59 1 * * *",
    "0 0 * * *",
    "59 23 * * *",
    "0 0 1 1 *",
    "0 0 29 2 *",
    "0 12 * * MON-FRI",
    "0 9 * * 1#1",
    "0 9 * * 5L",
    "0 18 L * *",
    "0 18 LW * *",
    "15 */2 * * *",
    "*/20 2 * * *",
    "0 0 1 */3 *",
    "10 1-3 * * *",
    "45 0,1,2,3 * * 0",
];

fn pick<'a>(rng: &mut fastrand::Rng, from: &[&'a str], star_percent: u8) -> &'a str {
    if rng.u8(..100) < star_percent { "*" } else { from[rng.usize(..from.len())] }
}

fn made(seed: u64, count: usize, days: &[&str], star_days: u8) -> BTreeSet<String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut all = BTreeSet::new();
    while all.len() < count {
        let (minute, hour) = (pick(&mut rng, MINUTES, 0), pick(&mut rng, HOURS, 0));
        let (day, month) = (pick(&mut rng, days, star_days), pick(&mut rng, MONTHS, 60));
        let expression = format!("{minute} {hour} {day} {month} {}", pick(&mut rng, WEEKDAYS, 60));
        if scheduler::schedule::validate(&expression, "UTC").is_ok() {
            all.insert(expression);
        }
    }
    all
}

/// Expressions that all know, with `L`, `LW` and `#`.
pub(crate) fn expressions() -> Vec<String> {
    let mut all = made(7, 300, DAYS, 50);
    all.extend(BY_HAND.iter().map(|text| (*text).to_owned()));
    all.into_iter().collect()
}

/// Expressions with the weekday nearest to a day.
pub(crate) fn calendar_only() -> Vec<String> {
    made(8, 40, NEAREST, 0).into_iter().collect()
}
