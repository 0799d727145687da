//! Every promise of a broker, on the embedded log and on Kafka alike.

use std::{collections::HashSet, time::Duration};

use broker::{
    Broker, BrokerError, Consumer, EmbeddedBroker, KafkaBroker, KafkaConfig, Message, Position, RECORD_BYTES_MAX,
    Record, SendError, Start, Topic,
};
use uuid::Uuid;

/// How long a poll of these tests waits.
const WAIT: Duration = Duration::from_millis(300);
/// How long they wait for what must come; a group of Kafka takes some seconds to form.
const PATIENCE: Duration = Duration::from_secs(30);

fn name(what: &str) -> String {
    format!("test.{what}.{}", Uuid::now_v7().simple())
}

pub(crate) fn record(topic: &str, key: &str, body: &str) -> Record {
    let headers = vec![("event_type".to_owned(), topic.as_bytes().to_vec()), ("bytes".to_owned(), vec![0, 255, 10])];
    let (topic, key) = (topic.to_owned(), key.to_owned());
    Record { id: Uuid::now_v7(), topic, key, body: body.to_owned().into(), headers }
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic { name: name.to_owned(), partitions: 3, retention: Duration::from_secs(3600) }
}

/// A new topic with records `0..count` under a few keys.
async fn filled(broker: &dyn Broker, count: usize) -> String {
    let topic_name = name("topic");
    let producer = broker.producer();
    producer.ensure_topics(&[topic(&topic_name)]).await.unwrap();
    send(broker, &topic_name, 0..count).await;
    topic_name
}

async fn send(broker: &dyn Broker, topic: &str, numbers: std::ops::Range<usize>) {
    let records = numbers.map(|number| record(topic, &format!("key-{}", number % 5), &number.to_string())).collect();
    assert!(broker.producer().send(records).await.iter().all(Result::is_ok));
}

/// Polls until there are so many.
async fn gather(consumer: &mut dyn Consumer, count: usize) -> Vec<Message> {
    let began = std::time::Instant::now();
    let mut messages = Vec::new();
    while messages.len() < count {
        assert!(began.elapsed() < PATIENCE, "{} of {count} messages", messages.len());
        messages.extend(consumer.poll(1_000, WAIT).await.unwrap());
    }
    messages
}

