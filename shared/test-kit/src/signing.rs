//! An issuer of tokens that is ours: it signs what a test asks for, right or wrong, and serves its keys.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::{elliptic_curve::sec1::ToEncodedPoint, pkcs8::EncodePrivateKey};
use rsa::{RsaPrivateKey, pkcs1::EncodeRsaPrivateKey, traits::PublicKeyParts};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A key pair with its id.
#[derive(Clone)]
pub struct Key {
    kid: String,
    algorithm: Algorithm,
    encoding: EncodingKey,
    public: Value,
}

impl Key {
    /// A new RSA key for RS256.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn rsa(kid: &str) -> Self {
        let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).expect("a key can be made");
        let number = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
        let public = json!({ "kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256",
            "n": number(private.n()), "e": number(private.e()) });
        let der = private.to_pkcs1_der().expect("a key can be written");
        let encoding = EncodingKey::from_rsa_der(der.as_bytes());
        Self { kid: kid.to_owned(), algorithm: Algorithm::RS256, encoding, public }
    }

    /// A new key on the curve P-256 for ES256.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn ec(kid: &str) -> Self {
        let private = p256::SecretKey::random(&mut rsa::rand_core::OsRng);
        let point = private.public_key().to_encoded_point(false);
        let number = |bytes: Option<&p256::FieldBytes>| URL_SAFE_NO_PAD.encode(bytes.expect("a point"));
        let public = json!({ "kty": "EC", "kid": kid, "use": "sig", "alg": "ES256", "crv": "P-256",
            "x": number(point.x()), "y": number(point.y()) });
        let der = private.to_pkcs8_der().expect("a key can be written");
        let encoding = EncodingKey::from_ec_der(der.as_bytes());
        Self { kid: kid.to_owned(), algorithm: Algorithm::ES256, encoding, public }
    }

    /// The public part as the key set has it, for a test that spoils it.
    pub fn public(&self) -> Value {
        self.public.clone()
    }

    /// A token with these claims.
    ///
    /// # Panics
    /// When it cannot be signed.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(self.algorithm, Some(&self.kid), claims)
    }

    /// A token whose header says what a test wants it to say. With an algorithm of a shared secret the public key is
    /// the secret, as an attacker would have it.
    ///
    /// # Panics
    /// When it cannot be signed.
    pub fn sign_as(&self, algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        let shared = EncodingKey::from_secret(self.public.to_string().as_bytes());
        let with = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => &shared,
            _ => &self.encoding,
        };
        jsonwebtoken::encode(&header, claims, with).expect("it can be signed")
    }
}

/// A token that nobody signed.
pub fn unsigned(kid: &str, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT", "kid": kid })), part(claims))
}

#[derive(Default)]
struct Served {
    keys: Mutex<Vec<Value>>,
    asked: AtomicUsize,
    away: Mutex<bool>,
}

/// The issuer's address and key set.
pub struct Issuer {
    url: String,
    served: Arc<Served>,
    stop: CancellationToken,
}

impl Issuer {
    /// Serves these keys on loopback.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(keys: &[&Key]) -> Self {
        let served = Arc::new(Served::default());
        let app = Router::new()
            .route("/realms/test/protocol/openid-connect/certs", get(certificates))
            .with_state(Arc::clone(&served));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let stop = CancellationToken::new();
        let serving = service_kit::http::server::serve(listener, app, stop.clone(), Duration::ZERO);
        #[expect(clippy::disallowed_methods, reason = "the stub's own server, ended with it")]
        tokio::spawn(serving);
        let issuer = Self { url, served, stop };
        issuer.serve(&keys.iter().map(|key| key.public()).collect::<Vec<_>>());
        issuer
    }

    /// Where it is (the realm is `test`).
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What its tokens say of who issued them.
    pub fn issuer(&self) -> String {
        format!("{}/realms/test", self.url)
    }

    /// Serves other keys from now on.
    pub fn serve(&self, keys: &[Value]) {
        *self.served.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys.to_vec();
    }

    /// Answers 503 from now on, or again with keys.
    pub fn away(&self, away: bool) {
        *self.served.away.lock().unwrap_or_else(PoisonError::into_inner) = away;
    }

    /// How often it was asked for its keys.
    pub fn asked(&self) -> usize {
        self.served.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn certificates(State(served): State<Arc<Served>>) -> impl IntoResponse {
    served.asked.fetch_add(1, Ordering::SeqCst);
    if *served.away.lock().unwrap_or_else(PoisonError::into_inner) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let keys = served.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Json(json!({ "keys": keys })).into_response()
}
