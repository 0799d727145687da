//! All SQL of the outbox but the insert.

use broker::{
    REPLAY_HEADER,
    dead_letters::{self, DeadLetter, Direction},
};
use chrono::{DateTime, Utc};
use database::{Cells, Fault, Sql, id, time};
use sea_orm::{DatabaseConnection, DatabaseTransaction, QueryResult};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Error;

/// Rows that a replay marks in one statement.
const REPLAY_BATCH: i64 = 5_000;
/// Consumers remember ids for so long (the inbox's retention).
const REMEMBERED: chrono::TimeDelta = chrono::TimeDelta::days(30);

/// A row of the outbox.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutboxRow {
    /// Its place; within a key, commit order.
    pub position: i64,
    /// The event.
    pub id: Uuid,
    /// Its type.
    pub topic: String,
    /// Its aggregate.
    pub key: String,
    /// The aggregate's version.
    pub sequence: i64,
    /// The envelope's bytes.
    #[serde(skip)]
    pub body: Vec<u8>,
    /// Its headers.
    #[serde(skip)]
    pub headers: Vec<(String, String)>,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// When the broker acknowledged it.
    pub published_at: Option<DateTime<Utc>>,
}

/// Which published events to send again.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Recorded at or after.
    pub from: DateTime<Utc>,
    /// Recorded at or before.
    pub to: DateTime<Utc>,
    /// Only these types; empty: all.
    pub types: Vec<String>,
    /// Also what consumers do not remember any more.
    pub force: bool,
}

/// What waits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waiting {
    pub(crate) rows: i64,
    pub(crate) oldest: Option<DateTime<Utc>>,
}

/// The outbox of one service.
#[derive(Debug, Clone)]
pub struct Store {
    db: DatabaseConnection,
}

const COLUMNS: &str = "position, id, topic, key, sequence, body, headers, recorded_at, published_at";

fn row(row: &QueryResult) -> Result<OutboxRow, Fault> {
    let headers: Value = row.try_get("", "headers")?;
    Ok(OutboxRow {
        position: row.try_get("", "position")?,
        id: row.try_get("", "id")?,
        topic: row.try_get("", "topic")?,
        key: row.try_get("", "key")?,
        sequence: row.try_get("", "sequence")?,
        body: row.try_get("", "body")?,
        headers: serde_json::from_value(headers).map_err(|error| Fault::Broken(error.to_string()))?,
        recorded_at: row.try_get("", "recorded_at")?,
        published_at: row.try_get("", "published_at")?,
    })
}

impl Store {
    /// The outbox behind these connections.
    pub fn new(db: DatabaseConnection) -> Self {
        Self { db }
    }

    fn sql(&self) -> Sql {
        Sql::of(&self.db)
    }

