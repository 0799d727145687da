//! Schedule rows and replicas: what is in force, who lives, what is paused.

use serde_json::json;

use super::{
    Ctl, SqlStore,
    dialect::{Sql, Type, stamp, time},
    rows,
};
use crate::{
    Instant, StoreError,
    ledger::{Pause, ReplicaRow, ScheduleRow},
    policy::{self, Resume},
    store::{Announcement, Look},
};

/// A replica that was not seen for so long is forgotten.
const FORGET: chrono::TimeDelta = chrono::TimeDelta::days(1);

impl Ctl {
    pub(super) fn sql(&self) -> Sql {
        Sql::new(self.backend)
    }

    pub(super) async fn announce(&self, replica: &str, said: &[Announcement]) -> Result<Vec<ScheduleRow>, StoreError> {
        self.insert_missing(replica, said).await?;
        self.seen(replica, said).await?;
        if said.iter().any(|said| said.starting) {
            let jobs: Vec<String> = said.iter().map(|said| said.job.clone()).collect();
            let rows = self.schedules(&jobs, true).await?;
            for said in said.iter().filter(|said| said.starting && said.enabled) {
                let hash = said.spec.hash();
                if let Some(row) = rows.iter().find(|row| row.job == said.job && row.spec_hash != hash) {
                    self.respec(replica, said, row).await?;
                }
            }
        }
        let jobs: Vec<String> = said.iter().map(|said| said.job.clone()).collect();
        self.schedules(&jobs, false).await
    }

    async fn insert_missing(&self, replica: &str, said: &[Announcement]) -> Result<(), StoreError> {
        let now = stamp(self.now);
        let records: Vec<serde_json::Value> = said
            .iter()
            .map(|said| {
                let (anchor, next) = policy::first(&said.spec, self.now);
                json!({
                    "job": said.job, "spec": said.spec, "spec_hash": said.spec.hash(), "spec_by": replica, "at": now,
                    "anchor_at": stamp(anchor), "next_at": next.map(stamp),
                })
            })
            .collect();
        let mut sql = self.sql();
        let columns = [
            ("job", Type::Text),
            ("spec", Type::Json),
            ("spec_hash", Type::Text),
            ("spec_by", Type::Text),
            ("at", Type::Time),
            ("anchor_at", Type::Time),
            ("next_at", Type::Time),
        ];
        let records = sql.records(&columns, &records);
        let text = format!(
            "INSERT INTO job_schedules (job, spec, spec_hash, spec_by, spec_at, anchor_at, next_at, epoch, ledger_from)
             SELECT x.job, x.spec, x.spec_hash, x.spec_by, x.at, x.anchor_at, x.next_at, 1, x.at FROM {records}
             WHERE true ORDER BY x.job ON CONFLICT (job) DO NOTHING"
        );
        sql.run(&self.tx, &text).await.map(drop)
    }

    async fn seen(&self, replica: &str, said: &[Announcement]) -> Result<(), StoreError> {
        let records: Vec<serde_json::Value> = said
            .iter()
            .map(|said| json!({ "job": said.job, "enabled": said.enabled, "spec_hash": said.spec.hash() }))
            .collect();
        let mut sql = self.sql();
        let columns = [("job", Type::Text), ("enabled", Type::Bool), ("spec_hash", Type::Text)];
        let records = sql.records(&columns, &records);
        let (replica, now) = (sql.bind(replica), sql.bind(self.now));
        let text = format!(
            "INSERT INTO job_replicas (job, replica, enabled, spec_hash, started_at, seen_at)
             SELECT x.job, {replica}, x.enabled, x.spec_hash, {now}, {now} FROM {records} WHERE true
             ON CONFLICT (job, replica) DO UPDATE SET enabled = excluded.enabled, spec_hash = excluded.spec_hash,
                 seen_at = excluded.seen_at"
        );
        sql.run(&self.tx, &text).await?;
        let mut sql = self.sql();
        let horizon = sql.bind(self.now - FORGET);
        sql.run(&self.tx, &format!("DELETE FROM job_replicas WHERE seen_at < {horizon}")).await.map(drop)
    }

    async fn respec(&self, replica: &str, said: &Announcement, row: &ScheduleRow) -> Result<(), StoreError> {
        let (anchor, next) = policy::respec(row, &said.spec, self.now);
        let spec = serde_json::to_value(&said.spec).map_err(|error| StoreError::Broken(error.to_string()))?;
        let mut sql = self.sql();
        let spec = sql.json(Some(&spec));
        let (hash, by, now) = (sql.bind(said.spec.hash()), sql.bind(replica), sql.bind(self.now));
        let (anchor, next, job) = (sql.bind(anchor), sql.bind(time(next)), sql.bind(said.job.as_str()));
        let text = format!(
            "UPDATE job_schedules SET spec = {spec}, spec_hash = {hash}, spec_by = {by}, spec_at = {now},
                 anchor_at = {anchor}, next_at = {next}, epoch = epoch + 1 WHERE job = {job}"
        );
        sql.run(&self.tx, &text).await.map(drop)
    }

