//! Who may read and who may write, with tokens of an issuer.

use reqwest::Method;
use serde_json::{Value, json};
use test_kit::{
    Home, Process,
    signing::{Issuer, Key},
};

use crate::{BLOG, now, plain};

struct World {
    blog: Process,
    issuer: Issuer,
    key: Key,
    _home: Home,
}

impl World {
    async fn new() -> Self {
        let key = Key::ec("one");
        let (issuer, home) = (Issuer::start(&[&key]).await, Home::embedded());
        let vars = [
            ("AUTH_ENABLED", "true"),
            ("KEYCLOAK_URL", issuer.url()),
            ("KEYCLOAK_REALM", "test"),
            ("KEYCLOAK_CLIENT_ID", "belfry"),
        ];
        let blog = Process::start(BLOG, &home, &vars);
        Self { blog, issuer, key, _home: home }
    }

    fn token(&self, role: &str) -> String {
        let now = now().timestamp();
        let claims = json!({
            "iss": self.issuer.issuer(), "aud": "belfry", "sub": "0190c3f4-0000-7000-8000-00000000000a",
            "exp": now + 60, "nbf": now - 1, "iat": now - 1, "realm_access": { "roles": [role] }
        });
        format!("Bearer {}", self.key.sign(&claims))
    }

    async fn post(&self, authorization: &[&str]) -> test_kit::Answer {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(authorization.iter().map(|value| ("authorization", *value)));
        self.blog.api.send(Method::POST, "/api/blog/posts", &headers, Some(&plain("Mine").to_string())).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_needs_a_token_with_a_role_and_reading_shows_what_is_public() {
    let world = World::new().await;
    let refused = world.post(&[]).await.expect(401);
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    world.post(&[&world.token("viewer")]).await.expect(403);
    let draft = world.post(&[&world.token("editor")]).await.expect(201).json;
    let path = crate::at(&draft);
    world.blog.api.get(&path).await.expect(404);
    let list = world.blog.api.get("/api/blog/posts").await.expect(200).json;
    assert_eq!(list["items"], Value::Array(Vec::new()), "drafts are nobody's business");
    let editor = world.token("editor");
    let seen = world.blog.api.send(Method::GET, &path, &[("authorization", &editor)], None).await;
    assert_eq!(seen.expect(200).json["title"], "Mine");
    world
        .blog
        .api
        .send(Method::POST, &format!("{path}/publish"), &[("authorization", &editor)], None)
        .await
        .expect(200);
    world.blog.api.get(&path).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_token_is_refused_also_where_none_is_needed() {
    let world = World::new().await;
    for bad in ["Bearer nonsense", "Basic YTpi", "Bearer", "Bearer a.b.c"] {
        let answer = world.blog.api.send(Method::GET, "/api/blog/posts", &[("authorization", bad)], None).await;
        answer.expect(401);
        world.post(&[bad]).await.expect(401);
    }
    let good = world.token("editor");
    world.post(&[&good, &good]).await.expect(401);
    let said = world.blog.said();
    assert!(!said.contains(&good[7..60]), "a token is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_is_away_makes_nobody_an_editor_and_nobody_guilty() {
    let world = World::new().await;
    world.issuer.away(true);
    world.post(&[&world.token("editor")]).await.expect(503);
    world.blog.api.get("/api/blog/posts").await.expect(200);
}
