//! What events travel through.

use std::time::Duration;

use broker::{
    KafkaBroker,
    kafka::{ClusterState, TopicState},
};
use chrono::TimeDelta;
use service_kit::{Service, config::Config};

use super::{Finding, database::file, now, skew};

pub(super) async fn look(services: &[Service], config: &Config) -> Vec<Finding> {
    let Some(kafka) = &config.process.kafka else {
        return vec![file("embedded log", &config.process.log_file()).await];
    };
    let topics: Vec<&events::EventType> = services.iter().flat_map(|service| events::said_by(service.name)).collect();
    let names: Vec<&str> = topics.iter().map(|topic| topic.name).collect();
    let looked = async {
        let broker = KafkaBroker::new(kafka.clone())?;
        let cluster = broker.examine(&names).await?;
        Ok::<_, broker::BrokerError>((broker, cluster))
    };
    let (broker, cluster) = match looked.await {
        Ok(found) => found,
        Err(error) => return vec![Finding::unknown("Kafka", &error)],
    };
    let mut findings = of_topics(&cluster, &topics);
    let before = now();
    match broker.time().await {
        // The fastest of three questions, the last at the latest: what lies between began that much before.
        Ok((theirs, took)) => {
            let after = now();
            let asked = before.min(after - TimeDelta::from_std(took).unwrap_or_default());
            findings.push(skew("the broker", theirs, asked, after));
        }
        Err(error) => findings.push(Finding::unknown("clock of the broker", &error)),
    }
    findings
}

/// One finding for each kind of trouble, which names the topics.
fn of_topics(cluster: &ClusterState, wanted: &[&events::EventType]) -> Vec<Finding> {
    let there: Vec<&TopicState> = cluster.topics.iter().filter(|topic| topic.partitions > 0).collect();
    let bad = |is_bad: &dyn Fn(&TopicState) -> bool| -> Vec<&str> {
        there.iter().filter(|topic| is_bad(topic)).map(|topic| topic.name.as_str()).collect()
    };
    let finding = |check: &str, topics: Vec<&str>, what_to_do| {
        let found = if topics.is_empty() { format!("{} topics", there.len()) } else { topics.join(", ") };
        Finding::unless(topics.is_empty(), format!("Kafka: {check}"), found, what_to_do)
    };
    let missing: Vec<&str> =
        cluster.topics.iter().filter(|topic| topic.partitions == 0).map(|topic| topic.name.as_str()).collect();
    let setting = |topic: &TopicState, name: &str| topic.settings.get(name).cloned().unwrap_or_default();
    let kept = |topic: &TopicState| -> Option<Duration> {
        // -1: for ever.
        setting(topic, "retention.ms").parse::<u64>().ok().map(Duration::from_millis)
    };
    let promised = |topic: &TopicState| {
        let found = wanted.iter().find(|event| event.name == topic.name);
        found.map_or(Duration::ZERO, |event| event.retention)
    };
    let remembered = inbox::REMEMBERED.to_std().unwrap_or_default();
    let copies = cluster.brokers.min(3);
    vec![
        finding("topics missing", missing, "start the services once: they make their topics; or make them by hand"),
        finding(
            "retention too short",
            bad(&|topic| kept(topic).is_some_and(|kept| kept < promised(topic))),
            "raise retention.ms to what docs/events.md says: a consumer that is away for long loses events",
        ),
        finding(
            "retention longer than inboxes remember",
            bad(&|topic| kept(topic).is_none_or(|kept| kept > remembered)),
            "lower retention.ms below 30 days: a group that is set back further applies effects twice",
        ),
        finding(
            "compacted",
            bad(&|topic| setting(topic, "cleanup.policy").contains("compact")),
            "set cleanup.policy = delete: compaction drops all but the newest event of a key",
        ),
        finding(
            "too few copies",
            bad(&|topic| topic.replicas < copies),
            "raise the replication factor to 3 (or the number of brokers): one broker that is lost takes events along",
        ),
        finding(
            "acknowledged by too few",
            bad(&|topic| copies >= 3 && setting(topic, "min.insync.replicas").parse::<u32>().is_ok_and(|min| min < 2)),
            "set min.insync.replicas = 2: else an acknowledged event may be in one place only",
        ),
        finding(
            "unclean elections",
            bad(&|topic| setting(topic, "unclean.leader.election.enable") == "true"),
            "set unclean.leader.election.enable = false: else a broker that lacks events may become the leader",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{ClusterState, TopicState, of_topics};
    use crate::doctor::State;

    fn found(brokers: usize, partitions: usize, replicas: usize, settings: &[(&str, &str)]) -> Vec<String> {
        let event = events::catalogue().first().expect("an event");
        let mut all: HashMap<String, String> = [
            ("retention.ms", event.retention.as_millis().to_string()),
            ("cleanup.policy", "delete".to_owned()),
            ("min.insync.replicas", "2".to_owned()),
            ("unclean.leader.election.enable", "false".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let topic = TopicState { name: event.name.to_owned(), partitions, replicas, settings: all };
        let findings = of_topics(&ClusterState { brokers, topics: vec![topic] }, &[event]);
        findings.into_iter().filter(|finding| finding.state == State::Bad).map(|finding| finding.check).collect()
    }

    #[test]
    fn a_topic_that_would_lose_events_is_found_for_each_reason() {
        assert!(found(3, 3, 3, &[]).is_empty());
        assert!(found(1, 3, 1, &[("min.insync.replicas", "1")]).is_empty(), "one broker can keep one copy");
        assert_eq!(found(3, 0, 0, &[]), ["Kafka: topics missing"]);
        assert_eq!(found(3, 3, 1, &[]), ["Kafka: too few copies"]);
        for (name, value, check) in [
            ("retention.ms", "3600000", "Kafka: retention too short"),
            ("retention.ms", "-1", "Kafka: retention longer than inboxes remember"),
            ("cleanup.policy", "compact,delete", "Kafka: compacted"),
            ("min.insync.replicas", "1", "Kafka: acknowledged by too few"),
            ("unclean.leader.election.enable", "true", "Kafka: unclean elections"),
        ] {
            assert_eq!(found(3, 3, 3, &[(name, value)]), [check]);
        }
    }
}