    pub(super) async fn schedules(&self, jobs: &[String], lock: bool) -> Result<Vec<ScheduleRow>, StoreError> {
        let mut sql = self.sql();
        let text = schedules(&mut sql, jobs, lock);
        rows::each(&sql.all(&self.tx, &text).await?, rows::schedule)
    }

    pub(super) async fn pause(&self, job: &str, pause: &Pause) -> Result<Option<ScheduleRow>, StoreError> {
        let mut sql = self.sql();
        let (at, by) = (sql.bind(pause.at), sql.bind(pause.by.as_str()));
        let (reason, until, name) = (sql.bind(pause.reason.as_str()), sql.bind(time(pause.until)), sql.bind(job));
        let text = format!(
            "UPDATE job_schedules SET paused_at = {at}, paused_by = {by}, pause_reason = {reason},
                 paused_until = {until}, epoch = epoch + 1 WHERE job = {name}"
        );
        sql.run(&self.tx, &text).await?;
        Ok(self.schedules(&[job.to_owned()], false).await?.into_iter().next())
    }

    pub(super) async fn resume(&self, job: &str, resume: &Resume) -> Result<bool, StoreError> {
        let mut sql = self.sql();
        let (next, name, seen) = (sql.bind(time(resume.next_at)), sql.bind(job), sql.bind(resume.seen_epoch));
        let text = format!(
            "UPDATE job_schedules SET paused_at = NULL, paused_by = NULL, pause_reason = NULL, paused_until = NULL,
                 next_at = {next}, epoch = epoch + 1 WHERE job = {name} AND epoch = {seen}"
        );
        if sql.run(&self.tx, &text).await? != 1 {
            return Ok(false);
        }
        let rows: Vec<_> = resume
            .ledger
            .iter()
            .chain(&resume.queued)
            .map(|new| (crate::store::rules::row(job, new.clone(), self.now), true))
            .collect();
        self.insert_runs(&rows).await?;
        Ok(true)
    }

    pub(super) async fn set_override(
        &self,
        job: &str,
        seen_epoch: i64,
        overrides: Option<&serde_json::Value>,
        (anchor, next): (Instant, Option<Instant>),
    ) -> Result<bool, StoreError> {
        let mut sql = self.sql();
        let overrides = sql.json(overrides);
        let (anchor, next) = (sql.bind(anchor), sql.bind(time(next)));
        let (job, seen) = (sql.bind(job), sql.bind(seen_epoch));
        let text = format!(
            "UPDATE job_schedules SET override = {overrides}, anchor_at = {anchor}, next_at = {next},
                 epoch = epoch + 1 WHERE job = {job} AND epoch = {seen}"
        );
        Ok(sql.run(&self.tx, &text).await? == 1)
    }
}

impl SqlStore {
    pub(super) async fn read_schedules(&self, jobs: &[String]) -> Result<Vec<ScheduleRow>, StoreError> {
        let mut sql = Sql::new(self.backend());
        let text = schedules(&mut sql, jobs, false);
        rows::each(&self.read(sql, text).await?, rows::schedule)
    }

    /// One statement, for a sweep asks it every 5 s.
    pub(super) async fn read_look(&self, jobs: &[String]) -> Result<Look, StoreError> {
        let mut sql = Sql::new(self.backend());
        let of = if jobs.is_empty() { "IS NOT NULL".to_owned() } else { sql.words(jobs) };
        let any = |state| format!("EXISTS (SELECT 1 FROM job_runs WHERE state = '{state}' AND job {of})");
        let text = format!(
            "SELECT s.*, {} AS queued, {} AS running FROM job_schedules s WHERE job {of} ORDER BY job",
            any("queued"),
            any("running")
        );
        let found = self.read(sql, text).await?;
        let any = |state| found.first().map_or(Ok(false), |row| row.try_get("", state));
        Ok(Look { queued: any("queued")?, running: any("running")?, schedules: rows::each(&found, rows::schedule)? })
    }

    pub(super) async fn read_replicas(&self, job: &str) -> Result<Vec<ReplicaRow>, StoreError> {
        let mut sql = Sql::new(self.backend());
        let text = format!("SELECT * FROM job_replicas WHERE job = {} ORDER BY replica", sql.bind(job));
        rows::each(&self.read(sql, text).await?, rows::replica)
    }
}

fn schedules(sql: &mut Sql, jobs: &[String], lock: bool) -> String {
    let wanted = if jobs.is_empty() { String::new() } else { format!("WHERE job {}", sql.words(jobs)) };
    let lock = if lock && !sql.sqlite() { "FOR UPDATE" } else { "" };
    format!("SELECT * FROM job_schedules {wanted} ORDER BY job {lock}")
}
