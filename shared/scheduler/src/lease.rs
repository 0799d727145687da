//! How a [`Lease`] is run: claim, ask without a transaction, settle what is still held.

mod settle;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Instant, JobError,
    behind::Behind,
    body::{Backoff, Body, Caught, Ended, Entered, Env, Kind, Passed, Watch, Why, caught},
    kinds::{Held, LEASE, Lease, LeaseTake, Leased, Run},
    ledger::{Ending, Outcome, Wake},
    store::Store,
    tick::{committed, roll_back},
    windows::Windows,
};

/// Answers are gathered for so long, or until there are [`SETTLE_ROWS`].
const SETTLE_AFTER: Duration = Duration::from_millis(5);
/// Answers a settling transaction takes at most.
const SETTLE_ROWS: usize = 1_000;
/// A row that could not be renewed for so long has its ask cancelled.
const GIVE_UP: Duration = Duration::from_secs(25);
/// A pass claims no more rows after so long; the next begins at once.
const PASS_TIME: Duration = Duration::from_secs(10);

pub(crate) struct LeaseBody<S: Store, J: Lease<S::Tx>> {
    pub(crate) name: String,
    pub(crate) job: Arc<J>,
    pub(crate) timeout: Duration,
    pub(crate) hands: Mutex<BTreeMap<Uuid, InHand>>,
    pub(crate) windows: Windows,
    pub(crate) store: std::marker::PhantomData<fn(S)>,
}

/// A row that is being asked about.
pub(crate) struct InHand {
    held: Held,
    renewed: Duration,
    drop: CancellationToken,
}

type Answered<R, A> = (Leased<R>, Result<A, JobError>);

/// What an ask came to: an answer, or the row is to be given back.
enum Asked<R, A> {
    Answer(Box<Answered<R, A>>),
    GiveBack(Held),
    /// The lease was lost meanwhile.
    Lost,
}

impl<S: Store, J: Lease<S::Tx>> LeaseBody<S, J> {
    pub(crate) fn new(name: String, job: J, timeout: Duration) -> Self {
        Self {
            name,
            job: Arc::new(job),
            timeout,
            hands: Mutex::default(),
            windows: Windows::default(),
            store: std::marker::PhantomData,
        }
    }
}

#[async_trait]
impl<S: Store, J: Lease<S::Tx>> Body<S> for LeaseBody<S, J> {
    fn kind(&self) -> Kind {
        Kind::Lease
    }

    fn wakes_when_due(&self) -> bool {
        true
    }

    async fn next_due(&self, env: &Env<S>) -> Result<Option<Instant>, JobError> {
        // Dropped, not awaited: its end goes to the server by itself, and the answer need not wait for that.
        let mut tx = env.store.begin_read().await?;
        match caught(self.job.next_due(&mut tx)).await {
            Caught::Answer(answer) => answer,
            Caught::Panicked(text) => Err(JobError::Failed(text)),
        }
    }

    /// A tick of a Lease arms rows; they are asked about by due passes.
    async fn attempt(&self, env: &Env<S>, mut run: Run, held: Held, watch: &Watch) -> Ended {
        let mut backoff = Backoff::new();
        let unit = watch.enter();
        loop {
            if watch.why() != Why::Nothing {
                return Ended::Asked;
            }
            match self.arm(env, &mut run, held, &unit).await {
                Ok(ended) => return ended,
                Err(error) if error.is_transient() => {
                    tracing::warn!(job = %run.job, run = %run.id, %error, "the store is away; arming again");
                    tokio::select! {
                        biased;
                        () = watch.stop.cancelled() => return Ended::Asked,
                        () = env.sleep(backoff.next()) => {}
                    }
                }
                Err(error) => return Ended::With(Ending::error(Outcome::Failed, error)),
            }
        }
    }

