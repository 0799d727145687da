//! A trace goes on from the request to the row to the event, and to a collector where one is configured.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Bytes, extract::State, routing::post};
use reqwest::Method;
use serde_json::json;
use test_kit::{Home, Process, Recorded, eventually};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{BLOG, blog, in_ms, made, plain};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn trace_of(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn an_event_belongs_to_the_trace_of_its_request() {
    let home = Home::servers().await;
    let mut events = Recorded::of(&["blog.post.created"]).await;
    let blog = blog(&home).await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let headers = [("content-type", "application/json"), ("traceparent", parent.as_str())];
    let body = plain("Traced").to_string();
    let post = blog.api.send(Method::POST, "/api/blog/posts", &headers, Some(&body)).await.expect(201).json;
    let key = post["id"].as_str().expect("an id");
    let all = events.until(Duration::from_secs(20), |all| all.iter().any(|message| message.key == key)).await;
    let message = all.iter().find(|message| message.key == key).expect("the event");
    let header = message.headers.iter().find(|(name, _)| name == "traceparent").expect("a trace context");
    assert_eq!(trace_of(&String::from_utf8_lossy(&header.1)), TRACE);
    let event = events::Event::from_json(&message.body).expect("an event");
    assert_eq!(trace_of(&event.traceparent.expect("a trace context")), TRACE, "in the envelope too");
}

#[tokio::test]
async fn what_the_clock_does_is_a_trace_of_its_own_that_both_events_of_a_post_share() {
    let home = Home::servers().await;
    let mut events = Recorded::of(&["blog.post.published", "blog.post.scheduled.published"]).await;
    let blog = blog(&home).await;
    let post = made(&blog, json!({ "title": "Ticked", "published_at": in_ms(500) })).await;
    let key = post["id"].as_str().expect("an id");
    events.until(Duration::from_secs(20), |all| all.iter().filter(|message| message.key == key).count() == 2).await;
    let told = events.by_key().remove(key).expect("events");
    let traces: Vec<String> = told.iter().map(|event| event.traceparent.clone().expect("a trace context")).collect();
    assert_eq!(trace_of(&traces[0]), trace_of(&traces[1]));
    assert!(trace_of(&traces[0]).bytes().any(|byte| byte != b'0'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_a_collector_and_one_that_is_away_changes_nothing() {
    let received: Arc<Mutex<Vec<u8>>> = Arc::default();
    let collect = |State(received): State<Arc<Mutex<Vec<u8>>>>, body: Bytes| async move {
        received.lock().await.extend_from_slice(&body);
    };
    let app = Router::new().route("/v1/traces", post(collect)).with_state(Arc::clone(&received));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let stop = CancellationToken::new();
    let serving = service_kit::http::server::serve(listener, app, stop.clone(), Duration::ZERO);
    #[expect(clippy::disallowed_methods, reason = "the stub's own server, ended with the test")]
    let serving = tokio::spawn(serving);

    let home = Home::embedded();
    let blog = Process::start(BLOG, &home, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).ready().await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    blog.api.send(Method::GET, "/api/blog/posts", &[("traceparent", &parent)], None).await.expect(200);
    let trace: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&TRACE[at * 2..at * 2 + 2], 16).expect("hex")).collect();
    eventually("the request's span arrives", async || {
        let received = received.lock().await;
        received.windows(16).any(|bytes| bytes == trace).then_some(())
    })
    .await;
    let text = String::from_utf8_lossy(&received.lock().await).into_owned();
    assert!(text.contains("/api/blog/posts") && text.contains("blog"), "the span says which route of which service");
    stop.cancel();
    serving.await.expect("the stub ends");
    blog.api.get("/api/blog/posts").await.expect(200);
}
