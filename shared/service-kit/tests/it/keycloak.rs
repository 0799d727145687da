//! Tokens of a real Keycloak. Run by `make test-keycloak`, which starts one.

use std::time::Duration;

use serde_json::Value;
use service_kit::{
    config::Auth,
    http::auth::{Oidc, Refusal},
};

struct Keycloak {
    url: String,
    http: reqwest::Client,
}

impl Keycloak {
    #[expect(clippy::disallowed_methods, reason = "the server of the test run is told by the environment")]
    fn new() -> Self {
        service_kit::install_tls_provider();
        let url = std::env::var("KEYCLOAK_URL").expect("KEYCLOAK_URL: run `make test-keycloak`");
        Self { url, http: reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap() }
    }

    async fn token(&self, form: &[(&str, &str)]) -> String {
        let url = format!("{}/realms/belfry/protocol/openid-connect/token", self.url);
        let body = serde_urlencoded::to_string(form).unwrap();
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
        let request = request.basic_auth("belfry", Some("belfry-secret"));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    async fn of_user(&self, user: &str) -> String {
        let password = format!("{user}-pass");
        self.token(&[("grant_type", "password"), ("username", user), ("password", &password)]).await
    }

    fn oidc(&self, client_id: &str) -> Oidc {
        let auth = Auth { issuer: format!("{}/realms/belfry", self.url), client_id: client_id.to_owned() };
        Oidc::new(auth, scheduler::clock::DatabaseClock::new()).unwrap()
    }
}

#[tokio::test]
#[ignore = "needs a Keycloak: make test-keycloak"]
async fn people_and_programs_of_a_real_keycloak_are_known_with_their_roles() {
    let keycloak = Keycloak::new();
    let oidc = keycloak.oidc("belfry");
    let ada = oidc.verify(&keycloak.of_user("ada").await).await.unwrap();
    assert_eq!(ada.name.as_deref(), Some("ada"));
    assert!(ada.roles.iter().any(|role| role == "admin"), "{:?}", ada.roles);
    let vera = oidc.verify(&keycloak.of_user("vera").await).await.unwrap();
    assert!(!vera.roles.iter().any(|role| role == "admin"), "{:?}", vera.roles);
    let program = oidc.verify(&keycloak.token(&[("grant_type", "client_credentials")]).await).await.unwrap();
    assert!(!program.subject.is_empty());
}

#[tokio::test]
#[ignore = "needs a Keycloak: make test-keycloak"]
async fn a_token_for_somebody_else_is_refused_though_keycloak_signed_it() {
    let keycloak = Keycloak::new();
    let token = keycloak.of_user("ada").await;
    assert!(matches!(keycloak.oidc("another").verify(&token).await, Err(Refusal::Invalid("aud"))));
    let spoiled = format!("{}A", &token[..token.len() - 2]);
    assert!(keycloak.oidc("belfry").verify(&spoiled).await.is_err());
}
