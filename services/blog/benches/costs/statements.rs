//! Statements and rows of one pass over due posts, as the database driver tells them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use blog::jobs::PublishDuePosts;
use migrations::blog::Migrator;
use scheduler::{
    Job, Scheduler,
    clock::{Clock, ManualClock},
    config::JobSettings,
    schedule::Spec,
    store::sql::{SqlStore, Time},
};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, Statement};
use sea_orm_migration::MigratorTrait;
use tracing::field::{Field, Visit};
use tracing_subscriber::{Layer, layer::SubscriberExt};

use crate::committed::Costs;

/// Posts that are due.
const POSTS: u64 = 1_000;

/// Counts what the driver tells of each statement.
#[derive(Clone, Default)]
struct Counted {
    statements: Arc<AtomicU64>,
    rows: Arc<AtomicU64>,
}

impl<S: tracing::Subscriber> Layer<S> for Counted {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            self.statements.fetch_add(1, Ordering::Relaxed);
            event.record(&mut Rows(&self.rows));
        }
    }
}

struct Rows<'a>(&'a AtomicU64);

impl Visit for Rows<'_> {
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}

    fn record_u64(&mut self, field: &Field, value: u64) {
        if matches!(field.name(), "rows_affected" | "rows_returned") {
            self.0.fetch_add(value, Ordering::Relaxed);
        }
    }
}

async fn connected(url: &str, logged: bool) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(4).sqlx_logging(logged);
    Database::connect(options).await.expect("the database answers")
}

async fn due(db: &DatabaseConnection) -> i64 {
    let count =
        Statement::from_string(db.get_database_backend(), "SELECT count(*) FROM posts WHERE due_at IS NOT NULL");
    db.query_one_raw(count).await.expect("a count").expect("a row").try_get_by_index(0).expect("a number")
}

/// A pass of the publisher over 1,000 due posts on PostgreSQL, from the hint to when nothing is due.
pub(crate) async fn of_a_pass() -> Costs {
    let url = test_kit::database().await;
    let outside = connected(&url, false).await;
    Migrator::up(&outside, None).await.expect("the tables can be made");
    let clock = ManualClock::at("2026-06-01T00:00:00Z".parse().expect("a time"));
    let counted = Counted::default();
    let telling = tracing_subscriber::registry().with(counted.clone());
    tracing::subscriber::set_global_default(telling).expect("nobody else tells");
    let db = connected(&url, true).await;
    let time = Arc::clone(&clock) as Arc<dyn Clock>;
    let store = SqlStore::new(db.clone(), db, "costs", Time::Clock(Arc::clone(&time)), Arc::clone(&time), None);
    let spec = Spec::every(Duration::from_secs(86_400));
    let settings = JobSettings { run_on_start: false, spec: spec.clone(), ..JobSettings::of(spec.schedule) };
    let job = Job::claim("post_publisher", "", settings, PublishDuePosts);
    let running = Scheduler::new("costs", store, time).job(job).start();
    let quiet = async || {
        let mut seen = u64::MAX;
        test_kit::eventually("the runner has nothing to do", async || {
            let now = counted.statements.load(Ordering::Relaxed);
            (std::mem::replace(&mut seen, now) == now).then_some(())
        })
        .await;
    };
    quiet().await;
    let insert = format!(
        "INSERT INTO posts (id, title, slug, content, html, status, featured, seo, reading_time, published_at, due_at,
             version, created_at, updated_at)
         SELECT gen_random_uuid(), 'Post ' || n, 'post-' || n, 'text', '<p>text</p>', 'draft', false, '{{}}', 1, at, at, 1,
             at, at FROM generate_series(1, {POSTS}) n, (SELECT timestamptz '2026-05-31 00:00:00Z' AS at) AS x"
    );
    outside.execute_unprepared(&insert).await.expect("posts can be put in");
    let (statements, rows) = (counted.statements.load(Ordering::Relaxed), counted.rows.load(Ordering::Relaxed));
    running.handle().changed();
    test_kit::eventually("all posts are published", async || {
        // Hints are gathered for a moment; what is timed by seconds stays out of the count.
        clock.advance(Duration::from_millis(1));
        (due(&outside).await == 0).then_some(())
    })
    .await;
    quiet().await;
    let told = |counter: &AtomicU64, before: u64| {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let count = (counter.load(Ordering::Relaxed) - before) as f64;
        count
    };
    let costs = Costs::from([
        ("a pass of 1,000 posts: statements".to_owned(), told(&counted.statements, statements)),
        ("a pass of 1,000 posts: rows".to_owned(), told(&counted.rows, rows)),
    ]);
    running.stop(Duration::ZERO).await;
    costs
}
