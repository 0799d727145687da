//! Runs that wait, runs that go on, and those of dead owners.

use std::time::Duration;

use super::{
    Ctl, SqlStore,
    dialect::{Sql, id, time},
    rows,
};
use crate::{
    Instant, StoreError,
    kinds::Held,
    ledger::{NewRun, RunRow, RunState},
    store::{Enqueued, QueueOf, Recovered, Recovery, Renewal, rules},
};

/// How far back an idempotency key is remembered.
const KEY_REMEMBERED: chrono::TimeDelta = chrono::TimeDelta::hours(24);

impl Ctl {
    pub(super) async fn enqueue(&self, job: &str, new: NewRun, limit: u64) -> Result<Enqueued, StoreError> {
        // The schedule row's lock keeps two operators from passing the limit together.
        self.schedules(&[job.to_owned()], true).await?;
        if let Some(known) = self.by_key(job, &new.run_key).await? {
            let since = known.queued_at.or(known.started_at).or(known.finished_at).unwrap_or(self.now);
            if self.now - since < KEY_REMEMBERED {
                return Ok(Enqueued::Existing(known));
            }
            let mut sql = self.sql();
            let (key, row) = (sql.bind(format!("{}:{}", known.run_key, known.id)), sql.bind(id(Some(known.id))));
            sql.run(&self.tx, &format!("UPDATE job_runs SET run_key = {key} WHERE id = {row}")).await?;
        }
        let mut sql = self.sql();
        let (name, wake) = (sql.bind(job), sql.bind(new.wake.as_str()));
        let text = format!(
            "SELECT count(*) AS waiting FROM job_runs WHERE job = {name} AND state = 'queued' AND wake_source = {wake}"
        );
        let waiting = sql.one(&self.tx, &text).await?.map_or(Ok(0), |row| row.try_get::<i64>("", "waiting"))?;
        if u64::try_from(waiting).unwrap_or(0) >= limit {
            return Ok(Enqueued::Full);
        }
        let row = rules::row(job, new, self.now);
        self.insert_runs(&[(row.clone(), true)]).await?;
        Ok(Enqueued::New(row))
    }

    async fn by_key(&self, job: &str, key: &str) -> Result<Option<RunRow>, StoreError> {
        let mut sql = self.sql();
        let (job, key) = (sql.bind(job), sql.bind(key));
        let text = format!("SELECT {} FROM job_runs WHERE job = {job} AND run_key = {key}", rows::RUN);
        sql.one(&self.tx, &text).await?.map(|row| rows::run(&row)).transpose()
    }

