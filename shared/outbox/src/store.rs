//! All SQL of the outbox but the insert.

use broker::{
    REPLAY_HEADER,
    dead_letters::{self, DeadLetter, Direction},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use database::{Fault, Sql, id};
use sea_orm::{DatabaseConnection, DatabaseTransaction, QueryResult};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    Error,
    record::{self, Encoded},
};

/// Rows that a replay lets wait again in one transaction.
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
    pub body: Bytes,
    /// Its headers.
    #[serde(skip)]
    pub headers: Vec<(String, String)>,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
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

/// In the order in which [`row`] reads them: by place, for a name is looked up in each row anew.
const COLUMNS: &str = "position, id, topic, key, sequence, body, headers, recorded_at";

fn row(row: &QueryResult) -> Result<OutboxRow, Fault> {
    let headers: String = row.try_get_by(6)?;
    Ok(OutboxRow {
        position: row.try_get_by(0)?,
        id: row.try_get_by(1)?,
        topic: row.try_get_by(2)?,
        key: row.try_get_by(3)?,
        sequence: row.try_get_by(4)?,
        body: row.try_get_by::<Vec<u8>, _>(5)?.into(),
        headers: serde_json::from_str(&headers).map_err(|error| Fault::Broken(error.to_string()))?,
        recorded_at: row.try_get_by(7)?,
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

    /// What is not published yet, oldest first, without these keys and without what is on its way: so many rows at most, and
    /// none behind the one whose body reaches so many bytes.
    pub(crate) async fn waiting<T: AsRef<str>>(
        &self,
        (limit, bytes): (u64, u64),
        without: &[T],
        on_their_way: &[i64],
    ) -> Result<Vec<OutboxRow>, Fault> {
        let mut sql = self.sql();
        let mut wanted = match without {
            [] => "true".to_owned(),
            keys if sql.sqlite() => format!("NOT key {}", sql.words(keys)),
            keys => format!("NOT (key {})", sql.words(keys)),
        };
        if !on_their_way.is_empty() {
            wanted = format!("{wanted} AND position {}", sql.no_number(on_their_way));
        }
        let columns =
            format!("{COLUMNS}, sum(length(body)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS bytes");
        let rows = waiting_rows(&mut sql, &columns, &wanted, limit);
        let bytes = sql.bind(i64::try_from(bytes).unwrap_or(i64::MAX));
        let text =
            format!("SELECT {COLUMNS} FROM ({rows}) AS o WHERE bytes - length(body) < {bytes} ORDER BY position");
        sql.all(&self.db, &text).await?.iter().map(row).collect()
    }

    /// Marks rows as published, if the relay's epoch is still this. False: somebody else is the relay now.
    pub(crate) async fn mark(&self, positions: &[i64], owner: &str, epoch: i64) -> Result<bool, Fault> {
        let mut sql = self.sql();
        let (left, owner, epoch) = (sql.numbers(positions), sql.bind(owner), sql.bind(epoch));
        let text = format!(
            "DELETE FROM outbox_waiting WHERE position {left}
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
                    put_back(&tx, letter).await?;
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

    /// A page of what waits, oldest first, after `after`; without the bodies, which nobody is shown.
    pub async fn list(&self, after: i64, limit: u64) -> Result<Vec<OutboxRow>, Error> {
        let mut sql = self.sql();
        let wanted = format!("position > {}", sql.bind(after));
        let columns = COLUMNS.replace("body", "substr(body, 1, 0) AS body");
        let text = format!("{} ORDER BY position", waiting_rows(&mut sql, &columns, &wanted, limit));
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

    /// Lets published events of a range wait again, batch by batch, so that the relay sends them again with
    /// their ids. How many.
    pub async fn replay(&self, replay: &Replay, now: DateTime<Utc>) -> Result<u64, Error> {
        if replay.from < now - REMEMBERED && !replay.force {
            return Err(Error::TooOld(now - REMEMBERED));
        }
        let (mut total, mut after) = (0, 0_i64);
        loop {
            let (db, asked) = (self.db.clone(), replay.clone());
            let positions = database::uncancelled(async move {
                let tx = database::begin(&db).await?;
                let positions = wait_again(&tx, &asked, after, now).await?;
                tx.commit().await?;
                Ok::<_, Fault>(positions)
            })
            .await?;
            let Some(last) = positions.iter().max() else { return Ok(total) };
            after = *last;
            total += positions.len() as u64;
        }
    }

    /// How much waits, and since when.
    pub(crate) async fn backlog(&self) -> Result<Waiting, Fault> {
        let text = "SELECT waiting, (SELECT recorded_at FROM outbox WHERE position = first) AS oldest
            FROM (SELECT count(*) AS waiting, min(position) AS first FROM outbox_waiting) AS w";
        match self.sql().one(&self.db, text).await? {
            Some(row) => Ok(Waiting { rows: row.try_get("", "waiting")?, oldest: row.try_get("", "oldest")? }),
            None => Ok(Waiting::default()),
        }
    }

    /// The position of the first event that was recorded since `at`.
    pub(crate) async fn first_since(&self, at: DateTime<Utc>) -> Result<i64, Fault> {
        let mut sql = self.sql();
        let at = sql.bind(at);
        let text = format!("SELECT position FROM outbox WHERE recorded_at >= {at} ORDER BY position LIMIT 1");
        let row = sql.one(&self.db, &text).await?;
        Ok(row.map(|row| row.try_get("", "position")).transpose()?.unwrap_or(i64::MAX))
    }

    /// Deletes events before a position that have left, at most `batch`. How many went.
    pub(crate) async fn prune(&self, before: i64, batch: u64) -> Result<u64, Fault> {
        let mut sql = self.sql();
        let (before, batch) = (sql.bind(before), sql.bind(i64::try_from(batch).unwrap_or(i64::MAX)));
        let text = format!(
            "DELETE FROM outbox WHERE position IN (SELECT position FROM outbox o WHERE position < {before}
                 AND NOT EXISTS (SELECT 1 FROM outbox_waiting w WHERE w.position = o.position)
                 ORDER BY position LIMIT {batch})"
        );
        sql.run(&self.db, &text).await
    }
}

/// Reads the first events that wait and are `wanted`. Each is looked up: what has left before them is not read.
fn waiting_rows(sql: &mut Sql, columns: &str, wanted: &str, limit: u64) -> String {
    let limit = sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let waiting = format!("SELECT position FROM outbox_waiting WHERE {wanted} ORDER BY position LIMIT {limit}");
    let among = if sql.sqlite() { format!("IN ({waiting})") } else { format!("= ANY (ARRAY({waiting}))") };
    format!("SELECT {columns} FROM outbox WHERE position {among}")
}

async fn bury(tx: &DatabaseTransaction, event: Uuid, error: &str, now: DateTime<Utc>) -> Result<bool, Fault> {
    let mut sql = Sql::of(tx);
    let event = sql.bind(id(Some(event)));
    let text = format!(
        "DELETE FROM outbox_waiting WHERE position = (SELECT position FROM outbox WHERE id = {event}) RETURNING position"
    );
    // Whoever deletes what says that it waits has it: a relay that marks it meanwhile, or this.
    let Some(found) = sql.one(tx, &text).await? else { return Ok(false) };
    let mut sql = Sql::of(tx);
    let position = sql.bind(found.try_get::<i64>("", "position")?);
    let text = format!("DELETE FROM outbox WHERE position = {position} RETURNING {COLUMNS}");
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
        body: row.body.into(),
        headers: json!(row.headers),
        error: error.to_owned(),
        attempts: 1,
        given_up_at: now,
    };
    dead_letters::keep(tx, &letter).await?;
    Ok(true)
}

async fn put_back(tx: &DatabaseTransaction, letter: DeadLetter) -> Result<(), Fault> {
    let event = Encoded {
        ids: vec![letter.event_id.unwrap_or(letter.id)],
        topics: vec![letter.topic],
        keys: vec![letter.key],
        sequences: vec![letter.offset.unwrap_or(0)],
        bodies: vec![letter.body],
        headers: vec![letter.headers.to_string()],
        times: vec![letter.given_up_at],
    };
    record::insert(tx, event).await
}

/// Lets a batch of a range that has left wait again, with a mark that it is a replay. Their positions.
async fn wait_again(
    tx: &DatabaseTransaction,
    replay: &Replay,
    after: i64,
    now: DateTime<Utc>,
) -> Result<Vec<i64>, Fault> {
    let mut sql = Sql::of(tx);
    let (from, to, after) = (sql.bind(replay.from), sql.bind(replay.to), sql.bind(after));
    let types = match &replay.types[..] {
        [] => String::new(),
        types => format!("AND topic {}", sql.words(types)),
    };
    let text = format!(
        "INSERT INTO outbox_waiting (position, key) SELECT position, key FROM outbox o
         WHERE NOT EXISTS (SELECT 1 FROM outbox_waiting w WHERE w.position = o.position)
             AND recorded_at >= {from} AND recorded_at <= {to} AND position > {after} {types}
         ORDER BY position LIMIT {REPLAY_BATCH} ON CONFLICT DO NOTHING RETURNING position"
    );
    let rows = sql.all(tx, &text).await?;
    let positions: Vec<i64> = rows.iter().map(|row| row.try_get("", "position")).collect::<Result<_, _>>()?;
    let mut sql = Sql::of(tx);
    let (these, mark) = (sql.numbers(&positions), sql.bind(json!([REPLAY_HEADER, now.to_rfc3339()]).to_string()));
    let headers = if sql.sqlite() {
        format!("json_insert(headers, '$[#]', json({mark}))")
    } else {
        format!("(headers::jsonb || jsonb_build_array({mark}::jsonb))::text")
    };
    sql.run(tx, &format!("UPDATE outbox SET headers = {headers} WHERE position {these}")).await?;
    Ok(positions)
}
