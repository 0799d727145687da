//! Instants and runs: is each instant in one row, is each row explained, does anything hang.

use chrono::{DateTime, TimeDelta, Utc};
use scheduler::schedule::{Schedule, Spec};
use sea_orm::QueryResult;
use uuid::Uuid;

use super::{Check, Window, rows::Reader};

/// Rows that one question brings at most.
const PAGE: usize = 10_000;
/// Instants of a cron schedule that are counted at most.
const COUNTED_MAX: u64 = 50_000_000;
/// A replica that said nothing for so long is not there.
const SILENT: TimeDelta = TimeDelta::seconds(45);
/// A run that may start and waits for so long hangs.
const WAITS_MAX: TimeDelta = TimeDelta::minutes(5);

/// When instants are, by arithmetic of our own for intervals.
enum Calendar {
    Every { anchor: DateTime<Utc>, micros: i64 },
    Cron(Box<Spec>),
    None,
}

impl Calendar {
    fn of(spec: Spec, anchor: DateTime<Utc>) -> Self {
        match &spec.schedule {
            Schedule::Interval { every } => {
                let micros = i64::try_from(every.as_micros()).unwrap_or(i64::MAX).max(1);
                Self::Every { anchor, micros }
            }
            Schedule::Cron { .. } => Self::Cron(Box::new(spec)),
            Schedule::None => Self::None,
        }
    }

    /// Instants after `after` and before `before`.
    fn between(&self, after: DateTime<Utc>, before: DateTime<Utc>) -> u64 {
        let last = before - TimeDelta::microseconds(1);
        if last <= after {
            return 0;
        }
        match self {
            Self::Every { anchor, micros } => {
                let at = |moment: DateTime<Utc>| (moment - *anchor).num_microseconds().unwrap_or(0).div_euclid(*micros);
                u64::try_from(at(last) - at(after)).unwrap_or(0)
            }
            Self::Cron(spec) => {
                let (mut count, mut moment) = (0, after);
                while let Some(next) = spec.next_after(after, moment).filter(|next| *next <= last) {
                    (count, moment) = (count + 1, next);
                    if count >= COUNTED_MAX {
                        break;
                    }
                }
                count
            }
            Self::None => 0,
        }
    }

    /// Whether this is an instant.
    fn holds(&self, moment: DateTime<Utc>) -> bool {
        let tick = TimeDelta::microseconds(1);
        self.between(moment - tick, moment + tick) == 1
    }
}

/// A row of `job_schedules`.
struct Planned {
    job: String,
    calendar: Calendar,
    /// Before this another spec was in force, or rows were pruned.
    known_from: DateTime<Utc>,
    next_at: Option<DateTime<Utc>>,
    paused: bool,
    jitter: TimeDelta,
}

fn planned(row: &QueryResult) -> anyhow::Result<Planned> {
    let spec: Spec = serde_json::from_value(row.try_get("", "spec")?)?;
    let anchor: DateTime<Utc> = row.try_get("", "anchor_at")?;
    let (spec_at, ledger_from): (DateTime<Utc>, DateTime<Utc>) =
        (row.try_get("", "spec_at")?, row.try_get("", "ledger_from")?);
    Ok(Planned {
        job: row.try_get("", "job")?,
        jitter: TimeDelta::from_std(spec.jitter).unwrap_or_default(),
        calendar: Calendar::of(spec, anchor),
        known_from: anchor.max(spec_at).max(ledger_from),
        next_at: row.try_get("", "next_at")?,
        paused: row.try_get::<Option<DateTime<Utc>>>("", "paused_at")?.is_some(),
    })
}

/// The three checks of instants.
struct Instants {
    missing: Check,
    doubled: Check,
    unexplained: Check,
}

pub(super) async fn checks(reader: &Reader, window: Window) -> anyhow::Result<Vec<Check>> {
    let text = "SELECT job, spec, spec_at, anchor_at, next_at, paused_at, ledger_from FROM job_schedules ORDER BY job";
    let schedules = reader.all(text, Vec::new()).await?;
    let schedules: Vec<Planned> = schedules.iter().map(planned).collect::<anyhow::Result<_>>()?;
    let mut instants = Instants {
        missing: Check::new("instants missing"),
        doubled: Check::new("instants doubled"),
        unexplained: Check::new("rows unexplained"),
    };
    for planned in &schedules {
        follow(reader, planned, window, &mut instants).await?;
    }
    contradictions(reader, window, &mut instants.unexplained).await?;
    let Instants { missing, doubled, unexplained } = instants;
    let overdue = overdue(reader, &schedules, window).await?;
    let (hanging, due) = (hanging(reader, window).await?, due_rows(reader, window).await?);
    Ok(vec![missing, doubled, unexplained, overdue, hanging, due])
}

