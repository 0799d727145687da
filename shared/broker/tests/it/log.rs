//! What only the embedded log promises, and what only Kafka can lack.

use std::time::Duration;

use broker::{
    Broker, EmbeddedBroker, KafkaBroker, KafkaConfig, Kind, Message, REPLAY_HEADER, Record, SendError, Start,
};
use sea_orm::ConnectionTrait;

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
async fn a_reader_of_more_topics_than_it_may_read_comes_to_each_and_ends_behind_places_that_stayed_empty() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedBroker::open(&folder.path().join("log.sqlite")).await.unwrap();
    let topics = ["a", "b", "c"];
    log.producer().ensure_topics(&topics.map(topic)).await.unwrap();
    let records = topics.iter().flat_map(|topic| (0..4).map(move |n| record(topic, "key", &n.to_string())));
    let records: Vec<Record> = records.collect();
    // What the relay was not sure of takes places a second time, and leaves them empty.
    for _ in 0..2 {
        log.producer().send(records.clone()).await;
    }
    let mut member = log.consumer("g", &topics).await.unwrap();
    let mut read: Vec<(String, i64)> = Vec::new();
    while read.len() < records.len() {
        let messages = member.poll(2, Duration::ZERO).await.unwrap();
        assert!((1..=2).contains(&messages.len()), "{} of at most 2", messages.len());
        read.extend(messages.into_iter().map(|message| (message.topic, message.offset)));
    }
    for topic in topics {
        let offsets: Vec<i64> = read.iter().filter(|(of, _)| of == topic).map(|(_, offset)| *offset).collect();
        assert_eq!(offsets, [0, 1, 2, 3], "{topic}");
    }
    assert!(member.poll(2, Duration::ZERO).await.unwrap().is_empty());
    assert!(member.lag().await.unwrap().values().all(|lag| *lag == 0), "nothing is left to read");
}

#[tokio::test]
async fn a_clock_that_steps_back_changes_no_order_within_a_topic_and_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.sqlite");
    let log = EmbeddedBroker::open(&file).await.unwrap();
    log.producer().ensure_topics(&[topic("t"), topic("u")]).await.unwrap();
    log.producer().send((0..6).map(|n| record("t", "key", &n.to_string())).collect()).await;
    log.producer().send(vec![record("u", "key", "0")]).await;
    let stepped = "UPDATE events SET at = '2001-01-01T00:00:00+00:00' WHERE topic = 't' AND offset >= 3";
    database::sqlite(&file).execute_unprepared(stepped).await.unwrap();
    let mut member = log.consumer("g", &["t", "u"]).await.unwrap();
    let mut read = Vec::new();
    for _ in 0..4 {
        read.extend(member.poll(4, Duration::ZERO).await.unwrap());
    }
    let of = |topic| -> Vec<i64> { read.iter().filter(|read| read.topic == topic).map(|read| read.offset).collect() };
    assert_eq!((of("t"), of("u")), ((0..6).collect(), vec![0]));
}

#[tokio::test]
async fn what_was_read_before_an_error_in_another_topic_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.sqlite");
    let log = EmbeddedBroker::open(&file).await.unwrap();
    log.producer().ensure_topics(&[topic("read_first"), topic("broken")]).await.unwrap();
    let mut member = log.consumer("g", &["read_first", "broken"]).await.unwrap();
    // Whose place is lowest is read first: the other is behind it by a record.
    log.producer().send(vec![record("broken", "key", "0")]).await;
    assert_eq!(member.poll(10, Duration::ZERO).await.unwrap().len(), 1);
    log.producer().send(vec![record("read_first", "key", "0"), record("broken", "key", "1")]).await;
    let db = database::sqlite(&file);
    let headers = |is: &str| format!("UPDATE events SET headers = '{is}' WHERE topic = 'broken' AND offset = 1");
    db.execute_unprepared(&headers("no list")).await.unwrap();
    assert!(member.poll(10, Duration::ZERO).await.is_err());
    db.execute_unprepared(&headers("[]")).await.unwrap();
    let mut read: Vec<String> =
        member.poll(10, Duration::ZERO).await.unwrap().into_iter().map(|message| message.topic).collect();
    read.sort();
    assert_eq!(read, ["broken", "read_first"]);
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
