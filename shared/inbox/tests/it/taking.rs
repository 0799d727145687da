//! Each event's effect, once.

use std::sync::atomic::Ordering;

use inbox::Order;
use uuid::Uuid;

use crate::world::World;

#[tokio::test]
async fn an_event_that_comes_twice_has_its_effect_once() {
    for world in World::both(Order::Any).await {
        let key = Uuid::now_v7();
        let events: Vec<_> = (1..=20).map(|sequence| world.event(key, sequence)).collect();
        for again in ["", "again", "and again"] {
            for event in &events {
                world.send(event, again).await;
            }
            world.hear().await;
        }
        assert_eq!(world.heard(key).await, Some((20, 20)), "{}", world.tables.name());
    }
}

#[tokio::test]
async fn the_same_event_twice_in_one_batch_has_its_effect_once() {
    for world in World::both(Order::Any).await {
        let event = world.event(Uuid::now_v7(), 1);
        world.send(&event, "").await;
        world.send(&event, "again").await;
        world.hear().await;
        assert_eq!(world.listen.calls.load(Ordering::SeqCst), 1, "one batch");
        assert_eq!(world.heard(event.subject.parse().unwrap()).await, Some((1, 1)));
    }
}

#[tokio::test]
async fn many_events_are_taken_by_few_transactions() {
    for world in World::both(Order::Any).await {
        for sequence in 0..400 {
            world.send(&world.event(Uuid::now_v7(), sequence), "").await;
        }
        world.hear().await;
        assert_eq!(world.listen.calls.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_listener_of_whole_states_drops_what_is_older_than_what_it_has() {
    for world in World::both(Order::Latest).await {
        let key = Uuid::now_v7();
        let [one, two, three] = [1, 2, 3].map(|sequence| world.event(key, sequence));
        world.send(&two, "").await;
        world.hear().await;
        world.send(&one, "").await;
        world.hear().await;
        assert_eq!(world.heard(key).await, Some((1, 2)), "the older came too late");
        world.send(&three, "").await;
        world.hear().await;
        assert_eq!(world.heard(key).await, Some((2, 3)));
    }
}

#[tokio::test]
async fn an_event_older_than_the_inbox_remembers_is_not_applied_but_kept_aside() {
    for mut world in World::both(Order::Any).await {
        let event = world.event(Uuid::now_v7(), 1);
        world.now += chrono::TimeDelta::days(31);
        world.send(&event, "").await;
        world.hear().await;
        assert_eq!(world.heard(event.subject.parse().unwrap()).await, None);
        let letters = broker::dead_letters::list(&world.tables.db, None, 10).await.unwrap();
        assert_eq!(letters[0].error, "too old to deduplicate");
    }
}
