//! Whoever writes: posts now and for later, runs by hand, pauses; on whichever replica answers.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{lasts, world::Addresses};

/// Who write at once.
const WRITERS: u64 = 4;
/// A writer gives up waiting for an answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Titles of posts that were answered with 201.
    pub(crate) acknowledged: BTreeSet<String>,
    tried: u64,
    operated: u64,
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (acknowledged, tried, operated) = (self.acknowledged.len(), self.tried, self.operated);
        write!(f, "{acknowledged} of {tried} posts acknowledged, {operated} operations")
    }
}

pub(crate) struct Load {
    writers: JoinSet<Sent>,
    over: Arc<AtomicBool>,
}

impl Load {
    pub(crate) fn begin(seed: u64, addresses: Addresses) -> Self {
        let (mut writers, over) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for writer in 0..WRITERS {
            writers.spawn(write(writer, seed, Arc::clone(&addresses), Arc::clone(&over)));
        }
        Self { writers, over }
    }

    pub(crate) async fn end(mut self) -> Sent {
        self.over.store(true, Ordering::SeqCst);
        let mut all = Sent::default();
        while let Some(sent) = self.writers.join_next().await {
            let sent = sent.expect("a writer does not panic");
            all.acknowledged.extend(sent.acknowledged);
            all.tried += sent.tried;
            all.operated += sent.operated;
        }
        all
    }
}

async fn write(writer: u64, seed: u64, addresses: Addresses, over: Arc<AtomicBool>) -> Sent {
    let mut rng = fastrand::Rng::with_seed(seed * 1_000 + writer);
    let mut sent = Sent::default();
    while !over.load(Ordering::SeqCst) {
        let reached = {
            let all = addresses.lock().unwrap_or_else(PoisonError::into_inner);
            all[rng.usize(..all.len())].clone()
        };
        lasts(Duration::from_millis(rng.u64(5..60))).await;
        let Some((api, admin)) = reached else { continue };
        let json_type = [("content-type", "application/json")];
        if rng.u8(..40) == 0 {
            sent.operated += 1;
            let path = "/admin/v1/jobs/blog/post_publisher";
            let asked: &[(&str, serde_json::Value)] = match rng.u8(..3) {
                0 => &[("pause", json!({ "reason": "storm" })), ("resume", json!({ "from": "catch_up" }))],
                1 => &[("pause", json!({ "reason": "storm" })), ("resume", json!({ "from": "now" }))],
                _ => &[("run", json!({}))],
            };
            for (verb, body) in asked {
                let (path, body) = (format!("{path}/{verb}"), body.to_string());
                let asking = admin.try_send(Method::POST, &path, &json_type, Some(body.as_bytes()));
                drop(tokio::time::timeout(PATIENCE, asking).await);
            }
            continue;
        }
        sent.tried += 1;
        let title = format!("Post {seed} {writer} {}", sent.tried);
        #[expect(clippy::disallowed_methods, reason = "the post is planned for the real clock")]
        let due = chrono::Utc::now() + chrono::TimeDelta::milliseconds(rng.i64(50..4_000));
        let body = json!({ "title": title, "published_at": due.to_rfc3339() }).to_string();
        let asking = api.try_send(Method::POST, "/api/blog/posts", &json_type, Some(body.as_bytes()));
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, asking).await
            && answer.status == 201
        {
            sent.acknowledged.insert(title);
        }
    }
    // A pause whose resume found nobody.
    for _ in 0..100 {
        let all = addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (_, admin) in all.into_iter().flatten() {
            let path = "/admin/v1/jobs/blog/post_publisher/resume";
            let asking =
                admin.try_send(Method::POST, path, &[("content-type", "application/json")], Some(br#"{"from":"now"}"#));
            if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, asking).await
                && answer.status < 300
            {
                return sent;
            }
        }
        lasts(Duration::from_millis(500)).await;
    }
    sent
}
