//! The next rows are read while those before them are sent: also then each key keeps its order.

use std::{sync::mpsc, thread};

use outbox::RelayConfig;
use sea_orm::Database;
use test_kit::Tables;
use uuid::Uuid;

use crate::world::{World, published, tables};

#[tokio::test]
async fn what_commits_while_others_are_sent_is_not_overtaken_by_what_follows_it() {
    let url = test_kit::database().await;
    let world = World::of(Tables::at(&url, tables).await).await;
    let (slow, time) = (Uuid::now_v7(), world.time());
    let (recorded, is_recorded) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel();
    // Another process: it has the lowest position, and commits it when the relay has read all there was to see.
    let other = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let db = Database::connect(url).await.unwrap();
            let tx = database::begin(&db).await.unwrap();
            outbox::record(&tx, &[published(slow, 1, time)]).await.unwrap();
            recorded.send(()).unwrap();
            goes.recv().unwrap();
            tx.commit().await.unwrap();
            let tx = database::begin(&db).await.unwrap();
            outbox::record(&tx, &[published(slow, 2, time)]).await.unwrap();
            tx.commit().await.unwrap();
            done.send(()).unwrap();
        });
    });
    is_recorded.recv().unwrap();
    world.record(&[published(Uuid::now_v7(), 1, time), published(Uuid::now_v7(), 1, time)]).await;
    *world.producer.meanwhile.lock().unwrap() = Some(Box::new(move || {
        go.send(()).unwrap();
        is_done.recv().unwrap();
    }));
    world.relay_with(RelayConfig { batch: 2, ..RelayConfig::default() }).drain().await.unwrap();
    assert_eq!((world.sequences(slow).await, world.waiting().await), (vec![1, 2], 0));
    other.join().unwrap();
}
