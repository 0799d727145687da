//! Operators send published events again, by time and type.

use chrono::TimeDelta;
use outbox::{Error, Replay};
use uuid::Uuid;

use crate::world::{World, published};

#[tokio::test]
async fn events_of_a_range_are_sent_again_with_their_ids() {
    for world in World::both().await {
        let begin = world.time();
        for minute in 0..5 {
            world.record(&[published(Uuid::now_v7(), minute, world.time())]).await;
            world.pass(60);
        }
        world.relay().drain().await.unwrap();
        let (from, to) = (begin + TimeDelta::minutes(1), begin + TimeDelta::minutes(2));
        let mut replay = Replay { from, to, types: vec!["blog.post.deleted".to_owned()], force: false };
        assert_eq!(world.store().replay(&replay, world.time()).await.unwrap(), 0, "another type");
        replay.types = vec!["blog.post.published".to_owned()];
        assert_eq!(world.store().replay(&replay, world.time()).await.unwrap(), 2);
        world.pass(60);
        world.relay().drain().await.unwrap();
        let arrived = world.arrived().await;
        assert_eq!(arrived.len(), 7);
        let bodies: Vec<_> = arrived.iter().map(|message| &message.body).collect();
        assert_eq!((bodies[5], bodies[6]), (bodies[1], bodies[2]), "byte for byte");
        let marks = arrived.iter().filter(|message| message.headers.iter().any(|(name, _)| name == "replay")).count();
        assert_eq!(marks, 2, "a consumer can tell");
    }
}

#[tokio::test]
async fn what_consumers_have_forgotten_is_replayed_only_by_force() {
    for world in World::both().await {
        let (from, to) = (world.time() - TimeDelta::days(31), world.time());
        let mut replay = Replay { from, to, types: Vec::new(), force: false };
        let refused = world.store().replay(&replay, world.time()).await;
        assert!(matches!(refused, Err(Error::TooOld(_))));
        replay.force = true;
        assert_eq!(world.store().replay(&replay, world.time()).await.unwrap(), 0);
    }
}
