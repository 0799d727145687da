//! Taking a batch of events: the effect and the note in one transaction, halves when it fails.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use chrono::{DateTime, Utc};
use database::Fault;
use events::Event;
use futures_util::FutureExt;
use sea_orm::{DatabaseConnection, DatabaseTransaction};

use crate::{Listen, ListenError, Order, store};

/// What became of one batch.
pub(crate) enum Applied {
    /// All effects are there, or were before.
    Done,
    /// These events failed by themselves; the others are done.
    Failed(Vec<(Event, String)>),
    /// The database is away; nothing was decided.
    Away(String),
}

/// Takes events; those that fail are found by halving, each half a transaction of its own.
pub(crate) async fn apply(
    db: &DatabaseConnection,
    listen: &Arc<dyn Listen>,
    consumer: &str,
    events: Vec<Event>,
    now: DateTime<Utc>,
) -> Applied {
    let mut failed = Vec::new();
    let mut parts = vec![events];
    while let Some(mut part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        match once(db, listen, consumer, &part, now).await {
            Ok(()) => {}
            Err(ListenError::Transient(text)) => return Applied::Away(text),
            Err(ListenError::Failed(text)) if part.len() == 1 => failed.extend(part.pop().map(|event| (event, text))),
            Err(ListenError::Failed(_)) => {
                let second = part.split_off(part.len() / 2);
                // The older half first.
                parts.push(second);
                parts.push(part);
            }
        }
    }
    if failed.is_empty() { Applied::Done } else { Applied::Failed(failed) }
}

/// One transaction, in a task that nothing cancels.
async fn once(
    db: &DatabaseConnection,
    listen: &Arc<dyn Listen>,
    consumer: &str,
    events: &[Event],
    now: DateTime<Utc>,
) -> Result<(), ListenError> {
    let (db, listen, consumer, events) = (db.clone(), Arc::clone(listen), consumer.to_owned(), events.to_vec());
    database::uncancelled(async move {
        let tx = database::begin(&db).await?;
        let effect = AssertUnwindSafe(effect(&tx, &listen, &consumer, &events, now)).catch_unwind().await;
        match effect {
            Ok(Ok(())) => Ok(tx.commit().await.map_err(Fault::from)?),
            Ok(Err(error)) => {
                roll_back(tx).await;
                Err(error)
            }
            Err(payload) => {
                roll_back(tx).await;
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a text");
                Err(ListenError::Failed(format!("the listener panicked: {text}")))
            }
        }
    })
    .await
}

async fn roll_back(tx: DatabaseTransaction) {
    if let Err(error) = tx.rollback().await {
        tracing::debug!(%error, "a rollback on a lost connection");
    }
}

async fn effect(
    tx: &DatabaseTransaction,
    listen: &Arc<dyn Listen>,
    consumer: &str,
    events: &[Event],
    now: DateTime<Utc>,
) -> Result<(), ListenError> {
    let fresh = store::take(tx, consumer, events, now).await?;
    let mut seen = std::collections::HashSet::new();
    let mut wanted: Vec<Event> =
        events.iter().filter(|event| fresh.contains(&event.id) && seen.insert(event.id)).cloned().collect();
    if listen.order() == Order::Latest && !wanted.is_empty() {
        wanted = latest(tx, consumer, wanted).await?;
    }
    if wanted.is_empty() { Ok(()) } else { listen.on(tx, &wanted, now).await }
}

/// Drops what is older than the newest that was taken of its key.
async fn latest(tx: &DatabaseTransaction, consumer: &str, events: Vec<Event>) -> Result<Vec<Event>, ListenError> {
    let mut newest: HashMap<String, i64> = HashMap::new();
    for event in &events {
        let sequence = newest.entry(event.subject.clone()).or_insert(event.sequence);
        *sequence = (*sequence).max(event.sequence);
    }
    let mut before = store::newest(tx, consumer, &newest).await?;
    Ok(events
        .into_iter()
        .filter(|event| {
            let last = before.entry(event.subject.clone()).or_insert(i64::MIN);
            // Several events of one write share its sequence.
            let news = event.sequence >= *last;
            *last = (*last).max(event.sequence);
            news
        })
        .collect())
}