    /// Takes or extends the right to be the active relay. The epoch, or `None` while another has it.
    pub(crate) async fn lease(
        &self,
        owner: &str,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Option<i64>, Fault> {
        let mut sql = self.sql();
        let (owner, now, until) = (sql.bind(owner), sql.bind(now), sql.bind(until));
        // A new owner raises the epoch, so that the one before marks nothing any more.
        let text = format!(
            "INSERT INTO outbox_relay (name, owner, epoch, lease_until) VALUES ('relay', {owner}, 1, {until})
             ON CONFLICT (name) DO UPDATE SET lease_until = excluded.lease_until, owner = excluded.owner,
                 epoch = outbox_relay.epoch + CASE WHEN outbox_relay.owner = excluded.owner THEN 0 ELSE 1 END
             WHERE outbox_relay.owner = excluded.owner OR outbox_relay.lease_until < {now} RETURNING epoch"
        );
        let row = sql.one(&self.db, &text).await?;
        Ok(row.map(|row| row.try_get("", "epoch")).transpose()?)
    }

    /// Gives the right back, so that another need not wait for its end.
    pub(crate) async fn resign(&self, owner: &str, epoch: i64, now: DateTime<Utc>) -> Result<(), Fault> {
        let mut sql = self.sql();
        let (owner, epoch, now) = (sql.bind(owner), sql.bind(epoch), sql.bind(now - chrono::TimeDelta::seconds(1)));
        let text = format!("UPDATE outbox_relay SET lease_until = {now} WHERE owner = {owner} AND epoch = {epoch}");
        sql.run(&self.db, &text).await.map(drop)
    }

    /// What is not published yet, oldest first, without these keys.
    pub(crate) async fn waiting(&self, limit: u64, without: &[&str]) -> Result<Vec<OutboxRow>, Fault> {
        let mut sql = self.sql();
        let without = match without {
            [] => String::new(),
            keys if sql.sqlite() => format!("AND NOT key {}", sql.words(keys)),
            keys => format!("AND NOT (key {})", sql.words(keys)),
        };
        let limit = sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let text = format!(
            "SELECT {COLUMNS} FROM outbox WHERE published_at IS NULL {without} ORDER BY position LIMIT {limit}"
        );
        sql.all(&self.db, &text).await?.iter().map(row).collect()
    }

    /// Marks rows as published, if the relay's epoch is still this. False: somebody else is the relay now.
    pub(crate) async fn mark(
        &self,
        positions: &[i64],
        owner: &str,
        epoch: i64,
        now: DateTime<Utc>,
    ) -> Result<bool, Fault> {
        let mut sql = self.sql();
        let rows = sql.rows([("p", Cells::Big(positions.to_vec()))]);
        let (now, owner, epoch) = (sql.bind(now), sql.bind(owner), sql.bind(epoch));
        let text = format!(
            "UPDATE outbox SET published_at = {now} FROM {rows} WHERE position = x.p
             AND EXISTS (SELECT 1 FROM outbox_relay WHERE name = 'relay' AND owner = {owner} AND epoch = {epoch})"
        );
        Ok(sql.run(&self.db, &text).await? > 0 || positions.is_empty())
    }

    /// Moves a row to the dead letters, in one transaction. False: it is not there, or published.
    pub async fn bury(&self, event: Uuid, error: &str, now: DateTime<Utc>) -> Result<bool, Error> {
        let (db, error) = (self.db.clone(), error.to_owned());
        database::uncancelled(async move {
            let tx = database::begin(&db).await?;
            let buried = bury(&tx, event, &error, now).await?;
            tx.commit().await.map_err(Fault::from)?;
            Ok(buried)
        })
        .await
    }

    /// Puts a dead letter that was on its way out back into the outbox. False: there is no such letter.
    pub async fn unbury(&self, letter: Uuid) -> Result<bool, Error> {
        let db = self.db.clone();
        database::uncancelled(async move {
            let tx = database::begin(&db).await?;
            let found = match dead_letters::take(&tx, letter).await? {
                Some(letter) if letter.direction == Direction::Out => {
                    put_back(&tx, &letter).await?;
                    true
                }
                // A letter on its way in is the inbox's: leave it there.
                _ => {
                    tx.rollback().await.map_err(Fault::from)?;
                    return Ok(false);
                }
            };
            tx.commit().await.map_err(Fault::from)?;
            Ok(found)
        })
        .await
    }

    /// A page of what waits, oldest first, after `after`.
    pub async fn list(&self, after: i64, limit: u64) -> Result<Vec<OutboxRow>, Error> {
        let mut sql = self.sql();
        let (after, limit) = (sql.bind(after), sql.bind(i64::try_from(limit).unwrap_or(i64::MAX)));
        let text = format!(
            "SELECT {COLUMNS} FROM outbox WHERE published_at IS NULL AND position > {after}
             ORDER BY position LIMIT {limit}"
        );
        Ok(sql.all(&self.db, &text).await?.iter().map(row).collect::<Result<_, Fault>>()?)
    }

    /// A page of events, recorded order, after `after`: what was said, whether it has left or not.
    pub async fn history(
        &self,
        after: i64,
        since: Option<DateTime<Utc>>,
        topic: Option<&str>,
        key: Option<&str>,
        limit: u64,
    ) -> Result<Vec<OutboxRow>, Error> {
        let mut sql = self.sql();
        let mut wanted = format!("position > {}", sql.bind(after));
        if let Some(since) = since {
            wanted = format!("{wanted} AND recorded_at >= {}", sql.bind(since));
        }
        for (column, value) in [("topic", topic), ("key", key)] {
            if let Some(value) = value {
                wanted = format!("{wanted} AND {column} = {}", sql.bind(value));
            }
        }
        let limit = sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let text = format!("SELECT {COLUMNS} FROM outbox WHERE {wanted} ORDER BY position LIMIT {limit}");
        Ok(sql.all(&self.db, &text).await?.iter().map(row).collect::<Result<_, Fault>>()?)
    }

    /// The newest position; 0 when nothing was said yet.
    pub async fn newest(&self) -> Result<i64, Error> {
        let row = self.sql().one(&self.db, "SELECT position FROM outbox ORDER BY position DESC LIMIT 1").await?;
        Ok(row.map(|row| row.try_get("", "position")).transpose().map_err(Fault::from)?.unwrap_or(0))
    }

    /// Marks published events of a range as not published, batch by batch, so that the relay sends them again with
    /// their ids. How many.
    pub async fn replay(&self, replay: &Replay, now: DateTime<Utc>) -> Result<u64, Error> {
        if replay.from < now - REMEMBERED && !replay.force {
            return Err(Error::TooOld(now - REMEMBERED));
        }
        let (mut total, mut after) = (0, 0_i64);
        loop {
            let mut sql = self.sql();
            let (from, to, at) = (sql.bind(replay.from), sql.bind(replay.to), sql.bind(after));
            let types = match &replay.types[..] {
                [] => String::new(),
                types => format!("AND topic {}", sql.words(types)),
            };
            let mark = sql.bind(json!([REPLAY_HEADER, now.to_rfc3339()]).to_string());
            let headers = if sql.sqlite() {
                format!("json_insert(headers, '$[#]', json({mark}))")
            } else {
                format!("headers || jsonb_build_array({mark}::jsonb)")
            };
            let text = format!(
                "UPDATE outbox SET published_at = NULL, headers = {headers} WHERE position IN (SELECT position FROM outbox
                     WHERE published_at IS NOT NULL AND recorded_at >= {from} AND recorded_at <= {to}
                     AND position > {at} {types} ORDER BY position LIMIT {REPLAY_BATCH}) RETURNING position"
            );
            let rows = sql.all(&self.db, &text).await?;
            for row in &rows {
                after = after.max(row.try_get("", "position").map_err(Fault::from)?);
            }
            total += rows.len() as u64;
            if i64::try_from(rows.len()).unwrap_or(i64::MAX) < REPLAY_BATCH {
                return Ok(total);
            }
        }
    }

