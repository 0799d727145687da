//! How many due posts a second are published with their events, and how many events a second leave for Kafka.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use broker::{Broker, KafkaBroker, KafkaConfig, Record, Topic};
use outbox::{Relay, RelayConfig, RelayHandle, Store};
use sqlx::{Connection, Executor, PgConnection};
use test_kit::{Home, Process, eventually_within};
use uuid::Uuid;

use crate::{
    BLOG, ID, Size,
    burn::ROWS_A_SECOND,
    cpu::Cpu,
    home,
    table::{Rate, Table},
};

/// Rows a batch of the limit has; the job's own batches are as large.
const BATCH: i64 = 1_000;
/// Records that the producer alone is given at once.
const TOGETHER: i64 = 10_000;

async fn seed(rows: &mut PgConnection, posts: i32) {
    let insert = format!(
        "INSERT INTO posts (id, title, slug, content, html, status, featured, seo, reading_time, published_at, \
        due_at, version, created_at, updated_at) SELECT {ID}, 'Post ' || n, 'seed-' || n, 'text', \
        '<p>text</p>', 'draft', false, '{{}}', 1, now(), now(), 1, now(), now() FROM generate_series(1, $1) n"
    );
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind(posts).execute(&mut *rows).await.expect("posts can be put in");
    rows.execute("ANALYZE posts").await.expect("it can be analyzed");
}

/// A home whose tables are there.
async fn made() -> Home {
    let home = home().await;
    let mut blog = Process::start(BLOG, &home, &[("POST_PUBLISHER_ENABLED", "false")]).ready().await;
    blog.signal(test_kit::Signal::Terminate);
    blog.ended(Duration::from_secs(30));
    home
}

fn rate(rows: i32, seconds: f64) -> f64 {
    f64::from(rows) / seconds
}

