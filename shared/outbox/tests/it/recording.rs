//! Recording is part of the change or does not happen.

use outbox::Error;
use sea_orm::ConnectionTrait;
use uuid::Uuid;

use crate::world::{World, published};

#[tokio::test]
async fn a_change_that_is_rolled_back_says_nothing() {
    for world in World::both().await {
        let tx = database::begin(world.db()).await.unwrap();
        outbox::record(&tx, &[published(Uuid::now_v7(), 1, world.time())]).await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(world.waiting().await, 0, "{}", world.tables.name());
    }
}

#[tokio::test]
async fn a_thousand_events_are_recorded_by_one_statement_in_their_order() {
    for world in World::both().await {
        let events: Vec<_> = (0..2_500).map(|n| published(Uuid::now_v7(), n, world.time())).collect();
        world.record(&events).await;
        let listed = world.store().list(0, 1).await.unwrap();
        assert_eq!((listed[0].id, listed[0].body.len()), (events[0].id, 0), "a list of what waits carries no bodies");
        let rows = world.store().history(0, None, None, None, 10_000).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), events.iter().map(|e| e.id).collect::<Vec<_>>());
        assert_eq!(rows[7].body, events[7].to_json(), "encoded once; these bytes travel");
        let names: Vec<&str> = rows[7].headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "event_type", "timestamp", "traceparent"]);
    }
}

#[tokio::test]
async fn what_no_broker_would_take_is_refused_before_anything_is_written() {
    for world in World::both().await {
        let mut large = published(Uuid::now_v7(), 1, world.time());
        large.data["title"] = "x".repeat(events::MAX_ENVELOPE_BYTES).into();
        let mut unknown = published(Uuid::now_v7(), 1, world.time());
        unknown.event_type = "blog.post.sung".to_owned();
        let tx = database::begin(world.db()).await.unwrap();
        let good = published(Uuid::now_v7(), 1, world.time());
        assert!(matches!(outbox::record(&tx, &[good.clone(), large]).await, Err(Error::TooLarge { .. })));
        assert!(matches!(outbox::record(&tx, &[good, unknown]).await, Err(Error::UnknownType(_))));
        // The transaction is still good: nothing was sent to the database.
        tx.execute_unprepared("SELECT 1").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(world.waiting().await, 0);
    }
}