    /// How much waits, and since when.
    pub(crate) async fn backlog(&self) -> Result<Waiting, Fault> {
        let text = "SELECT count(*) AS waiting, min(recorded_at) AS oldest FROM outbox WHERE published_at IS NULL";
        match self.sql().one(&self.db, text).await? {
            Some(row) => Ok(Waiting { rows: row.try_get("", "waiting")?, oldest: row.try_get("", "oldest")? }),
            None => Ok(Waiting::default()),
        }
    }

    /// Deletes rows published before `before`, at most `batch`. How many went.
    pub(crate) async fn prune(&self, before: DateTime<Utc>, batch: u64) -> Result<u64, Fault> {
        let mut sql = self.sql();
        let (before, batch) = (sql.bind(before), sql.bind(i64::try_from(batch).unwrap_or(i64::MAX)));
        let text = format!(
            "DELETE FROM outbox WHERE position IN (SELECT position FROM outbox WHERE published_at IS NOT NULL
                 AND published_at < {before} ORDER BY published_at LIMIT {batch})"
        );
        sql.run(&self.db, &text).await
    }
}

async fn bury(tx: &DatabaseTransaction, event: Uuid, error: &str, now: DateTime<Utc>) -> Result<bool, Fault> {
    let mut sql = Sql::of(tx);
    let event = sql.bind(id(Some(event)));
    let text = format!("DELETE FROM outbox WHERE id = {event} AND published_at IS NULL RETURNING {COLUMNS}");
    let Some(found) = sql.one(tx, &text).await? else { return Ok(false) };
    let row = row(&found)?;
    let letter = DeadLetter {
        id: Uuid::now_v7(),
        direction: Direction::Out,
        consumer: "relay".to_owned(),
        topic: row.topic,
        partition: None,
        offset: Some(row.sequence),
        key: row.key,
        event_id: Some(row.id),
        body: row.body,
        headers: json!(row.headers),
        error: error.to_owned(),
        attempts: 1,
        given_up_at: now,
    };
    dead_letters::keep(tx, &letter).await?;
    Ok(true)
}

async fn put_back(tx: &DatabaseTransaction, letter: &DeadLetter) -> Result<(), Fault> {
    let mut sql = Sql::of(tx);
    let event = letter.event_id.unwrap_or(letter.id);
    let (event, topic, key) =
        (sql.bind(id(Some(event))), sql.bind(letter.topic.as_str()), sql.bind(letter.key.as_str()));
    let (sequence, body) = (sql.bind(letter.offset.unwrap_or(0)), sql.bind(letter.body.clone()));
    let (headers, at) = (sql.json(Some(&letter.headers)), sql.bind(time(Some(letter.given_up_at))));
    let text = format!(
        "INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at)
         VALUES ({event}, {topic}, {key}, {sequence}, {body}, {headers}, {at})"
    );
    sql.run(tx, &text).await.map(drop)
}
