//! The embedded log and Kafka are one: the same random story on both, told to the same model.
//!
//! `BROKER_STEPS` says how long the story is, `BROKER_SEED` which it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use broker::{Broker, BrokerError, Consumer, EmbeddedBroker, KafkaBroker, KafkaConfig, Message, Position, Start};
use uuid::Uuid;

use crate::conformance::{record, topic};

const WAIT: Duration = Duration::from_millis(100);
/// A group of Kafka takes some seconds to form.
const PATIENCE: Duration = Duration::from_secs(60);
const MEMBERS_MAX: usize = 3;
const KEYS: u64 = 7;

#[expect(clippy::disallowed_methods, reason = "a number for the test run")]
fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

#[expect(clippy::print_stdout, reason = "whoever runs this by hand wants to know how much was tried")]
fn tell(text: &str) {
    println!("{text}");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many records come.
    Produce(u64),
    /// The group takes all there is, and says so or not.
    Take {
        commit: bool,
    },
    /// The group takes all there is; the first half of what each partition brought is done.
    TakeAndCommitHalf,
    /// A member goes back to the oldest it has not said to be done.
    Rewind,
    Join,
    Leave,
    /// All end, without a word; others begin with a new client.
    Restart,
}

fn story(seed: u64, steps: u64) -> Vec<Step> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let step = |_| match rng.u8(..16) {
        0..5 => Step::Produce(rng.u64(1..60)),
        5..9 => Step::Take { commit: rng.u8(..3) > 0 },
        9..11 => Step::TakeAndCommitHalf,
        11..13 => Step::Rewind,
        13 => Step::Join,
        14 => Step::Leave,
        _ => Step::Restart,
    };
    (0..steps).map(step).collect()
}

/// Where the broker is, so that it can be opened again.
enum Place {
    Log(PathBuf),
    Kafka,
}

impl Place {
    async fn open(&self) -> Box<dyn Broker> {
        match self {
            Self::Log(file) => Box::new(EmbeddedBroker::open(file).await.unwrap()),
            Self::Kafka => Box::new(KafkaBroker::new(KafkaConfig::new(&test_kit::kafka())).unwrap()),
        }
    }
}

/// The broker, a group on it, and what must be true of them.
struct Group {
    what: &'static str,
    place: Place,
    broker: Box<dyn Broker>,
    topic: String,
    name: String,
    members: Vec<Box<dyn Consumer>>,
    sent: u64,
    /// Records that are done for sure, and those whose commit was refused for the member had lost them.
    done: BTreeSet<u64>,
    perhaps: BTreeSet<u64>,
    /// What each partition brought and is not done, by its offset.
    taken: BTreeMap<(i32, i64), u64>,
    /// How many records were delivered more than once.
    again: u64,
    delivered: BTreeSet<u64>,
}

fn number(message: &Message) -> u64 {
    String::from_utf8_lossy(&message.body).parse().unwrap()
}

impl Group {
    async fn new(what: &'static str, place: Place) -> Self {
        let (broker, name) = (place.open().await, Uuid::now_v7().simple().to_string());
        let topic_name = format!("test.alike.{name}");
        broker.producer().ensure_topics(&[topic(&topic_name)]).await.unwrap();
        let name = format!("group.{name}");
        let (sent, again) = (0, 0);
        let (done, perhaps, delivered) = Default::default();
        let (members, taken) = (Vec::new(), BTreeMap::new());
        let mut new = Self {
            what,
            place,
            broker,
            topic: topic_name,
            name,
            members,
            sent,
            done,
            perhaps,
            taken,
            again,
            delivered,
        };
        new.join().await;
        new
    }

    async fn join(&mut self) {
        if self.members.len() < MEMBERS_MAX {
            self.members.push(self.broker.consumer(&self.name, &[&self.topic]).await.unwrap());
        }
    }

    async fn produce(&mut self, count: u64) {
        let records = (self.sent..self.sent + count)
            .map(|number| record(&self.topic, &format!("key-{}", number % KEYS), &number.to_string()))
            .collect();
        assert!(self.broker.producer().send(records).await.iter().all(Result::is_ok));
        self.sent += count;
    }

    fn waiting(&self) -> usize {
        let there: BTreeSet<u64> = self.taken.values().copied().collect();
        (0..self.sent).filter(|number| !self.done.contains(number) && !there.contains(number)).count()
    }

    /// Takes until everything that is not done was taken by somebody, and once more.
    async fn take(&mut self) {
        let began = Instant::now();
        let mut rest = 1;
        while rest > 0 {
            if self.waiting() == self.perhaps.iter().filter(|number| !self.taken.values().any(|n| n == *number)).count()
            {
                rest -= 1;
            }
            assert!(began.elapsed() < PATIENCE, "{}: {} records do not come", self.what, self.waiting());
            for member in 0..self.members.len() {
                let messages = self.members[member].poll(1_000, WAIT).await.unwrap();
                self.took(&messages);
            }
        }
    }

    fn took(&mut self, messages: &[Message]) {
        let mut last: BTreeMap<(i32, &str), u64> = BTreeMap::new();
        for message in messages {
            let number = number(message);
            assert!(!self.done.contains(&number), "{}: {number} is done and comes again", self.what);
            let before = last.insert((message.partition, &message.key), number);
            assert!(before.is_none_or(|before| before < number), "{}: {number} after {before:?}", self.what);
            self.taken.insert((message.partition, message.offset), number);
            self.again += u64::from(!self.delivered.insert(number));
        }
    }