    async fn pass(&self, env: &Env<S>, wake: Wake, first: Option<Instant>, watch: &Watch) -> Passed {
        let run = Run::of_pass(&self.name, wake, env.clock.now(), watch.stop.clone());
        let mut asks = JoinSet::new();
        let mut sum = Passed::default();
        let began = env.clock.monotonic();
        let (mut gathered, mut behind) = (Vec::new(), Behind::starting_at(first));
        loop {
            let stopping = watch.why() != Why::Nothing;
            let free = self.job.slots().saturating_sub(asks.len());
            let long = env.clock.monotonic() >= began + PASS_TIME;
            // Those that were answered have left their slots: others are claimed while the answers are written.
            let more = !stopping && !long && free > 0;
            let fill = async {
                if more { self.fill(env, &run, free, &mut behind, &mut asks).await } else { Passed::default() }
            };
            let (settled, filled) = tokio::join!(self.settle(env, &run, wake, gathered, sum.lateness_ms), fill);
            sum.add(settled);
            sum.add(filled);
            // What came meanwhile with an older time is found by the read that follows a pass.
            if asks.is_empty() {
                sum.more = long && !stopping;
                return sum;
            }
            gathered = gather(env, &mut asks).await;
        }
    }

    async fn renew(&self, env: &Env<S>) {
        let held: Vec<Held> = self.in_hand(|hands| hands.values().map(|hand| hand.held).collect());
        if held.is_empty() {
            return;
        }
        match self.renewed(env, &held).await {
            Ok(kept) => {
                let now = env.clock.monotonic();
                self.in_hand(|hands| {
                    for held in kept {
                        if let Some(hand) = hands.get_mut(&held.id).filter(|hand| hand.held == held) {
                            hand.renewed = now;
                        }
                    }
                });
            }
            Err(error) => tracing::warn!(job = %self.name, %error, "leases of rows were not renewed"),
        }
        let late = env.clock.monotonic().saturating_sub(GIVE_UP);
        self.in_hand(|hands| hands.values().filter(|hand| hand.renewed < late).for_each(|hand| hand.drop.cancel()));
    }
}

/// Waits for answers: the first, and what comes within [`SETTLE_AFTER`], at most [`SETTLE_ROWS`].
async fn gather<S: Store, T: Send + 'static>(env: &Env<S>, asks: &mut JoinSet<T>) -> Vec<T> {
    let mut answers = Vec::new();
    let Some(first) = asks.join_next().await else { return answers };
    answers.extend(first.ok());
    let until = env.clock.monotonic() + SETTLE_AFTER;
    while answers.len() < SETTLE_ROWS {
        let next = tokio::select! {
            biased;
            next = asks.join_next() => next,
            () = env.clock.sleep_until(until) => None,
        };
        match next {
            Some(next) => answers.extend(next.ok()),
            None => break,
        }
    }
    answers
}

impl<S: Store, J: Lease<S::Tx>> LeaseBody<S, J> {
    /// Arms rows and ends the run, in one transaction.
    async fn arm(&self, env: &Env<S>, run: &mut Run, held: Held, unit: &Entered<'_>) -> Result<Ended, JobError> {
        let (mut tx, now) = env.begin(self.timeout).await?;
        unit.session(env.store.session(&tx));
        run.now = now;
        let armed = match caught(self.job.arm(&mut tx, run)).await {
            Caught::Answer(Ok(armed)) => i64::try_from(armed).unwrap_or(i64::MAX),
            Caught::Answer(Err(error)) => {
                roll_back(env, tx).await;
                return Err(error);
            }
            Caught::Panicked(text) => {
                roll_back(env, tx).await;
                return Ok(Ended::With(Ending::error(Outcome::Panicked, text)));
            }
        };
        match env.store.complete(&mut tx, held, &Ending::succeeded(armed)).await {
            Ok(true) => {}
            Ok(false) => {
                roll_back(env, tx).await;
                return Ok(Ended::Fenced);
            }
            Err(error) => {
                roll_back(env, tx).await;
                return Err(error.into());
            }
        }
        match env.store.commit(tx).await {
            Err(error) if committed(env, held).await != Some(true) => Err(error.into()),
            _ => Ok(Ended::Completed { items: armed }),
        }
    }

