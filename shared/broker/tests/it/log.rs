//! What only the embedded log promises, and what only Kafka can lack.

use std::time::Duration;

use broker::{
    Broker, EmbeddedBroker, KafkaBroker, KafkaConfig, Kind, Message, REPLAY_HEADER, Record, SendError, Start,
};

use crate::conformance::{record, topic};

async fn all(log: &EmbeddedBroker, topic: &str) -> Vec<Message> {
    let mut reader = log.tail(&[topic], Start::Earliest).await.unwrap();
    reader.poll(1_000, Duration::ZERO).await.unwrap()
}

#[tokio::test]
async fn an_id_is_kept_once_and_again_for_each_replay() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedBroker::open(&folder.path().join("log.sqlite")).await.unwrap();
    log.producer().ensure_topics(&[topic("t")]).await.unwrap();
    let once = record("t", "key", "1");
    for _ in 0..3 {
        assert_eq!(log.producer().send(vec![once.clone(), once.clone()]).await, [Ok(()), Ok(())]);
    }
    assert_eq!(all(&log, "t").await.len(), 1, "a relay that was not sure sends again");
    let mut headers = once.headers.clone();
    headers.push((REPLAY_HEADER.to_owned(), b"2026-06-01T00:00:00Z".to_vec()));
    log.producer().send(vec![Record { headers, ..once }]).await;
    assert_eq!(all(&log, "t").await.len(), 2, "an operator who replays means it");
}

#[tokio::test]
async fn the_log_is_there_after_it_was_closed_and_groups_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.sqlite");
    {
        let log = EmbeddedBroker::open(&file).await.unwrap();
        log.producer().ensure_topics(&[topic("t")]).await.unwrap();
        log.producer().send((0..10).map(|n| record("t", "key", &n.to_string())).collect()).await;
        let mut member = log.consumer("g", &["t"]).await.unwrap();
        let taken = member.poll(4, Duration::ZERO).await.unwrap();
        let last = &taken[3];
        let (topic, partition, offset) = (last.topic.clone(), last.partition, last.offset);
        member.commit(&[broker::Position { topic, partition, offset }]).await.unwrap();
    }
    let log = EmbeddedBroker::open(&file).await.unwrap();
    assert_eq!(log.kind(), Kind::Embedded);
    let mut member = log.consumer("g", &["t"]).await.unwrap();
    assert_eq!(member.poll(100, Duration::ZERO).await.unwrap()[0].body, "4");
}

#[tokio::test]
async fn a_topic_that_nobody_made_is_refused_and_one_that_comes_later_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedBroker::open(&folder.path().join("log.sqlite")).await.unwrap();
    let answers = log.producer().send(vec![record("nobody", "key", "1")]).await;
    assert!(matches!(&answers[0], Err(SendError::UnknownTopic(why)) if why.contains("nobody")), "{answers:?}");
    let mut member = log.consumer("g", &["later"]).await.unwrap();
    assert!(member.poll(10, Duration::ZERO).await.unwrap().is_empty());
    log.producer().ensure_topics(&[topic("later")]).await.unwrap();
    log.producer().send(vec![record("later", "key", "1")]).await;
    assert_eq!(member.poll(10, Duration::from_secs(5)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_append_wakes_whoever_waits() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedBroker::open(&folder.path().join("log.sqlite")).await.unwrap();
    log.producer().ensure_topics(&[topic("t")]).await.unwrap();
    let mut reader = log.tail(&["t"], Start::Latest).await.unwrap();
    let began = std::time::Instant::now();
    let (messages, _) = tokio::join!(reader.poll(10, Duration::from_secs(20)), async {
        tokio::task::yield_now().await;
        log.producer().send(vec![record("t", "key", "1")]).await
    });
    assert_eq!(messages.unwrap().len(), 1);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_older_than_its_topic_keeps_goes_in_batches() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedBroker::open(&folder.path().join("log.sqlite")).await.unwrap();
    log.producer().ensure_topics(&[topic("t")]).await.unwrap();
    log.producer().send((0..10).map(|n| record("t", "key", &n.to_string())).collect()).await;
    let kept_at = all(&log, "t").await[0].timestamp.unwrap();
    let within = kept_at + chrono::TimeDelta::minutes(50);
    assert_eq!(log.prune(within, 100).await.unwrap(), 0);
    let after = kept_at + chrono::TimeDelta::minutes(61);
    assert_eq!([log.prune(after, 6).await.unwrap(), log.prune(after, 6).await.unwrap()], [6, 4]);
    log.producer().send(vec![record("t", "key", "10")]).await;
    assert_eq!(all(&log, "t").await[0].offset, 10, "a place is never given twice");
}

#[tokio::test]
async fn a_file_that_is_no_log_is_refused_with_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.sqlite");
    std::fs::write(&file, "this is a text, and no database at all".repeat(100)).unwrap();
    let error = EmbeddedBroker::open(&file).await.err().expect("it cannot be opened");
    assert!(error.to_string().contains("not a database"), "{error}");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("this is a text"), "and is left as it was");
}

#[tokio::test]
async fn a_kafka_that_is_away_is_said_to_be_and_holds_nobody_up() {
    // Nothing listens on this port: the socket that had it is closed.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let kafka = KafkaBroker::new(KafkaConfig::new(&format!("127.0.0.1:{port}"))).unwrap();
    assert_eq!(kafka.kind(), Kind::Kafka);
    let began = std::time::Instant::now();
    assert!(!kafka.healthy().await);
    assert!(kafka.producer().ensure_topics(&[topic("t")]).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