    /// Says that all taken below these places are done; of a partition that moved away nothing is known.
    async fn commit(&mut self, ends: &BTreeMap<i32, i64>) {
        for (partition, end) in ends {
            let place = Position { topic: self.topic.clone(), partition: *partition, offset: *end };
            let mut done = false;
            for member in &mut self.members {
                // Only the owner of the partition may say so.
                match member.commit(std::slice::from_ref(&place)).await {
                    Ok(()) => done = true,
                    Err(BrokerError::Lost(_)) => {}
                    Err(error) => panic!("{}: {error}", self.what),
                }
            }
            let below: Vec<(i32, i64)> =
                self.taken.range((*partition, i64::MIN)..=(*partition, *end)).map(|(at, _)| *at).collect();
            for at in below {
                let number = self.taken.remove(&at).unwrap();
                if done {
                    self.done.insert(number)
                } else {
                    self.perhaps.insert(number)
                };
            }
        }
        self.perhaps.retain(|number| !self.done.contains(number));
    }

    /// The place in each partition below which a part of what was taken lies.
    fn ends(&self, numerator: usize, denominator: usize) -> BTreeMap<i32, i64> {
        let mut of: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for (partition, offset) in self.taken.keys() {
            of.entry(*partition).or_default().push(*offset);
        }
        let end = |offsets: &[i64]| offsets.get((offsets.len() * numerator / denominator).checked_sub(1)?).copied();
        of.into_iter().filter_map(|(partition, offsets)| Some((partition, end(&offsets)?))).collect()
    }

    async fn rewind(&mut self) {
        let mut first: BTreeMap<i32, i64> = BTreeMap::new();
        for (partition, offset) in self.taken.keys() {
            first.entry(*partition).or_insert(*offset);
        }
        let to: Vec<Position> = first
            .into_iter()
            .map(|(partition, offset)| Position { topic: self.topic.clone(), partition, offset })
            .collect();
        for member in &mut self.members {
            match member.rewind(&to).await {
                Ok(()) | Err(BrokerError::Lost(_)) => {}
                Err(error) => panic!("{}: {error}", self.what),
            }
        }
        self.taken.clear();
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Produce(count) => self.produce(count).await,
            Step::Take { commit } => {
                self.take().await;
                if commit {
                    let ends = self.ends(1, 1);
                    self.commit(&ends).await;
                }
            }
            Step::TakeAndCommitHalf => {
                self.take().await;
                let ends = self.ends(1, 2);
                self.commit(&ends).await;
            }
            // With several members the owner of a partition is not known here, and another must not go back.
            Step::Rewind if self.members.len() == 1 => self.rewind().await,
            Step::Join => self.join().await,
            Step::Leave if self.members.len() > 1 => {
                self.members.remove(0).close().await;
                // What the one that left had taken comes to another, as far as it is not done.
                self.taken.clear();
            }
            Step::Rewind | Step::Leave => {}
            Step::Restart => {
                for member in self.members.drain(..) {
                    member.close().await;
                }
                self.taken.clear();
                self.broker = self.place.open().await;
                self.join().await;
            }
        }
    }

    /// Everything is done in the end; a reader finds each record once, in the order of its key.
    async fn end(mut self) -> (u64, u64) {
        self.step(Step::Restart).await;
        self.step(Step::Take { commit: true }).await;
        let mut reader = self.broker.tail(&[&self.topic], Start::Earliest).await.unwrap();
        let (mut all, began) = (Vec::new(), Instant::now());
        while (all.len() as u64) < self.sent {
            assert!(began.elapsed() < PATIENCE, "{}: {} of {}", self.what, all.len(), self.sent);
            all.extend(reader.poll(1_000, WAIT).await.unwrap());
        }
        let mut numbers: Vec<u64> = all.iter().map(number).collect();
        for key in 0..KEYS {
            let of_key: Vec<u64> = numbers.iter().copied().filter(|number| number % KEYS == key).collect();
            assert!(of_key.is_sorted(), "{}: {of_key:?}", self.what);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..self.sent).collect::<Vec<_>>(), "{}", self.what);
        let known: BTreeSet<u64> = self.done.union(&self.perhaps).copied().collect();
        assert_eq!(known.len() as u64, self.sent, "{}", self.what);
        for member in self.members {
            member.close().await;
        }
        (self.sent, self.again)
    }
}

#[tokio::test]
async fn a_random_story_is_the_same_on_the_log_and_on_kafka() {
    let (seed, steps) = (variable("BROKER_SEED", 1), variable("BROKER_STEPS", 120));
    let folder = tempfile::tempdir().unwrap();
    let mut log = Group::new("log", Place::Log(folder.path().join("log.sqlite"))).await;
    let mut kafka = Group::new("kafka", Place::Kafka).await;
    for (number, step) in story(seed, steps).into_iter().enumerate() {
        for broker in [&mut log, &mut kafka] {
            broker.step(step).await;
        }
        // Half of a partition is another half where there are other partitions.
        let all = matches!(step, Step::Take { commit: true }) && log.perhaps.is_empty() && kafka.perhaps.is_empty();
        if all {
            assert_eq!(log.done, kafka.done, "seed {seed}, step {number}: what is done differs");
        }
    }
    let ((sent, log_again), (_, kafka_again)) = (log.end().await, kafka.end().await);
    tell(&format!("{steps} steps, {sent} records; delivered again: {log_again} by the log, {kafka_again} by Kafka"));
}
