//! Follows what takes effect in the store, works out what must become of every instant, and says where they differ.
//!
//! It shares the definitions of rows with the scheduler and no code: schedules, decisions, overlap, ownership and ends
//! are worked out here once more.

mod calendar;
mod ledger;
pub(crate) mod model;
mod owning;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use chrono::TimeDelta;
use scheduler::{
    Instant,
    kinds::Held,
    ledger::{Ending, Outcome, RunState, ScheduleRow, Wake},
    policy::{Decision, Resume},
    schedule::Overlap,
    store::{Announcement, Decided},
};
use uuid::Uuid;

use self::{
    calendar::Calendar,
    model::{Expected, JobModel, RunModel, Sort, said, sort},
};
use crate::time::{Micros, SECOND};

/// When and by whom something took effect.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) at: Micros,
    pub(crate) database: Instant,
    pub(crate) replica: &'a str,
}

/// What a work transaction does when it commits.
#[derive(Debug, Clone)]
pub(crate) enum Written {
    End(Held, Ending),
    Checkpoint(Held),
    Wait(Held, Instant),
    Window,
    Effect(Uuid),
    Dealt(Uuid, Option<Instant>),
    Leased(Held),
    Settled(Held),
}

/// So long after the last fault nothing may be late any more: a lease, a sweep, and what a replica waits after errors.
const RECOVERY: Micros = 150 * SECOND;
/// And so late may something be then: some operations on the way, each at most 2 ms.
const LATE: TimeDelta = TimeDelta::milliseconds(150);
/// A replica's idea of the database's time is read every 30 s and drifts by 500 millionths in between; one that has only
/// been read through answers that took 3 s and more is worse.
const EARLY: TimeDelta = TimeDelta::milliseconds(20);
const EARLY_DISTURBED: TimeDelta = TimeDelta::milliseconds(2_600);
/// Lines of the timeline that are kept.
const TIMELINE: usize = 60;

pub(crate) struct Checker {
    seed: u64,
    tell: bool,
    jobs: BTreeMap<String, JobModel>,
    runs: BTreeMap<Uuid, RunModel>,
    unfinished: BTreeSet<Uuid>,
    keys: HashMap<(String, String), Uuid>,
    newest: BTreeMap<String, BTreeSet<(Instant, Uuid)>>,
    effects: HashSet<Uuid>,
    leases: HashMap<Uuid, i64>,
    /// When a replica last blamed a row of the claim for a batch that overran.
    overran: HashMap<String, Micros>,
    /// When the last fault ended, when the database's clock last stepped, and whether it ever stepped back.
    pub(crate) disturbed: Micros,
    pub(crate) stepped: Micros,
    pub(crate) stepped_back: bool,
    pub(crate) wrong: Vec<String>,
    timeline: VecDeque<String>,
    hash: DefaultHasher,
    /// Fires and due rows whose lateness was asserted.
    pub(crate) punctual: u64,
}

impl Checker {
    pub(crate) fn new(seed: u64, tell: bool) -> Self {
        Self {
            seed,
            tell,
            jobs: BTreeMap::new(),
            runs: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            keys: HashMap::new(),
            newest: BTreeMap::new(),
            effects: HashSet::new(),
            leases: HashMap::new(),
            overran: HashMap::new(),
            disturbed: 0,
            stepped: -60 * SECOND,
            stepped_back: false,
            wrong: Vec::new(),
            timeline: VecDeque::new(),
            hash: DefaultHasher::new(),
            punctual: 0,
        }
    }

    /// A line of the timeline, made only when somebody will read it.
    pub(crate) fn say(&mut self, at: Micros, line: impl FnOnce() -> String) {
        (at, self.runs.len()).hash(&mut self.hash);
        if self.tell {
            self.timeline.push_back(format!("{:>12.3} s  {}", at as f64 / 1e6, line()));
            if self.timeline.len() > TIMELINE && self.wrong.is_empty() {
                self.timeline.pop_front();
            }
        }
    }

    pub(crate) fn fail(&mut self, moment: Moment<'_>, what: String) {
        let line = format!("{:.3} s, {}: {what}", moment.at as f64 / 1e6, moment.replica);
        self.say(moment.at, || format!("WRONG: {what}"));
        self.wrong.push(line);
    }

