//! The API of blog beside an axum handler that does the same statements, by 64 connections that stay open.
//!
//! The handler is a process of its own too, this program as `- axum URL`, with as many connections to the database.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    routing::{get, post},
};
use serde_json::{Value, json};
use service_kit::{database::Pool, http::page};
use sqlx::{Executor, PgConnection, PgPool, Row, postgres::PgRow};
use test_kit::Process;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use crate::{
    BLOG, ID, Size,
    cpu::Cpu,
    home, percentiles,
    table::{Rate, Table},
};

/// Connections that ask, one question after the other.
const CONNECTIONS: usize = 64;
/// How long one kind of question is asked.
const ASKED: Duration = Duration::from_secs(4);

/// Questions a second, and the 99th percentile of an answer's time in milliseconds.
struct Answered {
    rate: Rate,
    end: f64,
}

/// Whom to ask: where it listens, and its process; `rows` is a connection to its database.
struct Asked<'a> {
    address: &'a str,
    process: u32,
    rows: &'a mut PgConnection,
}

/// Asks by all connections for a while; `question` is told how many were asked before.
async fn ask(Asked { address, process, rows }: Asked<'_>, question: impl Fn(usize) -> String) -> Answered {
    let cpu = Cpu::of(rows).await.by(&[process]);
    let (asked, until, began) = (std::cell::Cell::new(0), Instant::now() + ASKED, Instant::now());
    let connections = (0..CONNECTIONS).map(|_| async {
        let mut took = Vec::new();
        let mut connection = TcpStream::connect(address).await.expect("it listens");
        connection.set_nodelay(true).expect("a connection");
        while Instant::now() < until {
            asked.set(asked.get() + 1);
            let began = Instant::now();
            connection.write_all(question(asked.get()).as_bytes()).await.expect("it can be asked");
            answer(&mut connection).await;
            took.push(began.elapsed().as_secs_f64() * 1_000.0);
        }
        took
    });
    let took: Vec<f64> = futures_util::future::join_all(connections).await.concat();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let count = took.len() as f64;
    let rate = Rate { rate: count / began.elapsed().as_secs_f64(), cpu: cpu.of_thousand(count) };
    Answered { rate, end: percentiles(took).1 }
}