/// Follows the rows of a job from instant to instant.
async fn follow(reader: &Reader, planned: &Planned, window: Window, found: &mut Instants) -> anyhow::Result<()> {
    let Some(next) = planned.next_at else { return Ok(()) };
    let (start, end) = (window.from.max(planned.known_from), window.to.min(next));
    let (job, calendar) = (planned.job.as_str(), &planned.calendar);
    if start >= end || matches!(calendar, Calendar::None) {
        return Ok(());
    }
    found.missing.examined += calendar.between(start, end);
    let (mut covered, mut place) = (start, (DateTime::UNIX_EPOCH, Uuid::nil()));
    loop {
        let text = format!(
            "SELECT id, run_key, nominal_at, nominal_until, instants FROM job_runs
             WHERE job = $1 AND wake_source IN ('tick', 'catch_up') AND nominal_at < $2
             AND coalesce(nominal_until, nominal_at) > $3 AND (nominal_at > $4 OR (nominal_at = $4 AND id > $5))
             ORDER BY nominal_at, id LIMIT {PAGE}"
        );
        let values = vec![job.into(), end.into(), start.into(), place.0.into(), place.1.into()];
        let rows = reader.all(&text, values).await?;
        for row in &rows {
            let first: DateTime<Utc> = row.try_get("", "nominal_at")?;
            let last = row.try_get::<Option<DateTime<Utc>>>("", "nominal_until")?.unwrap_or(first);
            let (key, instants): (String, i64) = (row.try_get("", "run_key")?, row.try_get("", "instants")?);
            place = (first, row.try_get("", "id")?);
            found.doubled.examined += 1;
            found.unexplained.examined += 1;
            // A range that began before what is looked at.
            let whole = first > start;
            if whole && first <= covered && covered > start {
                let twice = calendar
                    .between(first - TimeDelta::microseconds(1), last.min(covered) + TimeDelta::microseconds(1));
                found.doubled.found(twice.max(1), || format!("{job} {key}: {covered} has a row already"));
            }
            let gap = calendar.between(covered, first);
            found.missing.found(gap, || format!("{job}: {gap} between {covered} and {first}"));
            let count = calendar.between(first - TimeDelta::microseconds(1), last + TimeDelta::microseconds(1));
            let explained = calendar.holds(first)
                && calendar.holds(last)
                && i64::try_from(count).is_ok_and(|count| count == instants);
            if whole && !explained {
                let what = || format!("{job} {key}: stands for {instants} up to {last}; the schedule has {count}");
                found.unexplained.found(1, what);
            }
            covered = covered.max(last);
        }
        if rows.len() < PAGE {
            break;
        }
    }
    let gap = calendar.between(covered, end);
    found.missing.found(gap, || format!("{job}: {gap} between {covered} and {end}"));
    Ok(())
}

/// Counts rows of a question `SELECT count(*) AS found, min(what) AS first`.
async fn count(reader: &Reader, check: &mut Check, text: &str, values: Vec<sea_orm::Value>) -> anyhow::Result<()> {
    for row in reader.all(text, values).await? {
        let (found, first): (i64, Option<String>) = (row.try_get("", "found")?, row.try_get("", "first")?);
        check.found(u64::try_from(found).unwrap_or(0), || first.unwrap_or_default());
    }
    Ok(())
}

