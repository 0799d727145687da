//! Who owns a run, how it may end, and what a work transaction may write.

use chrono::TimeDelta;
use scheduler::{
    Instant,
    kinds::Held,
    ledger::{Ending, Outcome, RunState},
    store::{Enqueued, QueueOf, Recovered, Renewal},
};
use uuid::Uuid;

use super::{Checker, LATE, Moment, RECOVERY, Written, model::RunModel};
use crate::{
    jobs::{Script, effect_of, poison, script},
    plan::TIMEOUT,
    time::{Micros, SECOND},
};

/// Jobs whose lost runs go on in their row.
fn resumes(job: &str) -> bool {
    job.starts_with("tick") || job == "steps"
}

impl Checker {
    pub(super) fn open(&mut self, id: Uuid, open: bool) {
        if open {
            self.unfinished.insert(id);
        } else {
            self.unfinished.remove(&id);
        }
    }

    pub(super) fn open_runs(&self) -> impl Iterator<Item = (Uuid, &RunModel)> {
        self.unfinished.iter().filter_map(|id| Some((*id, self.runs.get(id)?)))
    }

    pub(super) fn run_mut(&mut self, id: Uuid) -> &mut RunModel {
        self.runs.get_mut(&id).expect("a run that was inserted")
    }

    /// Whether `held` may write.
    fn alive(&self, held: Held) -> bool {
        self.runs.get(&held.id).is_some_and(|run| run.state == RunState::Running && run.epoch == held.epoch)
    }

    /// Whether what was written by `held` was its to write.
    fn own(&mut self, moment: Moment<'_>, held: Held, written: bool, what: &str) -> bool {
        let may = self.alive(held);
        if may != written {
            self.fail(moment, format!("{what} of {held:?} was {written} and must be {may}"));
        }
        let stranger = may && self.runs[&held.id].owner != moment.replica;
        if stranger {
            self.fail(moment, format!("{what} of {held:?} by one who does not own it"));
        }
        may && !stranger
    }

    pub(crate) fn enqueued(&mut self, moment: Moment<'_>, enqueued: &Enqueued) {
        if let Enqueued::New(row) = enqueued {
            self.say(moment.at, || format!("{} is queued by {}: {}", row.job, moment.replica, row.run_key));
            let overlap = self.overlap(&row.job);
            let new = scheduler::ledger::NewRun {
                id: row.id,
                run_key: row.run_key.clone(),
                wake: row.wake_source,
                nominal_at: row.nominal_at,
                nominal_until: row.nominal_until,
                instants: row.instants,
                fire_at: row.fire_at,
                outcome: None,
                reason: None,
                into_run: None,
                input: None,
            };
            self.free_old_key(&row.job, &row.run_key, moment.database);
            if !self.insert(&row.job, &new, overlap, true, moment.database) {
                self.fail(moment, format!("{}: {} is queued twice", row.job, row.run_key));
            }
        }
    }

    pub(crate) fn took(&mut self, moment: Moment<'_>, queues: &[QueueOf], taken: &[scheduler::ledger::RunRow]) {
        let mut expected = Vec::new();
        for queue in queues {
            for (_, id) in self.waiting(&queue.job) {
                if self.runs[&id].queued_at.is_some_and(|at| at > moment.database) {
                    continue;
                }
                if queue.exclusive && self.going(&queue.job).is_some() {
                    break;
                }
                let run = self.run_mut(id);
                run.exclusive = queue.exclusive;
                run.begin(run.epoch + 1, moment.replica, moment.database, moment.at);
                expected.push((id, run.epoch));
            }
        }
        let found: Vec<(Uuid, i64)> = taken.iter().map(|run| (run.id, run.epoch)).collect();
        if found != expected {
            self.fail(moment, format!("took {found:?} from the queue and must take {expected:?}"));
        }
        for run in taken {
            self.say(moment.at, || format!("{} takes {} {} from the queue", moment.replica, run.job, run.run_key));
        }
    }

    pub(crate) fn recovered(&mut self, moment: Moment<'_>, recovered: &Recovered) {
        let both =
            recovered.resumed.iter().map(|row| (row, true)).chain(recovered.ended.iter().map(|row| (row, false)));
        for (row, resumed) in both {
            let name = row.job.clone();
            self.say(moment.at, || format!("{} finds {name} {} lost, goes on: {resumed}", moment.replica, row.run_key));
            let Some(run) = self.runs.get(&row.id).filter(|run| run.state == RunState::Running).cloned() else {
                self.fail(moment, format!("{name} {}: lost, and was not running", row.run_key));
                continue;
            };
            let silent = moment.at - run.renewed;
            if run.lease_until.is_none_or(|until| until >= moment.database) && silent < 29_600_000 {
                self.fail(moment, format!("{name} {}: lost after {silent} us of silence", row.run_key));
            }
            let next = run.nominal.and_then(|nominal| {
                let job = self.jobs.get(&name)?;
                job.calendar.next(job.anchor, nominal)
            });
            let mut run = run;
            run.lost += 1;
            let steady = moment.at > self.stepped + 60 * SECOND;
            let superseded = |by: i64| next.is_some_and(|next| next < moment.database + TimeDelta::seconds(by));
            let may_resume = run.lost < 3 && resumes(&name) && !(steady && superseded(-15));
            let may_end = run.lost >= 3 || !resumes(&name) || superseded(15) || !steady;
            if !(if resumed { may_resume } else { may_end }) {
                let text = format!("{name} {}: goes on is {resumed}; lost {}, next {next:?}", row.run_key, run.lost);
                self.fail(moment, text);
            }
            if resumed {
                run.attempt += 1;
                run.begin(run.epoch + 1, moment.replica, moment.database, moment.at);
            } else {
                run.epoch += 1;
                run.end(Outcome::Lost, row.reason.clone());
                self.open(row.id, false);
            }
            self.runs.insert(row.id, run);
        }
    }