fn numbers(messages: &[Message]) -> Vec<usize> {
    let mut numbers: Vec<usize> =
        messages.iter().map(|message| String::from_utf8_lossy(&message.body).parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn positions(messages: &[Message]) -> Vec<Position> {
    let position = |message: &Message| {
        let (topic, partition, offset) = (message.topic.clone(), message.partition, message.offset);
        Position { topic, partition, offset }
    };
    messages.iter().map(position).collect()
}

mod what_is_sent_arrives_whole_and_in_the_order_of_its_key {
    use super::*;

    pub(super) async fn story(broker: &dyn Broker) {
        let topic = filled(broker, 200).await;
        let mut reader = broker.tail(&[&topic], Start::Earliest).await.unwrap();
        let messages = gather(reader.as_mut(), 200).await;
        assert_eq!(numbers(&messages), (0..200).collect::<Vec<_>>());
        for key in 0..5 {
            let of_key: Vec<usize> = messages
                .iter()
                .filter(|message| message.key == format!("key-{key}"))
                .map(|message| String::from_utf8_lossy(&message.body).parse().unwrap())
                .collect();
            assert!(of_key.windows(2).all(|pair| pair[0] < pair[1]), "{of_key:?}");
        }
        let sent = record(&topic, "key", "");
        assert_eq!(messages[0].headers, sent.headers);
        assert!(messages[0].timestamp.is_some());
        reader.close().await;
    }
}

mod a_group_goes_on_where_it_committed_and_what_it_did_not_commit_comes_again {
    use super::*;

    pub(super) async fn story(broker: &dyn Broker) {
        let (topic, group) = (filled(broker, 30).await, name("group"));
        let mut first = broker.consumer(&group, &[&topic]).await.unwrap();
        let taken = gather(first.as_mut(), 30).await;
        first.commit(&positions(&taken)).await.unwrap();
        send(broker, &topic, 30..40).await;
        assert_eq!(numbers(&gather(first.as_mut(), 10).await), (30..40).collect::<Vec<_>>());
        first.close().await;
        let mut second = broker.consumer(&group, &[&topic]).await.unwrap();
        assert_eq!(numbers(&gather(second.as_mut(), 10).await), (30..40).collect::<Vec<_>>(), "not committed");
        second.close().await;
        let mut other = broker.consumer(&name("group"), &[&topic]).await.unwrap();
        assert_eq!(gather(other.as_mut(), 40).await.len(), 40, "another group begins with the oldest");
        other.close().await;
    }
}

mod a_member_that_goes_back_gets_the_same_again {
    use super::*;

    pub(super) async fn story(broker: &dyn Broker) {
        let topic = filled(broker, 20).await;
        let mut member = broker.consumer(&name("group"), &[&topic]).await.unwrap();
        let taken = gather(member.as_mut(), 20).await;
        member.rewind(&positions(&taken)).await.unwrap();
        assert_eq!(numbers(&gather(member.as_mut(), 20).await), (0..20).collect::<Vec<_>>());
        member.close().await;
    }
}

mod a_poll_brings_at_most_what_was_asked_for {
    use super::*;

    pub(super) async fn story(broker: &dyn Broker) {
        let topic = filled(broker, 20).await;
        let mut reader = broker.tail(&[&topic], Start::Earliest).await.unwrap();
        let mut all = Vec::new();
        while all.len() < 20 {
            let some = reader.poll(7, WAIT).await.unwrap();
            assert!(some.len() <= 7);
            all.extend(some);
        }
        assert_eq!(numbers(&all), (0..20).collect::<Vec<_>>());
        reader.close().await;
    }
}

mod members_that_come_and_go_leave_nothing_untaken {
    use super::*;

    pub(super) async fn story(broker: &dyn Broker) {
        let (topic, group) = (filled(broker, 0).await, name("group"));
        let mut first = broker.consumer(&group, &[&topic]).await.unwrap();
        let mut second = broker.consumer(&group, &[&topic]).await.unwrap();
        let (mut seen, mut sent) = (HashSet::new(), 0);
        let began = std::time::Instant::now();
        while seen.len() < 200 {
            assert!(began.elapsed() < PATIENCE, "{} of 200", seen.len());
            if sent < 200 {
                send(broker, &topic, sent..sent + 20).await;
                sent += 20;
            }
            for member in [&mut first, &mut second] {
                let messages = member.poll(1_000, Duration::from_millis(50)).await.unwrap();
                seen.extend(numbers(&messages));
                match member.commit(&positions(&messages)).await {
                    Ok(()) | Err(BrokerError::Lost(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        first.close().await;
        send(broker, &topic, 200..220).await;
        let rest = gather(second.as_mut(), 20).await;
        assert!(numbers(&rest).ends_with(&(200..220).collect::<Vec<_>>()), "the one that stays has everything");
        second.close().await;
    }
}

mod one_record_that_is_refused_takes_no_other_with_it {
    use super::*;

    pub(super) async fn story(broker: &dyn Broker) {
        let topic = filled(broker, 0).await;
        let large = "x".repeat(RECORD_BYTES_MAX + 1);
        let records = vec![record(&topic, "a", "0"), record(&topic, "a", &large), record(&topic, "b", "1")];
        let answers = broker.producer().send(records).await;
        assert!(matches!(answers[..], [Ok(()), Err(SendError::Permanent(_)), Ok(())]), "{answers:?}");
        let mut reader = broker.tail(&[&topic], Start::Earliest).await.unwrap();
        assert_eq!(numbers(&gather(reader.as_mut(), 2).await), [0, 1]);
        reader.close().await;
        let largest = record(&topic, "c", &"x".repeat(events::MAX_ENVELOPE_BYTES));
        assert_eq!(broker.producer().send(vec![largest]).await, [Ok(())], "what may be recorded can be sent");
    }
}

mod a_reader_of_what_comes_sees_nothing_older_and_takes_nothing_from_a_group {
    use super::*;

    pub(super) async fn story(broker: &dyn Broker) {
        let (topic, group) = (filled(broker, 10).await, name("group"));
        let mut reader = broker.tail(&[&topic], Start::Latest).await.unwrap();
        send(broker, &topic, 10..15).await;
        assert_eq!(numbers(&gather(reader.as_mut(), 5).await), (10..15).collect::<Vec<_>>());
        reader.close().await;
        let mut member = broker.consumer(&group, &[&topic]).await.unwrap();
        assert_eq!(gather(member.as_mut(), 15).await.len(), 15);
        member.close().await;
    }
}

mod how_far_a_member_is_behind_is_told {
    use super::*;

    pub(super) async fn story(broker: &dyn Broker) {
        let topic = filled(broker, 30).await;
        let mut member = broker.consumer(&name("group"), &[&topic]).await.unwrap();
        let taken = gather(member.as_mut(), 30).await;
        member.commit(&positions(&taken)).await.unwrap();
        assert_eq!(member.lag().await.unwrap().values().sum::<i64>(), 0);
        send(broker, &topic, 30..40).await;
        let began = std::time::Instant::now();
        while member.lag().await.unwrap().values().sum::<i64>() != 10 {
            assert!(began.elapsed() < PATIENCE, "{:?}", member.lag().await);
        }
        member.close().await;
    }
}

mod making_topics_again_changes_nothing {
    use super::*;

    pub(super) async fn story(broker: &dyn Broker) {
        let topic_name = filled(broker, 3).await;
        broker.producer().ensure_topics(&[topic(&topic_name), topic(&name("other"))]).await.unwrap();
        let mut reader = broker.tail(&[&topic_name], Start::Earliest).await.unwrap();
        assert_eq!(gather(reader.as_mut(), 3).await.len(), 3);
        reader.close().await;
        assert!(broker.healthy().await);
    }
}

/// Runs a story on both brokers.
macro_rules! on_both_brokers {
    ($($story:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $story() {
            let folder = tempfile::tempdir().unwrap();
            let log = EmbeddedBroker::open(&folder.path().join("log.sqlite")).await.unwrap();
            super::$story::story(&log).await;
            let kafka = KafkaBroker::new(KafkaConfig::new(&test_kit::kafka())).unwrap();
            super::$story::story(&kafka).await;
        }
    )+};
}

mod tests {
    use super::{EmbeddedBroker, KafkaBroker, KafkaConfig};

    on_both_brokers!(
        what_is_sent_arrives_whole_and_in_the_order_of_its_key,
        a_group_goes_on_where_it_committed_and_what_it_did_not_commit_comes_again,
        a_member_that_goes_back_gets_the_same_again,
        a_poll_brings_at_most_what_was_asked_for,
        members_that_come_and_go_leave_nothing_untaken,
        one_record_that_is_refused_takes_no_other_with_it,
        a_reader_of_what_comes_sees_nothing_older_and_takes_nothing_from_a_group,
        how_far_a_member_is_behind_is_told,
        making_topics_again_changes_nothing,
    );
}