/// The same by plain SQL, one connection: lock a batch, update it, insert two events a row.
async fn limit(size: Size) -> Rate {
    let home = made().await;
    let mut rows = home.rows("blog").await;
    seed(&mut rows, size.burst).await;
    let cpu = Cpu::of(&mut rows).await;
    let began = Instant::now();
    loop {
        let mut tx = rows.begin().await.expect("a transaction");
        let take = "SELECT id, title, slug FROM posts WHERE due_at <= now() ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED";
        let due: Vec<(sqlx::types::Uuid, String, String)> =
            sqlx::query_as(take).bind(BATCH).fetch_all(&mut *tx).await.expect("rows");
        if due.is_empty() {
            break;
        }
        let ids: Vec<sqlx::types::Uuid> = due.iter().map(|(id, ..)| *id).collect();
        let change = "UPDATE posts SET status = 'published', due_at = NULL, version = version + 1, updated_at = now() WHERE id = ANY($1)";
        sqlx::query(change).bind(&ids).execute(&mut *tx).await.expect("a change");
        let (mut topics, mut bodies, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for (id, title, slug) in &due {
            for topic in ["blog.post.published", "blog.post.scheduled.published"] {
                topics.push(topic);
                keys.push(id.to_string());
                bodies.push(
                    format!("{:>400}", format!("{{\"post_id\":\"{id}\",\"title\":\"{title}\",\"slug\":\"{slug}\"}}"))
                        .into_bytes(),
                );
            }
        }
        let record = format!(
            "WITH said AS (INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at) \
            SELECT {ID}, t, k, 2, b, '[]', now() FROM unnest($1::text[], $2::text[], $3::bytea[]) WITH ORDINALITY AS x (t, k, b, n) \
            RETURNING position, key) INSERT INTO outbox_waiting SELECT position, key FROM said"
        );
        sqlx::query(sqlx::AssertSqlSafe(record))
            .bind(&topics)
            .bind(&keys)
            .bind(&bodies)
            .execute(&mut *tx)
            .await
            .expect("events");
        tx.commit().await.expect("a commit");
    }
    let rate = rate(size.burst, began.elapsed().as_secs_f64());
    Rate { rate, cpu: cpu.of_thousand(f64::from(size.burst)) }
}

/// By replicas of blog: from the first change to the last. Their processor time is that since their start.
async fn published(size: Size, replicas: usize) -> (Rate, i64) {
    let home = made().await;
    let mut rows = home.rows("blog").await;
    seed(&mut rows, size.burst).await;
    let blogs: Vec<Process> = (0..replicas).map(|_| Process::start(BLOG, &home, &[])).collect();
    let cpu = Cpu::of(&mut rows).await.by(&blogs.iter().map(Process::id).collect::<Vec<_>>());
    eventually_within(Duration::from_secs(300), "all posts are published", async || {
        // The last in the order in which they are taken: it costs nothing to look at, as counting them would.
        let last = "SELECT id FROM posts WHERE due_at IS NOT NULL ORDER BY due_at DESC, id DESC LIMIT 1";
        let last: Option<Uuid> = sqlx::query_scalar(last).fetch_optional(&mut rows).await.expect("an answer");
        last.is_none().then_some(())
    })
    .await;
    let cpu = cpu.of_thousand(f64::from(size.burst));
    let took = "SELECT extract(epoch FROM max(updated_at) - min(updated_at))::float8 FROM posts";
    let took: f64 = sqlx::query_scalar(took).fetch_one(&mut rows).await.expect("a time");
    let memory = blogs.iter().map(|blog| resident_kib(blog.id())).max().unwrap_or(0);
    // The last batch began at its time and took as long as any.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let batches = f64::from(size.burst) / BATCH as f64;
    (Rate { rate: rate(size.burst, took * batches / (batches - 1.0).max(1.0)), cpu }, memory)
}

/// Resident memory of a process in KiB.
pub(crate) fn resident_kib(process: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

pub(crate) async fn measure(table: &mut Table, size: Size) {
    let limit = limit(size).await;
    table.rate("plain SQL, due posts with two events each, 1 connection", ROWS_A_SECOND, limit, None);
    let (one, memory) = published(size, 1).await;
    let beside = Some((limit.rate, "plain SQL, 1 connection"));
    table.rate("due posts published with two events each, 1 replica", ROWS_A_SECOND, one, beside);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    table.put("memory of that replica afterwards", "MiB", memory as f64 / 1024.0);
    let (three, _) = published(size, 3).await;
    table.rate("the same, 3 replicas", ROWS_A_SECOND, three, Some((one.rate, "1 replica")));
}

/// Events that wait in an outbox, sent and marked by the relay, beside the same payloads sent by the same client alone.
pub(crate) async fn relayed(table: &mut Table, size: Size) {
    let home = made().await;
    let mut rows = home.rows("blog").await;
    let events = i64::from(size.burst) * 2;
    let fill = format!(
        "WITH said AS (INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at) \
        SELECT {ID}, 'blog.post.published', (n % 5000)::text, n, convert_to(repeat('x', 600), 'UTF8'), \
        '[[\"event_type\", \"blog.post.published\"]]', now() FROM generate_series(1, $1) n \
        RETURNING position, key) INSERT INTO outbox_waiting SELECT position, key FROM said"
    );
    sqlx::query(sqlx::AssertSqlSafe(fill)).bind(events).execute(&mut rows).await.expect("events can be put in");
    rows.execute("ANALYZE outbox, outbox_waiting").await.expect("it can be analyzed");
    let kafka = KafkaBroker::new(KafkaConfig::new(&test_kit::kafka())).expect("a client");
    let topic = Topic::from(events::by_name("blog.post.published").expect("a type"));
    kafka.producer().ensure_topics(&[topic]).await.expect("topics");
    let url = format!("{}?options=-c%20search_path%3Dblog", home.url().expect("a database"));
    let db = sea_orm::Database::connect(url).await.expect("the database answers");
    let raw = raw_producer(&kafka, events).await;
    #[expect(clippy::disallowed_methods, reason = "the relay's clock is the machine's here")]
    let now = Arc::new(chrono::Utc::now);
    let mut relay =
        Relay::new("blog", Store::new(db), kafka.producer(), RelayConfig::default(), now, RelayHandle::default());
    let cpu = Cpu::of(&mut rows).await;
    let began = Instant::now();
    relay.drain().await.expect("it can be emptied");
    let took = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let events = events as f64;
    let rate = Rate { rate: events / took, cpu: cpu.of_thousand(events) };
    table.rate("the producer alone", "events/s", raw, None);
    table.rate("outbox to Kafka, sent and marked", "events/s", rate, Some((raw.rate, "the producer alone")));
}

/// The same payloads by the same client, which reads no database and marks nothing; as much at once as its queue takes.
async fn raw_producer(kafka: &KafkaBroker, events: i64) -> Rate {
    let (producer, mut seconds, cpu) = (kafka.producer(), 0.0, Cpu::here());
    for batch in 0..events / TOGETHER {
        let records = (0..TOGETHER).map(|number| Record {
            id: Uuid::now_v7(),
            topic: "blog.post.published".to_owned(),
            key: ((batch * TOGETHER + number) % 5_000).to_string(),
            body: vec![b'x'; 600].into(),
            headers: vec![("event_type".to_owned(), b"blog.post.published".to_vec())],
        });
        let records = records.collect();
        let began = Instant::now();
        assert!(producer.send(records).await.iter().all(Result::is_ok), "they are sent");
        seconds += began.elapsed().as_secs_f64();
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let events = events as f64;
    Rate { rate: events / seconds, cpu: cpu.of_thousand(events) }
}