/// Reads one answer, which must be a good one.
async fn answer(connection: &mut TcpStream) {
    let mut bytes = Vec::with_capacity(16_384);
    loop {
        let read = connection.read_buf(&mut bytes).await.expect("it answers");
        assert!(read > 0, "it closed the connection: {}", String::from_utf8_lossy(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 20"), "{text}");
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length: usize = length.expect("a length").1.parse().expect("a number");
        if body.len() >= length {
            return;
        }
    }
}

fn to_get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n")
}

fn to_post(path: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn new_post(number: usize) -> Value {
    json!({ "title": format!("A post {number}"), "slug": format!("post-{}", Uuid::now_v7().simple()), "content": "Some *words* of a post. ".repeat(10) })
}

async fn seed(rows: &mut PgConnection, posts: i32) {
    let insert = format!(
        "INSERT INTO posts (id, title, slug, content, html, status, featured, seo, reading_time, published_at, \
        version, created_at, updated_at) SELECT {ID}, 'Post ' || n, 'seed-' || n, repeat('Some words. ', 20), \
        repeat('Some words. ', 20), 'published', false, '{{}}', 1, now(), 1, now(), now() FROM generate_series(1, $1) n"
    );
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind(posts).execute(&mut *rows).await.expect("posts can be put in");
    rows.execute("VACUUM ANALYZE posts").await.expect("it can be analyzed");
}

/// The handler to compare with, in a process that ends with this value.
struct Plain {
    child: Child,
    address: String,
}

impl Plain {
    fn start(url: &str) -> Self {
        let this = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(this).args(["-", "axum", url]).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("it says where it listens");
        Self { child, address: line.trim().to_owned() }
    }

    fn asked<'a>(&'a self, rows: &'a mut PgConnection) -> Asked<'a> {
        Asked { address: &self.address, process: self.child.id(), rows }
    }
}

fn of<'a>(blog: &'a Process, rows: &'a mut PgConnection) -> Asked<'a> {
    Asked { address: &blog.api_address, process: blog.id(), rows }
}

impl Drop for Plain {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) async fn measure(table: &mut Table, size: Size) {
    let home = home().await;
    let blog = Process::start(BLOG, &home, &[("POST_PUBLISHER_ENABLED", "false")]).ready().await;
    let mut rows = home.rows("blog").await;
    seed(&mut rows, size.waiting).await;
    let plain = Plain::start(&format!("{}?options=-c%20search_path%3Dblog", home.url().expect("a database")));
    let hello = ask(plain.asked(&mut rows), |_| to_get("/hello")).await;
    table.rate("limit: axum hello, 64 connections", "requests/s", hello.rate, None);
    let seeds = usize::try_from(size.waiting).expect("a count");
    let slug = |asked: usize| format!("seed-{}", asked.wrapping_mul(7_919) % seeds + 1);
    let limit = ask(plain.asked(&mut rows), |asked| to_get(&format!("/by-slug/{}", slug(asked)))).await;
    let ours = ask(of(&blog, &mut rows), |asked| to_get(&format!("/api/blog/posts/by-slug/{}", slug(asked)))).await;
    put(table, "a post by its slug", &ours, &limit);
    let limit = ask(plain.asked(&mut rows), |_| to_get("/posts")).await;
    let first = ask(of(&blog, &mut rows), |_| to_get("/api/blog/posts?status=published")).await;
    put(table, "a list of 20, its first page", &first, &limit);
    let deep = "SELECT id FROM posts ORDER BY id DESC OFFSET (SELECT count(*) * 9 / 10 FROM posts) LIMIT 1";
    let deep: Uuid = sqlx::query_scalar(deep).fetch_one(&mut rows).await.expect("a post");
    let limit = ask(plain.asked(&mut rows), |_| to_get(&format!("/posts?before={deep}"))).await;
    let cursor = page::encode(&deep);
    let deep =
        ask(of(&blog, &mut rows), |_| to_get(&format!("/api/blog/posts?status=published&cursor={cursor}"))).await;
    put(table, "a list of 20, behind nine tenths of the posts", &deep, &limit);
    let limit = ask(plain.asked(&mut rows), |asked| to_post("/posts", &new_post(asked))).await;
    let ours = ask(of(&blog, &mut rows), |asked| to_post("/api/blog/posts", &new_post(asked))).await;
    put(table, "a post is created", &ours, &limit);
    drop(blog);
    // The handler beside it relays nothing; without a broker ours does not either.
    let off = [("POST_PUBLISHER_ENABLED", "false"), ("KAFKA_BROKERS", "127.0.0.1:1")];
    let blog = Process::start(BLOG, &home, &off).ready().await;
    let ours = ask(of(&blog, &mut rows), |asked| to_post("/api/blog/posts", &new_post(asked))).await;
    put(table, "a post is created, nothing relayed meanwhile", &ours, &limit);
}

fn put(table: &mut Table, what: &str, ours: &Answered, limit: &Answered) {
    table.rate(&format!("axum: {what}"), "requests/s", limit.rate, None);
    table.rate(what, "requests/s", ours.rate, Some((limit.rate.rate, "axum, the same statements")));
    table.put_beside(&format!("{what}, p99"), "ms", ours.end, Some((limit.end, "axum, the same statements")));
}

/// Told `- axum URL`: says where it listens, and answers until it is killed.
pub(crate) async fn as_limit(url: &str) {
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(Pool::Api.size());
    let pool = pool.connect(url).await.expect("the database answers");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let routes = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/by-slug/{slug}", get(by_slug))
        .route("/posts", get(list).merge(post(create)));
    #[expect(clippy::disallowed_methods, reason = "what it is compared with is axum as it comes")]
    axum::serve(listener, routes.with_state(pool)).await.expect("it serves");
}

const COLUMNS: &str = "id, title, slug, content, html, excerpt, status, featured, author_id, featured_image_id, seo, \
    reading_time, published_at, due_at, version, created_at, updated_at, deleted_at";

fn shown(row: &PgRow) -> Value {
    let time = |name: &str| row.get::<Option<scheduler::Instant>, _>(name);
    let text = |name: &str| row.get::<Option<String>, _>(name);
    let id = |name: &str| row.get::<Option<Uuid>, _>(name);
    json!({
        "id": id("id"), "title": text("title"), "slug": text("slug"), "content": text("content"), "html": text("html"),
        "excerpt": text("excerpt"), "status": text("status"), "scheduled": time("due_at").is_some(),
        "featured": row.get::<bool, _>("featured"), "author_id": id("author_id"), "category_ids": [], "tag_ids": [],
        "featured_image_id": id("featured_image_id"), "seo": row.get::<Value, _>("seo"),
        "reading_time": row.get::<i32, _>("reading_time"), "published_at": time("published_at"),
        "version": row.get::<i64, _>("version"), "created_at": time("created_at"), "updated_at": time("updated_at"),
        "deleted_at": time("deleted_at"),
    })
}

/// The statement by which blog finds categories and tags.
const JOINED: &str = "SELECT post_id, category_id AS other_id, 0 AS tag FROM post_categories WHERE post_id = ANY($1)
    UNION ALL SELECT post_id, tag_id, 1 FROM post_tags WHERE post_id = ANY($1) ORDER BY 2";

async fn joined(pool: &PgPool, ids: &[Uuid]) {
    sqlx::query(JOINED).bind(ids).fetch_all(pool).await.expect("rows");
}

async fn by_slug(State(pool): State<PgPool>, Path(slug): Path<String>) -> Json<Value> {
    let text = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM posts WHERE slug = $1 AND deleted_at IS NULL"));
    let row = sqlx::query(text).bind(slug).fetch_one(&pool).await.expect("the post");
    joined(&pool, &[row.get("id")]).await;
    Json(shown(&row))
}

#[derive(serde::Deserialize)]
struct Before {
    before: Option<Uuid>,
}

async fn list(State(pool): State<PgPool>, Query(Before { before }): Query<Before>) -> Json<Value> {
    let after = if before.is_some() { "AND id < $1" } else { "AND $1::uuid IS NULL" };
    let text = format!(
        "SELECT {COLUMNS} FROM posts WHERE status = 'published' AND deleted_at IS NULL {after} ORDER BY id DESC LIMIT 21"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(before).fetch_all(&pool).await.expect("rows");
    joined(&pool, &rows.iter().map(|row| row.get("id")).collect::<Vec<Uuid>>()).await;
    Json(json!({ "items": rows.iter().take(20).map(shown).collect::<Vec<_>>() }))
}

async fn create(State(pool): State<PgPool>, Json(new): Json<Value>) -> Json<Value> {
    let mut tx = pool.begin().await.expect("a transaction");
    let text = |name: &str| new[name].as_str().unwrap_or_default().to_owned();
    let turn = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    sqlx::query(turn).bind(text("slug")).execute(&mut *tx).await.expect("a turn");
    let taken = "SELECT id, slug FROM posts WHERE slug = $1";
    sqlx::query(taken).bind(text("slug")).fetch_all(&mut *tx).await.expect("slugs");
    let (id, insert) = (
        Uuid::now_v7(),
        format!(
            "INSERT INTO posts (id, title, slug, content, html, status, featured, seo, reading_time, version, created_at, \
         updated_at) VALUES ($1, $2, $3, $4, $4, 'draft', false, '{{}}', 1, 1, now(), now()) RETURNING {COLUMNS}"
        ),
    );
    let insert =
        sqlx::query(sqlx::AssertSqlSafe(insert)).bind(id).bind(text("title")).bind(text("slug")).bind(text("content"));
    let row = insert.fetch_one(&mut *tx).await.expect("a post");
    let record = "WITH said AS (INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at) \
        VALUES ($1, 'blog.post.created', $2, 1, $3, '[]', now()) RETURNING position, key) \
        INSERT INTO outbox_waiting SELECT position, key FROM said";
    let record =
        sqlx::query(record).bind(Uuid::now_v7()).bind(id.to_string()).bind(shown(&row).to_string().into_bytes());
    record.execute(&mut *tx).await.expect("an event");
    sqlx::query(JOINED).bind([id]).fetch_all(&mut *tx).await.expect("rows");
    tx.commit().await.expect("a commit");
    Json(shown(&row))
}
