//! Settling: answers of rows that are still held are written, the rest is given back.

use super::{Answered, Asked, LeaseBody};
use crate::{
    JobError,
    body::{Caught, Env, Passed, caught},
    kinds::{Held, Lease, Run},
    ledger::Wake,
    store::{Store, Window},
    tick::roll_back,
};

impl<S: Store, J: Lease<S::Tx>> LeaseBody<S, J> {
    /// Writes the answers of rows still held and gives back the rest.
    pub(super) async fn settle(
        &self,
        env: &Env<S>,
        run: &Run,
        wake: Wake,
        gathered: Vec<Asked<J::Row, J::Answer>>,
        lateness_ms: i64,
    ) -> Passed {
        let mut sum = Passed::default();
        let (mut answers, mut back, mut lost) = (Vec::new(), Vec::new(), 0);
        for asked in gathered {
            match asked {
                Asked::Answer(answered) => answers.push(*answered),
                Asked::GiveBack(held) => back.push(held),
                Asked::Lost => lost += 1,
            }
        }
        self.fenced(env, lost);
        let mut parts = vec![(&answers[..], &back[..])];
        while let Some((answers, back)) = parts.pop() {
            match self.write(env, run, wake, answers, back, lateness_ms).await {
                Ok(items) => sum.items += items,
                Err(error) if !error.is_transient() && answers.len() > 1 => {
                    let (left, right) = answers.split_at(answers.len() / 2);
                    parts.extend([(left, back), (right, &[][..])]);
                }
                Err(error) => {
                    // The rows stay leased; when the lease ends they are due again with the same attempt number.
                    tracing::warn!(job = %self.name, %error, "an answer was not settled; its row is due again when the lease ends");
                    sum.failed(&error);
                }
            }
        }
        self.in_hand(|hands| {
            for held in answers.iter().map(|(row, _)| row.held).chain(back.iter().copied()) {
                // One that is due again at once may have been claimed again, under its next epoch.
                if hands.get(&held.id).is_some_and(|hand| hand.held == held) {
                    hands.remove(&held.id);
                }
            }
        });
        sum
    }

    fn fenced(&self, env: &Env<S>, rows: u64) {
        if rows > 0 {
            crate::metrics::fenced(&env.service, &self.name, rows);
        }
    }

    /// One transaction: lock the survivors, settle those, release, write down. How many were settled.
    async fn write(
        &self,
        env: &Env<S>,
        run: &Run,
        wake: Wake,
        answers: &[Answered<J::Row, J::Answer>],
        back: &[Held],
        lateness_ms: i64,
    ) -> Result<i64, JobError> {
        if answers.is_empty() && back.is_empty() {
            return Ok(0);
        }
        let (mut tx, now) = env.begin(self.timeout).await?;
        let mut run = run.clone();
        run.now = now;
        match caught(self.in_tx(env, &mut tx, &run, wake, answers, back, lateness_ms)).await {
            Caught::Answer(Ok(items)) => {
                env.store.commit(tx).await?;
                Ok(items)
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

    #[expect(clippy::too_many_arguments, reason = "one transaction's worth of facts, used here only")]
    async fn in_tx(
        &self,
        env: &Env<S>,
        tx: &mut S::Tx,
        run: &Run,
        wake: Wake,
        answers: &[Answered<J::Row, J::Answer>],
        back: &[Held],
        lateness_ms: i64,
    ) -> Result<i64, JobError> {
        let held: Vec<Held> = answers.iter().map(|(row, _)| row.held).collect();
        let survivors = if held.is_empty() { Vec::new() } else { self.job.lock(tx, &held).await? };
        let items = i64::try_from(survivors.len()).unwrap_or(i64::MAX);
        self.fenced(env, (held.len() - survivors.len()) as u64);
        if survivors.len() == held.len() {
            if !answers.is_empty() {
                self.job.settle(tx, answers, run).await?;
            }
        } else {
            self.settle_survivors(tx, answers, &survivors, run).await?;
        }
        if !back.is_empty() {
            self.job.release(tx, back, run.now).await?;
        }
        let (window, started_at, wake) = self.windows.at(env, wake, run.now);
        let (job, owner) = (self.name.clone(), env.replica.clone());
        let window = Window { job, run: window, owner, wake, started_at, items, lateness_ms };
        env.store.window(tx, &window).await?;
        Ok(items)
    }

    /// The rare case: some leases were lost, so runs of neighbours that are still held are settled.
    async fn settle_survivors(
        &self,
        tx: &mut S::Tx,
        answers: &[Answered<J::Row, J::Answer>],
        survivors: &[Held],
        run: &Run,
    ) -> Result<(), JobError> {
        for ours in answers.split(|(row, _)| !survivors.contains(&row.held)).filter(|ours| !ours.is_empty()) {
            self.job.settle(tx, ours, run).await?;
        }
        Ok(())
    }
}
