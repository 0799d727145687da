//! How late a planned post is published while many others wait, and how long a post that is due at once takes.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgConnection;
use test_kit::{Home, Process, eventually_within};

use crate::{BLOG, ID, Size, home, limits, percentiles, table::Table};

/// Only the exact wake-up can be in time with this.
const RARELY: &[(&str, &str)] = &[("POST_PUBLISHER_INTERVAL", "24h")];

#[expect(clippy::disallowed_methods, reason = "posts are planned for the real clock")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The id of a post that is due then.
async fn plan(blog: &Process, title: &str, at: DateTime<Utc>) -> String {
    let post = json!({ "title": title, "published_at": at.to_rfc3339() });
    let planned = blog.api.post_json("/api/blog/posts", &post).await.expect(201);
    planned.json["id"].as_str().expect("an id").to_owned()
}

/// Milliseconds between two columns of these posts, once all of them are published. It asks by their ids: a question that
/// reads a million rows would take both cores from those that publish.
async fn between(rows: &mut PgConnection, posts: &[String], from: &str) -> Vec<f64> {
    let question = format!(
        "SELECT extract(epoch FROM updated_at - {from})::float8 * 1000 FROM posts \
            WHERE id = ANY ($1::text[]::uuid[]) AND status = 'published'"
    );
    eventually_within(Duration::from_secs(60), "the posts are published", async || {
        let found: Vec<f64> = sqlx::query_scalar(sqlx::AssertSqlSafe(question.clone()))
            .bind(posts)
            .fetch_all(&mut *rows)
            .await
            .expect("lateness");
        (found.len() == posts.len()).then_some(found)
    })
    .await
}

pub(crate) async fn measure(table: &mut Table, size: Size) {
    embedded(table, size).await;
    let home = home().await;
    let blog = Process::start(BLOG, &home, RARELY).ready().await;
    let mut rows = home.rows("blog").await;
    let trip = percentiles(limits::round_trips(&mut rows).await).0;
    table.put("round trip to the database, p50", "ms", trip);
    for waiting in [1_000, size.waiting] {
        let have: i64 = sqlx::query_scalar("SELECT count(*) FROM posts").fetch_one(&mut rows).await.expect("a count");
        let later = format!(
            "INSERT INTO posts (id, title, slug, content, html, status, featured, seo, reading_time, published_at, \
            due_at, version, created_at, updated_at) SELECT {ID}, 'Later ' || n, 'later-' || n, 'text', \
            '<p>text</p>', 'draft', false, '{{}}', 1, now() + '1 year', now() + '1 year' + n * interval '1 ms', 1, now(), now() \
            FROM generate_series($1 + 1, $2) n"
        );
        sqlx::query(sqlx::AssertSqlSafe(later))
            .bind(i32::try_from(have).unwrap_or(0))
            .bind(waiting)
            .execute(&mut rows)
            .await
            .expect("posts");
        // They have waited for long: what putting them in left to do for the server is done.
        for rest in ["VACUUM (ANALYZE) posts", "CHECKPOINT"] {
            sqlx::query(rest).execute(&mut rows).await.expect("it comes to rest");
        }
        let first = now() + TimeDelta::seconds(3);
        let mut posts = Vec::new();
        for number in 0..size.samples {
            let at = first + TimeDelta::milliseconds(17 * i64::try_from(number).unwrap_or(0));
            posts.push(plan(&blog, &format!("Planned among {waiting} #{number}"), at).await);
        }
        let (middle, end) = percentiles(between(&mut rows, &posts, "published_at").await);
        let name = format!("lateness of a planned post, {waiting} waiting");
        table.put(&format!("{name}, p50"), "ms", middle);
        table.put_beside(&format!("{name}, p99"), "ms", end, Some((trip, "round trip")));
    }
    table.put_beside(
        "lateness, planned through another replica, p99",
        "ms",
        elsewhere(&home, &mut rows, size).await,
        Some((trip, "round trip")),
    );
    let mut done = Vec::new();
    for number in 0..size.samples {
        let post = plan(&blog, &format!("At once #{number}."), now() - TimeDelta::seconds(1)).await;
        done.extend(between(&mut rows, &[post], "created_at").await);
    }
    let (middle, end) = percentiles(done);
    table.put("from the commit of a due post to its publication, p50", "ms", middle);
    table.put_beside("from the commit of a due post to its publication, p99", "ms", end, Some((trip, "round trip")));
}

/// The posts are planned through a replica that publishes nothing; the one that does must hear of them.
async fn elsewhere(home: &Home, rows: &mut PgConnection, size: Size) -> f64 {
    let told = Process::start(BLOG, home, &[("POST_PUBLISHER_ENABLED", "false")]).ready().await;
    let mut posts = Vec::new();
    for number in 0..size.samples {
        // Two seconds ahead each, one after another: every one has to cross.
        posts.push(plan(&told, &format!("Planned elsewhere #{number}"), now() + TimeDelta::seconds(2)).await);
    }
    percentiles(between(rows, &posts, "published_at").await).1
}

/// The same on SQLite and the embedded log, as the API tells it.
async fn embedded(table: &mut Table, size: Size) {
    let home = Home::embedded();
    let blog = Process::start(BLOG, &home, RARELY).ready().await;
    let first = now() + TimeDelta::seconds(3);
    for number in 0..size.samples {
        plan(&blog, "Planned", first + TimeDelta::milliseconds(17 * i64::try_from(number).unwrap_or(0))).await;
    }
    let late = eventually_within(Duration::from_secs(60), "the posts are published", async || {
        let (mut late, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = blog.api.get(&format!("/api/blog/posts?status=published&limit=100{cursor}")).await.json;
            for post in page["items"].as_array().into_iter().flatten() {
                let at = |field: &str| post[field].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok());
                let (planned, done) = (at("published_at")?, at("updated_at")?);
                late.push((done - planned).as_seconds_f64() * 1000.0);
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        (late.len() == size.samples).then_some(late)
    })
    .await;
    let (middle, end) = percentiles(late);
    table.put("lateness of a planned post, embedded, p50", "ms", middle);
    table.put("lateness of a planned post, embedded, p99", "ms", end);
}
