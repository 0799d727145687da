//! When things run: schedules, a ledger, leases, and the runner that five kinds of job share.
//!
//! # The promise
//!
//! Everything that is due takes effect on time, once, and one can see it:
//!
//! 1. Every nominal instant of a schedule gets exactly one row in the ledger, which says what became of it: it ran
//!    (`succeeded`, `failed`, `timed_out`, `panicked`, ...) or why it did not (`missed`, `coalesced`, `skipped_overlap`,
//!    `paused`, `disabled`).
//! 2. Of all replicas one decides, by compare-and-set on the schedule's epoch; a unique key in the ledger is the second lock.
//! 3. A run belongs to its owner until the lease ends. Whoever takes it over raises its epoch, and every later write of
//!    the old owner is refused in the same transaction as its effect.
//! 4. A [`kinds::Claim`] changes each due row once: the change, its events and the ledger are one transaction.
//! 5. Hints (a commit here, a notification from there) only make things earlier. Without any, the sweep finds what is due
//!    within 5 s.
//! 6. What decides is the database's time; the process only estimates it in order to sleep.
//!
//! # A run's life
//!
//! ```text
//!                     decide (epoch CAS)                    effect and end in one transaction
//!   schedule ──────────────┬───────────────► running ─────────────────────────────► done: outcome
//!                          │                 ▲  │  │
//!        operator, buffer, │   taken by one  │  │  └─ lease ended: another replica, epoch + 1
//!        backfill          ▼                 │  │     (Tick, Steps: it goes on from its cursor;
//!                        queued ─────────────┘  │      the third loss is final)
//!                          ▲                    │
//!                          └────────────────────┘ stop: given back, attempt not counted
//! ```
//!
//! # Which kind
//!
//! | kind | you write | promised |
//! |---|---|---|
//! | [`kinds::Tick`] | a bounded batch, with a cursor | one run for each instant in the whole cluster |
//! | [`kinds::Claim`] | which rows are due, and the change | each due row once, with its events |
//! | [`kinds::Lease`] | a question to the outside world, and the settling | at least once, fenced; no transaction while asking |
//! | [`kinds::Steps`] | a question and a settling for each step | one long run with a checkpoint, resumed after a crash |
//! | [`kinds::Local`] | work on this process's memory | a run on every replica |
//!
//! # An example
//!
//! A reminder is due in two seconds. The interval of its job is a day: the job says when the next row falls due, and the
//! runner wakes then.
//!
//! ```
//! use std::time::Duration;
//!
//! use async_trait::async_trait;
//! use scheduler::{
//!     Instant, Job, JobError, Scheduler,
//!     clock::{Clock, ManualClock},
//!     config::JobSettings,
//!     kinds::{Claim, Run, Take},
//!     schedule::Spec,
//!     store::memory::{DueRow, DueTable, MemoryStore, MemoryTx},
//! };
//! use uuid::Uuid;
//!
//! const REMINDERS: DueTable = DueTable("reminders");
//!
//! struct SendReminders;
//!
//! #[async_trait]
//! impl Claim<MemoryTx> for SendReminders {
//!     type Row = DueRow;
//!
//!     fn id(&self, row: &DueRow) -> Uuid {
//!         row.id
//!     }
//!
//!     fn due_at(&self, row: &DueRow) -> Option<Instant> {
//!         row.due_at
//!     }
//!
//!     async fn take(&self, tx: &mut MemoryTx, take: &Take) -> Result<Vec<DueRow>, JobError> {
//!         Ok(REMINDERS.take(tx, take))
//!     }
//!
//!     async fn act(&self, tx: &mut MemoryTx, rows: Vec<DueRow>, run: &Run) -> Result<(), JobError> {
//!         for row in rows {
//!             REMINDERS.put(tx, DueRow { due_at: None, data: run.now.to_rfc3339().into(), ..row });
//!         }
//!         Ok(())
//!     }
//!
//!     fn wakes_when_due(&self) -> bool {
//!         true
//!     }
//!
//!     async fn next_due(&self, tx: &mut MemoryTx) -> Result<Option<Instant>, JobError> {
//!         Ok(REMINDERS.next_due(tx, "send_reminders"))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let clock = ManualClock::at("2026-06-01T12:00:00Z".parse().unwrap());
//! let store = MemoryStore::new(clock.clone());
//! let due_at = Some("2026-06-01T12:00:02Z".parse().unwrap());
//! store.put(REMINDERS, DueRow { id: Uuid::now_v7(), due_at, ..DueRow::default() });
//!
//! let settings = JobSettings::of(Spec::every(Duration::from_secs(86_400)).schedule);
//! let job = Job::claim("send_reminders", "sends reminders that are due", settings, SendReminders);
//! let running = Scheduler::new("example", store.clone(), clock.clone()).job(job).start();
//!
//! while store.rows(REMINDERS)[0].due_at.is_some() {
//!     tokio::task::yield_now().await;
//!     clock.advance(Duration::from_millis(1));
//! }
//! assert!((clock.now() - due_at.unwrap()).num_milliseconds() < 10);
//! let runs = running.handle().runs("send_reminders", None, Vec::new(), 1).await.unwrap();
//! assert_eq!((runs[0].wake_source.as_str(), runs[0].items), ("due", 1));
//! # });
//! ```

mod behind;
mod body;
mod claim;
pub mod clock;
pub mod config;
pub mod control;
mod error;
mod job;
pub mod kinds;
mod lease;
pub mod ledger;
mod local;
pub mod metrics;
pub mod policy;
mod runner;
pub mod schedule;
mod steps;
pub mod store;
pub mod tables;
mod tick;
mod windows;

pub use body::Kind;
pub use control::{Handle, Refused};
pub use error::{JobError, StoreError};
pub use job::Job;
pub use ledger::Instant;
pub use runner::{Running, Scheduler, Stopped};
