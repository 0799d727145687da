//! Which tokens are taken, and which are not.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use service_kit::{
    config::Auth,
    http::auth::{Oidc, Refusal},
};
use test_kit::{
    ManualClock,
    signing::{Issuer, Key, unsigned},
};

const NOW: &str = "2026-06-01T08:00:00Z";

struct World {
    clock: Arc<ManualClock>,
    issuer: Issuer,
    oidc: Oidc,
    ec: Key,
    rsa: Key,
}

impl World {
    async fn new() -> Self {
        let (ec, rsa) = (Key::ec("ec-1"), Key::rsa("rsa-1"));
        let issuer = Issuer::start(&[&ec, &rsa]).await;
        let clock = ManualClock::at(NOW.parse().unwrap());
        let auth = Auth { issuer: issuer.issuer(), client_id: "belfry".to_owned() };
        let oidc = Oidc::new(auth, Arc::clone(&clock) as Arc<dyn scheduler::clock::Clock>).unwrap();
        Self { clock, issuer, oidc, ec, rsa }
    }

    fn claims(&self) -> Value {
        let now = NOW.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp();
        json!({
            "iss": self.issuer.issuer(), "aud": ["account", "belfry"], "sub": "ada", "preferred_username": "Ada",
            "exp": now + 300, "nbf": now, "iat": now, "realm_access": { "roles": ["editor"] },
            "resource_access": { "belfry": { "roles": ["operator"] }, "other": { "roles": ["admin"] } }
        })
    }