    pub(crate) fn renewed(&mut self, moment: Moment<'_>, renewals: &[Renewal]) {
        for renewal in renewals {
            if self.own(moment, renewal.held, renewal.alive, "renewal") {
                let run = self.run_mut(renewal.held.id);
                run.renewed = moment.at;
                run.lease_until = Some(moment.database + TimeDelta::seconds(30));
                if renewal.cancel != run.cancel {
                    self.fail(moment, format!("a renewal says cancel is {}", renewal.cancel));
                }
            }
        }
    }

    pub(crate) fn finished(&mut self, moment: Moment<'_>, held: Held, ending: &Ending, written: bool) {
        if self.own(moment, held, written, "the end") {
            self.end(moment, held, ending);
        }
    }

    pub(crate) fn released(&mut self, moment: Moment<'_>, held: Held, given: bool) {
        if self.own(moment, held, given, "giving back") {
            self.say(moment.at, || format!("{} gives {held:?} back", moment.replica));
            self.run_mut(held.id).wait(moment.database);
        }
    }

    fn end(&mut self, moment: Moment<'_>, held: Held, ending: &Ending) {
        let run = self.runs[&held.id].clone();
        let took = moment.at - run.began;
        let timeout = Micros::try_from(TIMEOUT.as_micros()).unwrap();
        let plays = resumes(&run.job);
        let script = script(self.seed, held.id);
        let fits = match ending.outcome {
            Outcome::Succeeded if plays => matches!(script, Script::Work { batches, .. } if batches == run.effects),
            Outcome::Succeeded => true,
            Outcome::Failed if plays => script == Script::Fail,
            Outcome::Failed => run.job == "dealt",
            Outcome::Panicked => plays && script == Script::Panic,
            // A claim's run also blames the rows of an earlier pass that overran.
            Outcome::TimedOut if run.job == "dealt" && self.overran.get(moment.replica) >= Some(&run.began) => true,
            Outcome::TimedOut => took * 100 >= timeout * 98,
            Outcome::Cancelled => run.cancel,
            _ => false,
        };
        self.say(moment.at, || format!("{} ends {} {held:?}: {}", moment.replica, run.job, ending.outcome));
        if !fits {
            let what = (&run.job, ending, script, run.effects, took);
            self.fail(moment, format!("the run ended otherwise than it went: {what:?}"));
        }
        self.open(held.id, false);
        self.run_mut(held.id).end(ending.outcome, ending.reason.clone());
    }

    pub(crate) fn committed(&mut self, moment: Moment<'_>, written: &[Written]) {
        let backed = written.iter().any(|what| !matches!(what, Written::Effect(_) | Written::Window));
        let mut run = None;
        for what in written {
            match what {
                Written::End(held, _) | Written::Checkpoint(held) | Written::Wait(held, _) => {
                    self.own(moment, *held, true, "a commit");
                    run = Some(held.id);
                }
                Written::Effect(id) => {
                    if !backed {
                        self.fail(moment, format!("effect {id} without an owner"));
                    }
                    if !self.effects.insert(*id) {
                        self.fail(moment, format!("effect {id} happened twice"));
                    }
                }
                Written::Dealt(id, due) => self.dealt(moment, *id, *due),
                Written::Leased(held) => {
                    if self.leases.insert(held.id, held.epoch).is_some_and(|before| before >= held.epoch) {
                        self.fail(moment, format!("the epoch of row {} did not rise", held.id));
                    }
                }
                Written::Settled(held) => {
                    if self.leases.get(&held.id) != Some(&held.epoch) {
                        self.fail(moment, format!("row {} settled by a lease that is over", held.id));
                    }
                }
                Written::Window => {}
            }
        }
        if let Some(id) = run.filter(|id| self.runs.contains_key(id)) {
            let batch = self.runs[&id].effects;
            if written.iter().any(|what| matches!(what, Written::Effect(of) if *of == effect_of(id, batch))) {
                self.run_mut(id).effects += 1;
            }
        }
        for what in written {
            match what {
                Written::End(held, ending) => self.end(moment, *held, ending),
                Written::Wait(held, until) if self.runs.contains_key(&held.id) => self.run_mut(held.id).wait(*until),
                _ => {}
            }
        }
    }

    pub(crate) fn blamed(&mut self, moment: Moment<'_>, error: &str) {
        if error.starts_with("the batch took longer") {
            self.overran.insert(moment.replica.to_owned(), moment.at);
        }
    }

    fn dealt(&mut self, moment: Moment<'_>, id: Uuid, due: Option<Instant>) {
        if poison(id) {
            self.fail(moment, format!("poison {id} was dealt with"));
        }
        let late = moment.database - due.unwrap_or_default();
        if late < TimeDelta::zero() && moment.at > self.stepped + 60 * SECOND {
            self.fail(moment, format!("row {id} was dealt with {late} early"));
        }
        // Of a paused job an operator's run takes rows that have waited.
        let paused = self.jobs.get("dealt").is_some_and(|job| job.paused);
        if moment.at > self.disturbed + RECOVERY && !paused {
            self.punctual += 1;
            if late > LATE {
                self.fail(moment, format!("row {id} was dealt with {late} late, and no fault was near"));
            }
        }
    }

    /// Whether an effect was committed.
    pub(crate) fn took_effect(&self, id: Uuid) -> bool {
        self.effects.contains(&id)
    }

    pub(crate) fn effects(&self) -> usize {
        self.effects.len()
    }
}
