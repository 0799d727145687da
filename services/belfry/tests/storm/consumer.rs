//! A consumer with an inbox, as a process of its own that can be killed.

use std::sync::Arc;

use async_trait::async_trait;
use broker::{KafkaBroker, KafkaConfig};
use chrono::{DateTime, Utc};
use events::Event;
use inbox::{Listen, ListenError, Listener, ListenerConfig};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseTransaction, DbBackend, Statement};
use tokio_util::sync::CancellationToken;

use crate::{role::Player, variable};

/// Its role.
pub(crate) const ROLE: &str = "consumer";
const DATABASE: &str = "STORM_CONSUMER_DATABASE";
const KAFKA: &str = "STORM_CONSUMER_KAFKA";

/// Notes each event it hears. Nothing but its inbox keeps it from noting one twice.
struct Hearer;

#[async_trait]
impl Listen for Hearer {
    fn name(&self) -> &'static str {
        "hearer"
    }

    fn topics(&self) -> Vec<&'static str> {
        vec!["blog.post.published", "blog.post.scheduled.published"]
    }

    async fn on(&self, tx: &DatabaseTransaction, events: &[Event], _now: DateTime<Utc>) -> Result<(), ListenError> {
        for event in events {
            let values = [event.id.into(), event.subject.clone().into(), event.sequence.into()];
            let text = "INSERT INTO heard (event_id, key, sequence) VALUES ($1, $2, $3)";
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, text, values);
            tx.execute_raw(statement).await.map_err(|error| ListenError::from(database::Fault::from(error)))?;
        }
        Ok(())
    }
}

async fn connected(url: &str) -> sea_orm::DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(2).sqlx_logging(false).set_schema_search_path("hearer");
    options.acquire_timeout(std::time::Duration::from_secs(4));
    Database::connect(options).await.expect("the database answers")
}

/// Makes its tables.
pub(crate) async fn prepare(url: &str) {
    let db = connected(url).await;
    let mut statements = vec!["CREATE SCHEMA hearer".to_owned()];
    statements.extend(inbox::tables::create(DbBackend::Postgres));
    statements
        .push("CREATE TABLE heard (event_id uuid NOT NULL, key text NOT NULL, sequence bigint NOT NULL)".to_owned());
    for statement in statements {
        db.execute_unprepared(&statement).await.expect("a table can be made");
    }
}

/// Starts it, under a program that may end it at any moment or under none.
pub(crate) fn start(tracer: &[&str], url: &str, kafka: &str) -> Player {
    Player::start(tracer, ROLE, &[(DATABASE, url), (KAFKA, kafka)])
}

/// Consumes for as long as it lives.
pub(crate) async fn play() {
    let (Some(url), Some(kafka)) = (variable(DATABASE), variable(KAFKA)) else { return };
    let mut options = ConnectOptions::new(url);
    options.max_connections(2).sqlx_logging(false).set_schema_search_path("hearer").connect_lazy(true);
    options.acquire_timeout(std::time::Duration::from_secs(4));
    let db = Database::connect(options).await.expect("nothing is connected yet");
    let broker = Arc::new(KafkaBroker::new(KafkaConfig::new(&kafka)).expect("a broker"));
    #[expect(clippy::disallowed_methods, reason = "a consumer of a storm lives by the real clock")]
    let now = Arc::new(Utc::now);
    let listener =
        Listener::new("hearer", db, broker, Arc::new(Hearer), ListenerConfig::default(), now, Box::new(|| {}));
    listener.run(CancellationToken::new()).await;
}