    /// The claims with one of them otherwise; null takes it away.
    fn with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value;
        }
        claims
    }

    async fn refused(&self, token: &str) -> String {
        match self.oidc.verify(token).await {
            Err(Refusal::Invalid(why)) => why.to_owned(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_token_of_the_issuer_says_who_asks_and_with_which_roles() {
    let world = World::new().await;
    for key in [&world.ec, &world.rsa] {
        let claims = world.oidc.verify(&key.sign(&world.claims())).await.unwrap();
        assert_eq!((claims.subject.as_str(), claims.name.as_deref()), ("ada", Some("Ada")));
        assert_eq!(claims.roles, ["editor", "operator"], "not those of another client");
    }
    let one = world.with("aud", json!("belfry"));
    assert!(world.oidc.verify(&world.ec.sign(&one)).await.is_ok(), "one audience is a string");
}

#[tokio::test]
async fn every_claim_is_needed_and_looked_at() {
    let world = World::new().await;
    let now = NOW.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp();
    let wrong = [
        ("iss", Value::Null, "iss"),
        ("iss", json!("https://id.example.org/realms/test"), "iss"),
        ("iss", json!(format!("{}/", world.issuer.issuer())), "iss"),
        ("aud", Value::Null, "aud"),
        ("aud", json!("account"), "aud"),
        ("aud", json!([]), "aud"),
        ("aud", json!({ "belfry": true }), "aud"),
        ("exp", Value::Null, "exp"),
        ("exp", json!(now - 31), "exp"),
        ("exp", json!(0), "exp"),
        ("exp", json!(-1), "exp"),
        ("nbf", json!(now + 31), "nbf"),
        ("sub", Value::Null, "sub"),
        ("sub", json!(""), "sub"),
    ];
    for (name, value, why) in wrong {
        let token = world.ec.sign(&world.with(name, value.clone()));
        assert_eq!(world.refused(&token).await, why, "{name} = {value}");
    }
    for (name, value) in [("exp", json!("soon")), ("exp", json!(1e308)), ("nbf", json!("now")), ("sub", json!(7))] {
        let token = world.ec.sign(&world.with(name, value.clone()));
        assert_eq!(world.refused(&token).await, "the signature or the claims", "{name} = {value}");
    }
    let mut timeless = world.with("nbf", Value::Null);
    assert!(world.oidc.verify(&world.ec.sign(&timeless)).await.is_ok(), "Keycloak writes no nbf: iat stands for it");
    timeless.as_object_mut().unwrap().remove("iat");
    assert_eq!(world.refused(&world.ec.sign(&timeless)).await, "nbf");
    let skewed = world.with("exp", json!(now - 29));
    assert!(world.oidc.verify(&world.ec.sign(&skewed)).await.is_ok(), "clocks differ a little");
}

#[tokio::test]
async fn a_token_ends_when_it_says_so_though_its_key_is_known() {
    let world = World::new().await;
    let token = world.ec.sign(&world.claims());
    assert!(world.oidc.verify(&token).await.is_ok());
    world.clock.advance(Duration::from_secs(331));
    assert_eq!(world.refused(&token).await, "exp");
}

#[tokio::test]
async fn algorithms_are_pinned_to_the_key() {
    let world = World::new().await;
    let claims = world.claims();
    assert_eq!(world.refused(&unsigned("ec-1", &claims)).await, "not a JWT");
    for shared in [Algorithm::HS256, Algorithm::HS512] {
        let token = world.rsa.sign_as(shared, Some("rsa-1"), &claims);
        assert_eq!(world.refused(&token).await, "an algorithm that is not allowed", "the public key is no secret");
    }
    let other = world.rsa.sign_as(Algorithm::RS512, Some("rsa-1"), &claims);
    assert_eq!(world.refused(&other).await, "another algorithm than the key's");
    let crossed = world.rsa.sign_as(Algorithm::RS256, Some("ec-1"), &claims);
    assert_eq!(world.refused(&crossed).await, "another algorithm than the key's");
    let padded = world.rsa.sign_as(Algorithm::PS256, Some("rsa-1"), &claims);
    assert_eq!(world.refused(&padded).await, "an algorithm that is not allowed");
}

#[tokio::test]
async fn what_is_not_signed_by_a_key_of_the_issuer_is_refused() {
    let world = World::new().await;
    let token = world.ec.sign(&world.claims());
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let other = world.ec.sign(&world.with("sub", json!("eve")));
    let swapped = format!("{header}.{}.{signature}", other.split('.').nth(1).unwrap());
    assert_eq!(world.refused(&swapped).await, "the signature or the claims");
    assert_eq!(world.refused(&Key::ec("ec-1").sign(&world.claims())).await, "the signature or the claims");
    assert_eq!(world.refused(&world.ec.sign_as(Algorithm::ES256, None, &world.claims())).await, "no kid");
    for junk in ["", "a", "a.b", "a.b.c", "..", "eyJhbGciOiJFUzI1NiJ9..", &"x".repeat(20_000)] {
        assert!(matches!(world.oidc.verify(junk).await, Err(Refusal::Invalid(_))), "{junk:.20}");
    }
}

#[tokio::test]
async fn a_key_for_encryption_signs_nothing() {
    let world = World::new().await;
    let mut public = world.ec.public();
    public["use"] = json!("enc");
    world.issuer.serve(&[public]);
    assert_eq!(world.refused(&world.ec.sign(&world.claims())).await, "an unknown key");
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_for_an_unknown_one_but_not_in_a_flood() {
    let world = World::new().await;
    for _ in 0..20 {
        world.oidc.verify(&world.ec.sign(&world.claims())).await.unwrap();
    }
    assert_eq!(world.issuer.asked(), 1);
    let next = Key::ec("ec-2");
    world.issuer.serve(&[world.ec.public(), next.public()]);
    for n in 0..50 {
        let flood = world.ec.sign_as(Algorithm::ES256, Some(&format!("unknown-{n}")), &world.claims());
        assert_eq!(world.refused(&flood).await, "an unknown key");
    }
    assert_eq!(world.issuer.asked(), 1, "ten seconds have not passed");
    world.clock.advance(Duration::from_secs(11));
    assert!(world.oidc.verify(&next.sign(&world.claims())).await.is_ok(), "the keys were changed");
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test]
async fn while_the_issuer_is_away_known_keys_hold_and_unknown_ones_are_nobodys_fault() {
    let world = World::new().await;
    world.oidc.verify(&world.ec.sign(&world.claims())).await.unwrap();
    world.issuer.away(true);
    world.clock.advance(Duration::from_secs(11));
    let next = Key::ec("ec-2").sign(&world.claims());
    assert!(matches!(world.oidc.verify(&next).await, Err(Refusal::Unavailable(_))));
    assert!(world.oidc.verify(&world.ec.sign(&world.claims())).await.is_ok());
    world.issuer.away(false);
    world.clock.advance(Duration::from_secs(11));
    assert_eq!(world.refused(&next).await, "an unknown key");
}
