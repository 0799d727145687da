//! What fails: tried again, set aside, and never in the way of the rest.

use std::sync::atomic::Ordering;

use broker::dead_letters::{self, Direction};
use inbox::Order;
use uuid::Uuid;

use crate::world::World;

#[tokio::test]
async fn a_poison_event_among_many_is_found_set_aside_and_the_others_take_effect() {
    for world in World::both(Order::Any).await {
        let events: Vec<_> = (0..100).map(|sequence| world.event(Uuid::now_v7(), sequence)).collect();
        world.listen.poison.lock().unwrap().insert(events[37].id);
        for event in &events {
            world.send(event, "").await;
        }
        world.hear().await;
        for (n, event) in events.iter().enumerate() {
            let heard = world.heard(event.subject.parse().unwrap()).await;
            assert_eq!(heard.is_some(), n != 37, "event {n}, {}", world.tables.name());
        }
        let letters = dead_letters::list(&world.tables.db, None, 10).await.unwrap();
        let [letter] = &letters[..] else { panic!("{letters:?}") };
        assert_eq!((letter.event_id, letter.attempts, letter.direction), (Some(events[37].id), 3, Direction::In));
        assert_eq!(letter.body, events[37].to_json(), "as it came, for another try");
        assert!(letter.error.contains("is poison"));
        assert!(world.listen.calls.load(Ordering::SeqCst) < 25, "found by halving");

        let listener = world.listener();
        assert!(listener.replay(letter).await.is_err(), "it is poison still");
        assert_eq!(dead_letters::count(&world.tables.db).await.unwrap(), 1, "and stays");
        world.listen.poison.lock().unwrap().clear();
        assert!(listener.replay(letter).await.unwrap());
        assert_eq!(dead_letters::count(&world.tables.db).await.unwrap(), 0);
        assert!(world.heard(events[37].subject.parse().unwrap()).await.is_some());
    }
}

#[tokio::test]
async fn a_listener_that_panics_loses_one_event_to_the_dead_letters_and_goes_on() {
    for world in World::both(Order::Any).await {
        let (bad, good) = (world.event(Uuid::now_v7(), -1), world.event(Uuid::now_v7(), 1));
        world.listen.poison.lock().unwrap().insert(bad.id);
        world.send(&bad, "").await;
        world.send(&good, "").await;
        world.hear().await;
        assert!(world.heard(good.subject.parse().unwrap()).await.is_some());
        let letters = dead_letters::list(&world.tables.db, None, 10).await.unwrap();
        assert!(letters[0].error.contains("is too much"), "{}", letters[0].error);
    }
}

#[tokio::test]
async fn bytes_that_are_no_event_are_set_aside_as_they_came() {
    for world in World::both(Order::Any).await {
        let good = world.event(Uuid::now_v7(), 1);
        for (n, bytes) in [&b"{\"id\": 7}"[..], b"\xff\x00", b"", b"[]"].iter().enumerate() {
            world.send_bytes(Uuid::now_v7(), &format!("k{n}"), bytes.to_vec(), "").await;
        }
        world.send(&good, "").await;
        world.hear().await;
        assert!(world.heard(good.subject.parse().unwrap()).await.is_some());
        let mut letters = dead_letters::list(&world.tables.db, None, 10).await.unwrap();
        letters.reverse();
        assert_eq!(letters.len(), 4);
        assert_eq!((letters[1].key.as_str(), &letters[1].body[..]), ("k1", &b"\xff\x00"[..]));
    }
}

#[tokio::test]
async fn while_the_database_is_away_events_wait_and_none_is_given_up() {
    for world in World::both(Order::Any).await {
        let key = Uuid::now_v7();
        world.listen.away.store(5, Ordering::SeqCst);
        world.send(&world.event(key, 1), "").await;
        world.send(&world.event(key, 2), "").await;
        world.hear().await;
        assert_eq!(world.heard(key).await, Some((2, 2)), "{}", world.tables.name());
        assert_eq!(dead_letters::count(&world.tables.db).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_letter_of_another_listener_is_left_alone() {
    for world in World::both(Order::Any).await {
        let event = world.event(Uuid::now_v7(), 1);
        world.listen.poison.lock().unwrap().insert(event.id);
        world.send(&event, "").await;
        world.hear().await;
        let mut letter = dead_letters::list(&world.tables.db, None, 1).await.unwrap().remove(0);
        letter.consumer = "test.other".to_owned();
        assert!(!world.listener().replay(&letter).await.unwrap());
    }
}