    fn in_hand<T>(&self, with: impl FnOnce(&mut BTreeMap<Uuid, InHand>) -> T) -> T {
        with(&mut self.hands.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn renewed(&self, env: &Env<S>, held: &[Held]) -> Result<Vec<Held>, JobError> {
        let (mut tx, now) = env.store.begin_control(self.timeout).await?;
        match caught(self.job.renew(&mut tx, held, now + LEASE)).await {
            Caught::Answer(Ok(kept)) => {
                env.store.commit(tx).await?;
                Ok(kept)
            }
            Caught::Answer(Err(error)) => {
                roll_back(env, tx).await;
                Err(error)
            }
            Caught::Panicked(text) => {
                roll_back(env, tx).await;
                Err(JobError::Failed(text))
            }
        }
    }

    /// Claims as many rows as there are free slots and begins to ask about them.
    async fn fill(
        &self,
        env: &Env<S>,
        run: &Run,
        free: usize,
        behind: &mut Behind,
        asks: &mut JoinSet<Asked<J::Row, J::Answer>>,
    ) -> Passed {
        let mut sum = Passed::default();
        let rows = match self.claim(env, free as u64, behind.row()).await {
            Ok(rows) => rows,
            Err(error) => {
                behind.go_on(None);
                sum.failed(&error);
                return sum;
            }
        };
        let last = rows.last().filter(|_| rows.len() == free);
        behind.go_on(last.and_then(|row| Some((row.due_at?, row.held.id))));
        let now = env.clock.now();
        for row in rows {
            let late = row.due_at.map_or(0, |due| (now - due).num_milliseconds());
            sum.lateness_ms = sum.lateness_ms.max(late);
            let drop = CancellationToken::new();
            let hand = InHand { held: row.held, renewed: env.clock.monotonic(), drop: drop.clone() };
            self.in_hand(|hands| hands.insert(row.held.id, hand));
            let (job, run, give_back) = (Arc::clone(&self.job), run.clone(), env.give_back.clone());
            let (clock, timeout) = (Arc::clone(&env.clock), self.timeout);
            asks.spawn_on(
                async move {
                    let deadline = clock.monotonic() + timeout;
                    let answer = tokio::select! {
                        biased;
                        () = drop.cancelled() => return Asked::Lost,
                        () = give_back.cancelled() => return Asked::GiveBack(row.held),
                        answer = caught(job.ask(&row, &run)) => match answer {
                            Caught::Answer(answer) => answer,
                            Caught::Panicked(text) => Err(JobError::Failed(format!("panicked: {text}"))),
                        },
                        () = clock.sleep_until(deadline) => Err(JobError::Failed(format!("no answer within {timeout:?}"))),
                    };
                    Asked::Answer(Box::new((row, answer)))
                },
                &env.work,
            );
        }
        sum
    }

    async fn claim(
        &self,
        env: &Env<S>,
        limit: u64,
        after: Option<(Instant, Uuid)>,
    ) -> Result<Vec<Leased<J::Row>>, JobError> {
        let (mut tx, now) = env.begin(self.timeout).await?;
        let take = LeaseTake { now, until: now + LEASE, owner: env.replica.clone(), limit, after };
        match caught(self.job.claim(&mut tx, &take)).await {
            Caught::Answer(Ok(rows)) => {
                env.store.commit(tx).await?;
                Ok(rows)
            }
            Caught::Answer(Err(error)) => {
                roll_back(env, tx).await;
                Err(error)
            }
            Caught::Panicked(text) => {
                roll_back(env, tx).await;
                Err(JobError::Failed(text))
            }
        }
    }
}