    pub(super) async fn take_queued(
        &self,
        jobs: &[QueueOf],
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<RunRow>, StoreError> {
        let names: Vec<&str> = jobs.iter().map(|queue| queue.job.as_str()).collect();
        let mut sql = self.sql();
        let lock = if sql.sqlite() { "" } else { "FOR UPDATE SKIP LOCKED" };
        let (names, now) = (sql.words(&names), sql.bind(self.now));
        // So many of each job: one with a long queue keeps no other from being looked at.
        let text = format!(
            "SELECT {} FROM job_runs WHERE state = 'queued' AND id IN (SELECT id FROM (
                 SELECT id, row_number() OVER (PARTITION BY job ORDER BY fire_at, id) AS place FROM job_runs
                 WHERE state = 'queued' AND job {names} AND (queued_at IS NULL OR queued_at <= {now})) AS waiting
                 WHERE place <= {})
             ORDER BY fire_at, id {lock}",
            rows::RUN,
            rules::TAKEN_MAX
        );
        let waiting = rows::each(&sql.all(&self.tx, &text).await?, rows::run)?;
        let mut taken: Vec<RunRow> = Vec::new();
        for mut row in waiting {
            let exclusive = jobs.iter().find(|queue| queue.job == row.job).is_none_or(|queue| queue.exclusive);
            if exclusive && taken.iter().any(|taken| taken.job == row.job) {
                continue;
            }
            let epoch = row.epoch + 1;
            rules::begin(&mut row, epoch, owner, self.now, lease);
            if self.begin_queued(&row, exclusive).await? {
                taken.push(row);
            }
        }
        Ok(taken)
    }

    /// Starts a waiting run unless an exclusive one goes on. A race for it ends at the partial unique index.
    async fn begin_queued(&self, row: &RunRow, exclusive: bool) -> Result<bool, StoreError> {
        let mut sql = self.sql();
        let (owner, epoch) = (sql.bind(row.owner.clone()), sql.bind(row.epoch));
        let (lease, started) = (sql.bind(time(row.lease_until)), sql.bind(time(row.started_at)));
        let (late, exclusive_now) = (sql.bind(row.lateness_ms), sql.bind(exclusive));
        let (run, job) = (sql.bind(id(Some(row.id))), sql.bind(row.job.as_str()));
        let free = if exclusive {
            format!(
                "AND NOT EXISTS (SELECT 1 FROM job_runs g WHERE g.job = {job} AND g.state = 'running' AND g.exclusive)"
            )
        } else {
            format!("AND job = {job}")
        };
        let text = format!(
            "UPDATE job_runs SET state = 'running', owner = {owner}, epoch = {epoch}, beat = 0, lease_until = {lease},
                 started_at = {started}, lateness_ms = {late}, exclusive = {exclusive_now}
             WHERE id = {run} AND state = 'queued' {free}"
        );
        Ok(sql.run(&self.tx, &text).await? == 1)
    }

    pub(super) async fn recover(
        &self,
        jobs: &[Recovery],
        stale: &[(Held, i64)],
        owner: &str,
        lease: Duration,
    ) -> Result<Recovered, StoreError> {
        let named: Vec<uuid::Uuid> = jobs.iter().flat_map(|recovery| &recovery.runs).map(|(run, _)| *run).collect();
        let mut sql = self.sql();
        let lock = if sql.sqlite() { "" } else { "FOR UPDATE SKIP LOCKED" };
        let text =
            format!("SELECT {} FROM job_runs WHERE state = 'running' AND id {} {lock}", rows::RUN, sql.ids(&named));
        let running = rows::each(&sql.all(&self.tx, &text).await?, rows::run)?;
        let mut recovered = Recovered::default();
        for mut row in running.into_iter().filter(|row| dead(row, stale, self.now)) {
            let Some(recovery) = jobs.iter().find(|recovery| recovery.job == row.job) else { continue };
            let Some(superseded) = recovery.superseded(row.id, self.now) else { continue };
            let seen = row.epoch;
            if rules::lose(&mut row, recovery.resume, superseded, self.now) {
                let epoch = row.epoch + 1;
                rules::begin(&mut row, epoch, owner, self.now, lease);
            }
            if self.replace(&row, seen).await? {
                let list = if row.state == RunState::Running { &mut recovered.resumed } else { &mut recovered.ended };
                list.push(row);
            }
        }
        Ok(recovered)
    }

    /// Writes the whole of a running row back, if its epoch is still the one that was seen.
    pub(super) async fn replace(&self, row: &RunRow, seen_epoch: i64) -> Result<bool, StoreError> {
        let mut sql = self.sql();
        let attempts = serde_json::to_value(&row.attempts).map_err(|error| StoreError::Broken(error.to_string()))?;
        let attempts = sql.json(Some(&attempts));
        let sets = [
            format!("state = {}", sql.bind(row.state.as_str())),
            format!("outcome = {}", sql.bind(row.outcome.map(|outcome| outcome.as_str().to_owned()))),
            format!("reason = {}", sql.bind(row.reason.clone())),
            format!("error = {}", sql.bind(row.error.clone())),
            format!("attempt = {}", sql.bind(row.attempt)),
            format!("attempts = {attempts}"),
            format!("owner = {}", sql.bind(row.owner.clone())),
            format!("epoch = {}", sql.bind(row.epoch)),
            format!("beat = {}", sql.bind(row.beat)),
            format!("lease_until = {}", sql.bind(time(row.lease_until))),
            format!("queued_at = {}", sql.bind(time(row.queued_at))),
            format!("started_at = {}", sql.bind(time(row.started_at))),
            format!("finished_at = {}", sql.bind(time(row.finished_at))),
        ];
        let (run, seen) = (sql.bind(id(Some(row.id))), sql.bind(seen_epoch));
        let text = format!(
            "UPDATE job_runs SET {} WHERE id = {run} AND epoch = {seen} AND state = 'running'",
            sets.join(", ")
        );
        Ok(sql.run(&self.tx, &text).await? == 1)
    }

    pub(super) async fn renew(&self, held: &[Held], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        let mut sql = self.sql();
        let records = sql.held(held);
        let until = sql.bind(self.now + rules::delta(lease));
        let text = format!(
            "UPDATE job_runs SET beat = beat + 1, lease_until = {until} FROM {records}
             WHERE id = x.r AND epoch = x.e AND state = 'running' RETURNING id, epoch, cancel_at"
        );
        let mut alive = Vec::new();
        for row in sql.all(&self.tx, &text).await? {
            let held = Held { id: row.try_get("", "id")?, epoch: row.try_get("", "epoch")? };
            alive.push((held, row.try_get::<Option<Instant>>("", "cancel_at")?.is_some()));
        }
        let renewal = |held: &Held| {
            let found = alive.iter().find(|(alive, _)| alive == held);
            Renewal { held: *held, alive: found.is_some(), cancel: found.is_some_and(|(_, cancel)| *cancel) }
        };
        Ok(held.iter().map(renewal).collect())
    }
}

/// Whether the lease has ended, or an observer has seen no sign of life for a whole lease.
fn dead(row: &RunRow, stale: &[(Held, i64)], now: Instant) -> bool {
    let seen = (Held { id: row.id, epoch: row.epoch }, row.beat);
    row.lease_until.is_none_or(|until| until < now) || stale.contains(&seen)
}

impl SqlStore {
    pub(super) async fn read_running(&self, jobs: &[String]) -> Result<Vec<RunRow>, StoreError> {
        let mut sql = Sql::new(self.backend());
        let text = format!("SELECT {} FROM job_runs WHERE state = 'running' AND job {}", rows::RUN, sql.words(jobs));
        rows::each(&self.read(sql, text).await?, rows::run)
    }
}