    /// What went on before it went wrong.
    pub(crate) fn timeline(&self) -> String {
        self.timeline.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// A digest of all that happened.
    pub(crate) fn digest(&self) -> u64 {
        self.hash.finish()
    }

    pub(crate) fn announced(&mut self, moment: Moment<'_>, said: &[Announcement], rows: &[ScheduleRow]) {
        for (said, row) in said.iter().zip(rows) {
            let now = moment.database;
            if let Some(job) = self.jobs.get_mut(&said.job) {
                if said.starting && said.enabled && said.spec != job.spec {
                    job.respec(&said.spec, now);
                }
            } else {
                let calendar = Calendar::of(&said.spec);
                let next = calendar.next(now, now);
                let (spec, decided) = (said.spec.clone(), BTreeSet::new());
                let job = JobModel { spec, calendar, anchor: now, next, epoch: 1, paused: false, decided };
                self.jobs.insert(said.job.clone(), job);
            }
            let job = &self.jobs[&said.job];
            let expected = (job.anchor, job.next, job.epoch, job.paused);
            let found = (row.anchor_at, row.next_at, row.epoch, row.pause.is_some());
            if expected != found {
                self.fail(moment, format!("{}: the schedule row is {found:?} and must be {expected:?}", said.job));
            }
            if said.starting {
                self.say(moment.at, || format!("{} announces {}", moment.replica, said.job));
            }
        }
    }

    pub(crate) fn decided(&mut self, moment: Moment<'_>, asked: &[Decision], decided: &[Decided]) {
        for (decision, decided) in asked.iter().zip(decided) {
            let Some(mut job) = self.jobs.remove(&decision.job) else {
                self.fail(moment, format!("{}: decided before it was announced", decision.job));
                continue;
            };
            let wins = job.epoch == decision.seen_epoch && !job.paused;
            if wins != decided.won {
                self.fail(moment, format!("{}: won is {} and must be {wins}", decision.job, decided.won));
            }
            if wins {
                self.check_decision(moment, &job, decision);
                self.apply(moment, &mut job, decision, decided);
            }
            self.jobs.insert(decision.job.clone(), job);
        }
    }

    fn check_decision(&mut self, moment: Moment<'_>, job: &JobModel, decision: &Decision) {
        let name = &decision.job;
        let found = said(&decision.ledger, &decision.starts, decision.next_at);
        let expected = match sort(decision) {
            Sort::Tick => job.tick(name, decision.now),
            Sort::Start => job.start(name, decision.now),
            Sort::SetBack => {
                let first = job.calendar.next(job.anchor, decision.now);
                if decision.next_at >= job.next || decision.next_at < first {
                    let text =
                        format!("{name}: set back from {:?} to {:?}, first {first:?}", job.next, decision.next_at);
                    self.fail(moment, text);
                }
                return;
            }
            Sort::Disabled => {
                let due = job.due(name, decision.now);
                let covered: i64 = found.ranges.iter().map(|range| range.2).sum();
                let fine = covered == due.len() as i64 && decision.starts.is_empty();
                Expected {
                    next: if fine { job.resume(&due, false).next } else { None },
                    ..said(&decision.ledger, &[], None)
                }
            }
        };
        // Of an outage before a replica that has the job disabled: nothing runs, and nothing is said to be disabled.
        let due = job.due(name, decision.now);
        let outage = decision.starts.is_empty()
            && found.ranges.len() == 1
            && found.ranges[0].2 == due.len() as i64
            && found.ranges[0].3 == Outcome::Missed
            && found.next == job.resume(&due, false).next;
        if expected != found && !outage {
            self.fail(moment, format!("{name}: decided\n    {found:?}\n  and must be\n    {expected:?}"));
        }
        let early = decision.now - moment.database;
        let calm = moment.at > self.disturbed + RECOVERY;
        let may = if calm { EARLY } else { EARLY_DISTURBED };
        if early > may && moment.at > self.stepped + 60 * SECOND {
            self.fail(moment, format!("{name}: decided {early} before the database's time"));
        }
        if matches!(sort(decision), Sort::Tick) && calm {
            self.punctual += 1;
            let fire = job.next.map(|next| job.calendar.fire(name, job.anchor, next)).unwrap_or_default();
            let late = moment.database - fire;
            if late > LATE {
                self.fail(moment, format!("{name}: {late} late, and no fault was near"));
            }
        }
    }

    fn apply(&mut self, moment: Moment<'_>, job: &mut JobModel, decision: &Decision, decided: &Decided) {
        let name = &decision.job;
        self.say(moment.at, || {
            let starts: Vec<_> = decision.starts.iter().map(|start| start.run_key.clone()).collect();
            let ranges: Vec<_> = decision.ledger.iter().map(|row| (row.outcome, row.instants)).collect();
            let next = decision.next_at;
            format!("{} decides {name}: starts {starts:?}, {ranges:?}, next {next:?}", moment.replica)
        });
        if !matches!(sort(decision), Sort::SetBack) {
            let due = job.due(name, decision.now);
            job.decided.extend(due);
        }
        job.epoch += 1;
        job.next = decision.next_at;
        for row in &decision.ledger {
            self.insert(name, row, job.spec.overlap, true, moment.database);
        }
        let (mut started, mut disturbed) = (Vec::new(), Vec::new());
        for new in &decision.starts {
            self.start(moment, name, job, new, &mut started, &mut disturbed);
        }
        let found: Vec<(Uuid, i64)> = decided.started.iter().map(|run| (run.id, run.epoch)).collect();
        if found != started {
            self.fail(moment, format!("{name}: started {found:?} and must start {started:?}"));
        }
        if decided.disturbed != disturbed {
            self.fail(moment, format!("{name}: disturbed {:?} and must disturb {disturbed:?}", decided.disturbed));
        }
    }

    pub(crate) fn paused(&mut self, moment: Moment<'_>, name: &str, there: bool) {
        self.say(moment.at, || format!("an operator pauses {name} through {}", moment.replica));
        self.disturbed = self.disturbed.max(moment.at);
        if let Some(job) = self.jobs.get_mut(name).filter(|_| there) {
            job.paused = true;
            job.epoch += 1;
        }
    }

    pub(crate) fn resumed(&mut self, moment: Moment<'_>, name: &str, resume: &Resume, done: bool) {
        self.disturbed = self.disturbed.max(moment.at);
        let Some(mut job) = self.jobs.remove(name) else { return };
        let may = job.epoch == resume.seen_epoch;
        if may != done {
            self.fail(moment, format!("{name}: resumed is {done} and must be {may}"));
        }
        if may {
            self.say(moment.at, || format!("{name} is resumed by {}, next {:?}", moment.replica, resume.next_at));
            let first = job.next;
            let all = std::iter::successors(first, |at| job.calendar.next(job.anchor, *at));
            let due: Vec<Instant> =
                all.take_while(|at| first != resume.next_at && resume.next_at.is_some_and(|next| *at < next)).collect();
            let catch_up = resume.ledger.iter().all(|row| row.outcome != Some(Outcome::Paused));
            let expected = job.resume(&due, catch_up);
            let found = said(&resume.ledger, &resume.queued, resume.next_at);
            if found != expected {
                self.fail(moment, format!("{name}: resumed with\n    {found:?}\n  and must be\n    {expected:?}"));
            }
            job.decided.extend(due);
            job.paused = false;
            job.epoch += 1;
            job.next = resume.next_at;
            for row in resume.ledger.iter().chain(&resume.queued) {
                self.insert(name, row, job.spec.overlap, true, moment.database);
            }
        }
        self.jobs.insert(name.to_owned(), job);
    }

    pub(crate) fn pruned(&mut self, moment: Moment<'_>, gone: u64) {
        if gone > 0 {
            self.fail(moment, format!("{gone} rows were pruned that are not old"));
        }
    }

    fn overlap(&self, job: &str) -> Overlap {
        self.jobs.get(job).map_or(Overlap::Skip, |job| job.spec.overlap)
    }

    /// The runs that count in the table: policy, outcome, what woke them.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (Overlap, Outcome, Wake)> {
        self.runs.values().filter_map(|run| Some((run.overlap, run.outcome?, run.wake)))
    }

    fn waiting(&self, job: &str) -> Vec<(Instant, Uuid)> {
        let waits = |run: &RunModel| run.state == RunState::Queued && run.job == job;
        let mut waiting: Vec<_> =
            self.open_runs().filter(|(_, run)| waits(run)).map(|(id, run)| (run.fire_at, id)).collect();
        waiting.sort_unstable();
        waiting
    }
}
