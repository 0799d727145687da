//! The relay sends what is recorded, in the order of each key, and marks only what was acknowledged.

use broker::dead_letters::{self, Direction};
use outbox::RelayConfig;
use sea_orm::{ConnectionTrait, TransactionTrait};
use uuid::Uuid;

use crate::world::{Spoil, World, published};

#[tokio::test]
async fn what_is_recorded_arrives_once_and_each_key_in_its_order() {
    for world in World::both().await {
        let keys: Vec<Uuid> = (0..10).map(|_| Uuid::now_v7()).collect();
        for sequence in 1..=50 {
            let events: Vec<_> = keys.iter().map(|key| published(*key, sequence, world.time())).collect();
            world.record(&events).await;
        }
        world.relay().drain().await.unwrap();
        assert_eq!((world.arrived().await.len(), world.waiting().await), (500, 0));
        for key in keys {
            assert_eq!(world.sequences(key).await, (1..=50).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_key_that_fails_waits_whole_and_the_others_go_on() {
    for world in World::both().await {
        let (bad, good) = (Uuid::now_v7(), Uuid::now_v7());
        for sequence in 1..=5 {
            world.record(&[published(bad, sequence, world.time()), published(good, sequence, world.time())]).await;
        }
        world.spoil(bad, Spoil::Transient);
        world.relay().drain().await.unwrap();
        assert_eq!((world.sequences(good).await.len(), world.waiting().await), (5, 5));
        world.mend();
        world.pass(60);
        world.relay().drain().await.unwrap();
        assert_eq!((world.sequences(bad).await, world.waiting().await), ((1..=5).collect(), 0));
    }
}

#[tokio::test]
async fn what_follows_a_record_that_was_not_kept_is_not_taken_for_sent() {
    for world in World::both().await {
        let key = Uuid::now_v7();
        for sequence in 1..=5 {
            world.record(&[published(key, sequence, world.time())]).await;
        }
        world.spoil(key, Spoil::OnlyFirst);
        world.relay().drain().await.unwrap();
        assert_eq!(world.waiting().await, 5, "a consumer that forgets the first would never see it before the fifth");
    }
}

#[tokio::test]
async fn batches_wait_for_what_the_one_before_them_did_not_bring() {
    for world in World::both().await {
        let key = Uuid::now_v7();
        for sequence in 1..=6 {
            world.record(&[published(key, sequence, world.time())]).await;
        }
        world.spoil(key, Spoil::OnlyFirst);
        let mut relay = world.relay_with(RelayConfig { batch: 2, ..RelayConfig::default() });
        relay.drain().await.unwrap();
        assert_eq!((world.sequences(key).await, world.waiting().await), (vec![2], 6), "the first batch, and no other");
    }
}

#[tokio::test]
async fn many_batches_arrive_in_the_order_of_each_key_and_are_all_marked() {
    for world in World::both().await {
        let keys: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
        for sequence in 1..=20 {
            world.record(&keys.iter().map(|key| published(*key, sequence, world.time())).collect::<Vec<_>>()).await;
        }
        let config = RelayConfig { batch: 7, batch_of_key: 2, ..RelayConfig::default() };
        world.relay_with(config).drain().await.unwrap();
        for key in keys {
            assert_eq!(world.sequences(key).await, (1..=20).collect::<Vec<_>>());
        }
        assert_eq!(world.waiting().await, 0);
    }
}

#[tokio::test]
async fn a_read_ends_with_the_body_that_reaches_its_bytes_and_all_the_same_everything_leaves_in_order() {
    for world in World::both().await {
        let key = Uuid::now_v7();
        for sequence in 1..=9 {
            world.record(&[published(key, sequence, world.time())]).await;
        }
        let body = world.store().history(0, None, None, None, 1).await.unwrap()[0].body.len() as u64;
        let config = RelayConfig { batch_bytes: 2 * body + 1, ..RelayConfig::default() };
        world.relay_with(config).drain().await.unwrap();
        assert_eq!(*world.producer.sends.lock().unwrap(), [3, 3, 3]);
        world.pass(60);
        let one_too_many = RelayConfig { batch_bytes: 1, ..RelayConfig::default() };
        world.record(&[published(key, 10, world.time()), published(key, 11, world.time())]).await;
        world.relay_with(one_too_many).drain().await.unwrap();
        assert_eq!(world.producer.sends.lock().unwrap()[3..], [1, 1], "one at least, or it would wait for ever");
        assert_eq!((world.sequences(key).await, world.waiting().await), ((1..=11).collect::<Vec<_>>(), 0));
    }
}

#[tokio::test]
async fn what_was_kept_though_nobody_said_so_is_sent_again_with_its_id() {
    for world in World::both().await {
        let key = Uuid::now_v7();
        world.record(&[published(key, 1, world.time())]).await;
        world.spoil(key, Spoil::KeptUnsaid);
        world.relay().drain().await.unwrap();
        assert_eq!((world.arrived().await.len(), world.waiting().await), (1, 1), "not marked without a word");
        world.mend();
        world.pass(60);
        world.relay().drain().await.unwrap();
        assert_eq!((world.arrived().await.len(), world.waiting().await), (1, 0), "the log knows the id");
    }
}

#[tokio::test]
async fn what_is_refused_for_ever_is_a_dead_letter_and_its_key_goes_on() {
    for world in World::both().await {
        let key = Uuid::now_v7();
        world.record(&[published(key, 1, world.time())]).await;
        world.spoil(key, Spoil::Permanent);
        world.relay().drain().await.unwrap();
        let letters = dead_letters::list(world.db(), None, 10).await.unwrap();
        assert_eq!((letters.len(), world.waiting().await), (1, 0));
        assert_eq!((letters[0].direction, letters[0].error.as_str()), (Direction::Out, "spoiled"));
        world.mend();
        world.record(&[published(key, 2, world.time())]).await;
        assert!(world.store().unbury(letters[0].id).await.unwrap(), "an operator puts it back");
        assert!(!world.store().unbury(letters[0].id).await.unwrap(), "once");
        world.pass(60);
        world.relay().drain().await.unwrap();
        let mut sequences = world.sequences(key).await;
        sequences.sort_unstable();
        assert_eq!(sequences, [1, 2]);
    }
}

#[tokio::test]
async fn a_topic_that_is_not_known_everywhere_yet_buries_nothing() {
    for world in World::both().await {
        let key = Uuid::now_v7();
        world.record(&[published(key, 1, world.time()), published(key, 2, world.time())]).await;
        world.spoil(key, Spoil::UnknownTopic);
        world.relay().drain().await.unwrap();
        assert!(dead_letters::list(world.db(), None, 10).await.unwrap().is_empty());
        assert_eq!(world.waiting().await, 2);
        world.mend();
        world.pass(60);
        world.relay().drain().await.unwrap();
        assert_eq!(world.sequences(key).await, [1, 2], "they wait in their order");
    }
}

#[tokio::test]
async fn one_relay_is_active_and_another_takes_over_when_its_lease_ends() {
    for world in World::both().await {
        let (mut first, mut second) = (world.relay(), world.relay());
        world.record(&[published(Uuid::now_v7(), 1, world.time())]).await;
        first.drain().await.unwrap();
        world.record(&[published(Uuid::now_v7(), 1, world.time())]).await;
        second.drain().await.unwrap();
        assert_eq!(world.waiting().await, 1, "the first is active");
        world.pass(16);
        second.drain().await.unwrap();
        assert_eq!(world.waiting().await, 0, "its lease ended");
    }
}

#[tokio::test]
async fn a_relay_that_slept_through_its_lease_marks_nothing() {
    for world in World::both().await {
        let (mut sleeper, mut heir) = (world.relay(), world.relay());
        sleeper.drain().await.unwrap();
        world.pass(16);
        heir.drain().await.unwrap();
        // The sleeper still believes in its lease: its clock stood still.
        world.pass(-16);
        world.record(&[published(Uuid::now_v7(), 1, world.time())]).await;
        sleeper.drain().await.unwrap();
        assert_eq!((world.arrived().await.len(), world.waiting().await), (1, 1), "sent, but not marked");
        world.pass(16);
        heir.drain().await.unwrap();
        assert_eq!((world.arrived().await.len(), world.waiting().await), (1, 0));
    }
}

#[tokio::test]
async fn a_row_that_commits_later_than_its_successor_is_not_overtaken_for_ever() {
    // Positions are given before they commit: a relay that remembered a position would lose the first.
    let world = World::both().await.pop().unwrap();
    let slow = world.db().begin().await.unwrap();
    let (late, early) = (published(Uuid::now_v7(), 1, world.time()), published(Uuid::now_v7(), 1, world.time()));
    outbox::record(&slow, std::slice::from_ref(&late)).await.unwrap();
    world.record(&[early]).await;
    let mut relay = world.relay();
    relay.drain().await.unwrap();
    assert_eq!(world.arrived().await.len(), 1);
    slow.commit().await.unwrap();
    relay.drain().await.unwrap();
    assert_eq!((world.arrived().await.len(), world.waiting().await), (2, 0));
}

#[tokio::test]
async fn what_waits_is_kept_however_old_it_is() {
    for world in World::both().await {
        let (stuck, sent) = (Uuid::now_v7(), Uuid::now_v7());
        world.record(&[published(stuck, 1, world.time()), published(sent, 1, world.time())]).await;
        world.spoil(stuck, Spoil::Transient);
        world.relay().drain().await.unwrap();
        world.pass(30 * 86_400);
        world.relay().drain().await.unwrap();
        let kept = world.store().history(0, None, None, None, 10).await.unwrap();
        assert_eq!(kept.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), [stuck.to_string()]);
        world.mend();
        world.pass(60);
        world.relay().drain().await.unwrap();
        assert_eq!((world.sequences(stuck).await.len(), world.waiting().await), (1, 0));
    }
}

#[tokio::test]
async fn published_rows_are_kept_for_a_while_and_then_go() {
    for world in World::both().await {
        world.record(&[published(Uuid::now_v7(), 1, world.time())]).await;
        world.relay().drain().await.unwrap();
        let all = async || {
            let count = world.db().query_one_raw(sea_orm::Statement::from_string(
                world.db().get_database_backend(),
                "SELECT count(*) AS n FROM outbox",
            ));
            count.await.unwrap().unwrap().try_get::<i64>("", "n").unwrap()
        };
        world.pass(6 * 86_400);
        world.relay().drain().await.unwrap();
        assert_eq!(all().await, 1);
        world.pass(2 * 86_400);
        world.relay().drain().await.unwrap();
        assert_eq!(all().await, 0);
    }
}
