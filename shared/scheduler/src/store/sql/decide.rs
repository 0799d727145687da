//! Decisions: a compare-and-set for each schedule row, the ledger rows, and what happens to starts that overlap.

use std::{collections::HashSet, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Ctl,
    dialect::{Type, hex, id, stamp, time},
    rows,
};
use crate::{
    StoreError,
    kinds::Held,
    ledger::{Outcome, RunRow, RunState},
    policy::Decision,
    schedule::Overlap,
    store::{Decided, rules},
};

/// A start that the unique indexes may refuse.
struct Start {
    at: usize,
    row: RunRow,
    overlap: Overlap,
}

impl Ctl {
    pub(super) async fn decide(
        &self,
        decisions: &[Decision],
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<Decided>, StoreError> {
        let won = self.compare_and_set(decisions).await?;
        let mut decided: Vec<Decided> = decisions
            .iter()
            .map(|decision| Decided {
                job: decision.job.clone(),
                won: won.contains(&decision.job),
                started: Vec::new(),
                disturbed: Vec::new(),
            })
            .collect();
        let (mut inserts, mut starts) = (Vec::new(), Vec::new());
        for (at, decision) in decisions.iter().enumerate().filter(|(at, _)| decided[*at].won) {
            let exclusive = decision.overlap != Overlap::AllowAll;
            inserts.extend(decision.ledger.iter().map(|new| (rules::row(&decision.job, new.clone(), self.now), true)));
            for new in &decision.starts {
                let mut row = rules::row(&decision.job, new.clone(), self.now);
                rules::begin(&mut row, decision.seen_epoch + 1, owner, self.now, lease);
                inserts.push((row.clone(), exclusive));
                starts.push(Start { at, row, overlap: decision.overlap });
            }
        }
        let inserted = self.insert_runs(&inserts).await?;
        for start in starts {
            if inserted.contains(&start.row.id) {
                decided[start.at].started.push(start.row);
            } else {
                self.overlap(start, &mut decided).await?;
            }
        }
        Ok(decided)
    }

    /// Moves the schedule rows whose epoch is still the one that was seen. Which ones.
    async fn compare_and_set(&self, decisions: &[Decision]) -> Result<HashSet<String>, StoreError> {
        if decisions.len() > 1 && !self.sql().sqlite() {
            // Two replicas that decide the same jobs take the rows in one order.
            let mut sql = self.sql();
            let jobs: Vec<&str> = decisions.iter().map(|decision| decision.job.as_str()).collect();
            let text = format!("SELECT job FROM job_schedules WHERE job {} ORDER BY job FOR UPDATE", sql.words(&jobs));
            sql.all(&self.tx, &text).await?;
        }
        let records: Vec<Value> = decisions
            .iter()
            .map(|decision| {
                json!({
                    "j": decision.job, "seen": decision.seen_epoch, "next": decision.next_at.map(stamp),
                    "starting": decision.stamp_start,
                })
            })
            .collect();
        let mut sql = self.sql();
        let columns = [("j", Type::Text), ("seen", Type::Big), ("next", Type::Time), ("starting", Type::Bool)];
        let records = sql.records(&columns, &records);
        let now = sql.bind(self.now);
        let text = format!(
            "UPDATE job_schedules SET next_at = x.next, epoch = epoch + 1,
                 last_start_at = CASE WHEN x.starting THEN {now} ELSE last_start_at END
             FROM {records} WHERE job = x.j AND epoch = x.seen AND paused_at IS NULL RETURNING job"
        );
        let rows = sql.all(&self.tx, &text).await?;
        rows.iter().map(|row| Ok(row.try_get::<String>("", "job")?)).collect()
    }

    /// Inserts ledger rows (with whether they are exclusive) in one statement; those that no unique index refused.
    pub(super) async fn insert_runs(&self, rows: &[(RunRow, bool)]) -> Result<HashSet<Uuid>, StoreError> {
        if rows.is_empty() {
            return Ok(HashSet::new());
        }
        let records: Vec<Value> = rows.iter().map(|(row, exclusive)| record(row, *exclusive)).collect();
        let mut sql = self.sql();
        let records = sql.records(COLUMNS, &records);
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        let picked: Vec<String> = names.iter().map(|name| format!("x.{name}")).collect();
        let text = format!(
            "INSERT INTO job_runs ({}) SELECT {} FROM {records} WHERE true ON CONFLICT DO NOTHING RETURNING id",
            names.join(", "),
            picked.join(", ")
        );
        let rows = sql.all(&self.tx, &text).await?;
        rows.iter().map(|row| Ok(row.try_get::<Uuid>("", "id")?)).collect()
    }

    /// A start that was refused: its instant has a row already, or another run is going.
    async fn overlap(&self, start: Start, decided: &mut [Decided]) -> Result<(), StoreError> {
        let Start { at, row, overlap } = start;
        if self.has_key(&row).await? {
            return Ok(());
        }
        match overlap {
            Overlap::Skip | Overlap::AllowAll => self.skip(row, None).await,
            Overlap::BufferOne => self.buffer(row, 1).await,
            Overlap::BufferAll => self.buffer(row, rules::BUFFER_ALL_MAX).await,
            Overlap::CancelOther => {
                let cancelled = self.cancel_going(&row.job).await?;
                if cancelled.is_empty() {
                    return self.start_after_all(row, &mut decided[at]).await;
                }
                decided[at].disturbed.extend(cancelled);
                self.buffer(row, usize::MAX).await
            }
            Overlap::TerminateOther => {
                decided[at].disturbed.extend(self.terminate_going(&row.job).await?);
                self.start_after_all(row, &mut decided[at]).await
            }
        }
    }

    /// Starts a run, begun before its first insert was refused, for what stood in its way has ended.
    async fn start_after_all(&self, row: RunRow, decided: &mut Decided) -> Result<(), StoreError> {
        if self.insert_runs(&[(row.clone(), true)]).await?.is_empty() {
            return Err(StoreError::Again("another run began meanwhile".to_owned()));
        }
        decided.started.push(row);
        Ok(())
    }

    async fn has_key(&self, row: &RunRow) -> Result<bool, StoreError> {
        let mut sql = self.sql();
        let (job, key) = (sql.bind(row.job.as_str()), sql.bind(row.run_key.as_str()));
        let text = format!("SELECT 1 AS one FROM job_runs WHERE job = {job} AND run_key = {key}");
        Ok(sql.one(&self.tx, &text).await?.is_some())
    }

    /// Skips a run; one directly after another skipped one extends it.
    async fn skip(&self, mut row: RunRow, reason: Option<&str>) -> Result<(), StoreError> {
        let mut sql = self.sql();
        let job = sql.bind(row.job.as_str());
        let text = format!(
            "SELECT {} FROM job_runs WHERE job = {job} AND nominal_at IS NOT NULL ORDER BY nominal_at DESC, id DESC LIMIT 1",
            rows::RUN
        );
        let newest = sql.one(&self.tx, &text).await?.map(|row| rows::run(&row)).transpose()?;
        let extends = newest.filter(|last| {
            row.nominal_at > last.nominal_until.or(last.nominal_at)
                && last.outcome == Some(Outcome::SkippedOverlap)
                && last.reason.as_deref() == reason
        });
        let Some(last) = extends else {
            unstart(&mut row);
            rules::skip(&mut row, reason, self.now);
            return self.insert_runs(&[(row, true)]).await.map(drop);
        };
        let mut sql = self.sql();
        let (until, instants) = (sql.bind(time(row.nominal_at)), sql.bind(row.instants));
        let (now, last) = (sql.bind(self.now), sql.bind(id(Some(last.id))));
        let text = format!(
            "UPDATE job_runs SET nominal_until = {until}, instants = instants + {instants}, finished_at = {now}
             WHERE id = {last}"
        );
        sql.run(&self.tx, &text).await.map(drop)
    }

    /// Lets a run wait. Deciders of one job follow each other by the lock on its schedule row, so the count holds.
    async fn buffer(&self, mut row: RunRow, limit: usize) -> Result<(), StoreError> {
        let mut sql = self.sql();
        let job = sql.bind(row.job.as_str());
        let text = format!("SELECT count(*) AS waiting FROM job_runs WHERE job = {job} AND state = 'queued'");
        let waiting = sql.one(&self.tx, &text).await?.map_or(Ok(0), |row| row.try_get::<i64>("", "waiting"))?;
        if usize::try_from(waiting).unwrap_or(usize::MAX) >= limit {
            return self.skip(row, Some("buffer full")).await;
        }
        unstart(&mut row);
        row.state = RunState::Queued;
        row.queued_at = Some(self.now);
        self.insert_runs(&[(row, true)]).await.map(drop)
    }

    async fn cancel_going(&self, job: &str) -> Result<Vec<Held>, StoreError> {
        let mut sql = self.sql();
        let (now, job) = (sql.bind(self.now), sql.bind(job));
        let text = format!(
            "UPDATE job_runs SET cancel_at = {now} WHERE job = {job} AND state = 'running' AND exclusive
             RETURNING id, epoch"
        );
        held(&sql.all(&self.tx, &text).await?)
    }

    async fn terminate_going(&self, job: &str) -> Result<Vec<Held>, StoreError> {
        let mut sql = self.sql();
        let (now, job) = (sql.bind(self.now), sql.bind(job));
        let text = format!(
            "UPDATE job_runs SET state = 'done', outcome = 'terminated', reason = 'a newer run took its place',
                 finished_at = {now}, lease_until = NULL, epoch = epoch + 1
             WHERE job = {job} AND state = 'running' AND exclusive RETURNING id, epoch - 1 AS epoch"
        );
        held(&sql.all(&self.tx, &text).await?)
    }
}

/// Takes back what [`rules::begin`] set.
fn unstart(row: &mut RunRow) {
    row.owner = None;
    row.lease_until = None;
    row.started_at = None;
    row.lateness_ms = None;
    row.epoch = 0;
}

fn held(rows: &[sea_orm::QueryResult]) -> Result<Vec<Held>, StoreError> {
    rows.iter().map(|row| Ok(Held { id: row.try_get("", "id")?, epoch: row.try_get("", "epoch")? })).collect()
}

const COLUMNS: &[(&str, Type)] = &[
    ("id", Type::Uuid),
    ("job", Type::Text),
    ("run_key", Type::Text),
    ("wake_source", Type::Text),
    ("nominal_at", Type::Time),
    ("nominal_until", Type::Time),
    ("instants", Type::Big),
    ("fire_at", Type::Time),
    ("state", Type::Text),
    ("outcome", Type::Text),
    ("reason", Type::Text),
    ("into_run", Type::Uuid),
    ("attempts", Type::Json),
    ("exclusive", Type::Bool),
    ("owner", Type::Text),
    ("epoch", Type::Big),
    ("lease_until", Type::Time),
    ("input", Type::Json),
    ("items", Type::Big),
    ("passes", Type::Big),
    ("lateness_ms", Type::Big),
    ("queued_at", Type::Time),
    ("started_at", Type::Time),
    ("finished_at", Type::Time),
    ("error", Type::Text),
];

fn record(row: &RunRow, exclusive: bool) -> Value {
    json!({
        "id": hex(row.id), "job": row.job, "run_key": row.run_key, "wake_source": row.wake_source,
        "nominal_at": row.nominal_at.map(stamp), "nominal_until": row.nominal_until.map(stamp),
        "instants": row.instants, "fire_at": stamp(row.fire_at), "state": row.state, "outcome": row.outcome,
        "reason": row.reason, "into_run": row.into_run.map(hex), "attempts": row.attempts, "exclusive": exclusive,
        "owner": row.owner, "epoch": row.epoch, "lease_until": row.lease_until.map(stamp), "input": row.input,
        "items": row.items, "passes": row.passes, "lateness_ms": row.lateness_ms,
        "queued_at": row.queued_at.map(stamp), "started_at": row.started_at.map(stamp),
        "finished_at": row.finished_at.map(stamp), "error": row.error,
    })
}