/// Rows that contradict themselves.
async fn contradictions(reader: &Reader, window: Window, check: &mut Check) -> anyhow::Result<()> {
    let text = "SELECT count(*) AS found, min(job || ' ' || run_key || ': ' || state) AS first FROM job_runs
        WHERE fire_at >= $1 AND fire_at <= $2 AND (
            (state = 'done') <> (outcome IS NOT NULL)
            OR (state = 'done' AND finished_at IS NULL)
            OR (state = 'running' AND (owner IS NULL OR lease_until IS NULL OR started_at IS NULL))
            OR (state = 'queued' AND owner IS NOT NULL)
            OR instants < 1 OR epoch < 0 OR attempt < 1 OR items < 0
            OR nominal_until < nominal_at)";
    count(reader, check, text, vec![window.from.into(), window.to.into()]).await?;
    // What stood for others must be there, unless it was pruned or is older than what is looked at.
    let text = "SELECT count(*) AS found, min(r.job || ' ' || r.run_key || ': stands for nothing') AS first
        FROM job_runs r JOIN job_schedules s ON s.job = r.job
        WHERE r.into_run IS NOT NULL AND r.finished_at > s.ledger_from AND r.fire_at >= $1 AND r.fire_at <= $2
        AND NOT EXISTS (SELECT 1 FROM job_runs o WHERE o.id = r.into_run)";
    count(reader, check, text, vec![window.from.into(), window.to.into()]).await
}

/// Jobs whose time has come although a replica is there that runs them.
async fn overdue(reader: &Reader, schedules: &[Planned], window: Window) -> anyhow::Result<Check> {
    let mut check = Check::new("jobs overdue");
    for planned in schedules.iter().filter(|planned| !planned.paused) {
        check.examined += 1;
        let Some(next) = planned.next_at.filter(|next| *next + planned.jitter < window.settled()) else { continue };
        let text = "SELECT job FROM job_replicas WHERE job = $1 AND enabled = $2 AND seen_at > $3";
        let alive = vec![planned.job.as_str().into(), true.into(), (window.now - SILENT).into()];
        if !reader.all(text, alive).await?.is_empty() {
            check.found(1, || format!("{}: {next} is not decided", planned.job));
        }
    }
    Ok(check)
}

/// Runs that nobody carries on.
async fn hanging(reader: &Reader, window: Window) -> anyhow::Result<Check> {
    let mut check = Check::new("runs stuck");
    let rows = reader.all("SELECT count(*) AS open FROM job_runs WHERE state <> 'done'", Vec::new()).await?;
    check.examined = rows.first().map_or(Ok(0), |row| row.try_get::<i64>("", "open")).map(i64::unsigned_abs)?;
    let text = "SELECT count(*) AS found, min(job || ' ' || run_key || ': its owner ' || owner || ' is gone') AS first
        FROM job_runs WHERE state = 'running' AND lease_until < $1";
    count(reader, &mut check, text, vec![window.settled().into()]).await?;
    let text = "SELECT count(*) AS found, min(r.job || ' ' || r.run_key || ': waits') AS first
        FROM job_runs r JOIN job_schedules s ON s.job = r.job
        WHERE r.state = 'queued' AND coalesce(r.queued_at, r.fire_at) < $1 AND s.paused_at IS NULL
        AND EXISTS (SELECT 1 FROM job_replicas p WHERE p.job = r.job AND p.enabled AND p.seen_at > $2)
        AND NOT EXISTS (SELECT 1 FROM job_runs g WHERE g.job = r.job AND g.state = 'running')";
    let values = vec![(window.now - WAITS_MAX).into(), (window.now - SILENT).into()];
    count(reader, &mut check, text, values).await?;
    Ok(check)
}

/// Rows of the service's own tables that should have been dealt with; those set aside are known to operators.
async fn due_rows(reader: &Reader, window: Window) -> anyhow::Result<Check> {
    let mut check = Check::new("due rows stuck");
    for table in reader.due_tables().await? {
        let text = format!("SELECT count(*) AS examined FROM {table} WHERE due_at IS NOT NULL");
        for row in reader.all(&text, Vec::new()).await? {
            check.examined += row.try_get::<i64>("", "examined")?.unsigned_abs();
        }
        let oldest = if reader.sqlite() { "min(t.due_at)" } else { "min(t.due_at)::text" };
        let text = format!(
            "SELECT count(*) AS found, '{table}: due since ' || {oldest} AS first FROM {table} t
             WHERE t.due_at < $1 AND NOT EXISTS (SELECT 1 FROM job_failures f WHERE f.row_id = t.id)"
        );
        count(reader, &mut check, &text, vec![window.settled().into()]).await?;
    }
    Ok(check)
}
