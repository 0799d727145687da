//! Tokens of an OpenID Connect issuer (Keycloak): algorithms pinned, keys cached, every claim looked at.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use scheduler::clock::Clock;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::config::Auth;

/// Algorithms with a key pair; one with a shared secret would let anybody who knows the public key sign.
const ALGORITHMS: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::ES256, Algorithm::ES384];
/// Clocks differ by this at most.
const LEEWAY_S: i64 = 30;
/// Tokens larger than this are not looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// A flood of unknown keys asks the issuer at most this often.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// How long the issuer may take: less than an answer of ours may, so that it is not the database that is suspected.
const ANSWER: Duration = Duration::from_secs(3);
/// Key sets larger than this are not looked at.
const KEYS_BYTES_MAX: usize = 256 * 1024;

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not what it should be; which part.
    #[error("{0}")]
    Invalid(&'static str),
    /// The issuer's keys are not to be had.
    #[error("the issuer does not answer: {0}")]
    Unavailable(String),
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose it is.
    pub subject: String,
    /// The name people know.
    pub name: Option<String>,
    /// Realm roles and the roles of our client.
    pub roles: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    iss: Option<String>,
    aud: Option<Value>,
    sub: Option<String>,
    exp: Option<i64>,
    nbf: Option<i64>,
    iat: Option<i64>,
    preferred_username: Option<String>,
    #[serde(default)]
    realm_access: Roles,
    #[serde(default)]
    resource_access: HashMap<String, Roles>,
}

#[derive(Deserialize, Default)]
struct Roles {
    #[serde(default)]
    roles: Vec<String>,
}

/// A key with the algorithm it is for.
#[derive(Clone)]
struct Key {
    decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
}

/// An issuer.
pub struct Oidc {
    auth: Auth,
    clock: Arc<dyn Clock>,
    http: reqwest::Client,
    keys: RwLock<Arc<HashMap<String, Key>>>,
    refreshed: Mutex<Option<Duration>>,
}

impl Oidc {
    /// An issuer; its keys are fetched with the first token.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(auth: Auth, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        crate::install_tls_provider();
        let http = reqwest::Client::builder()
            .timeout(ANSWER)
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self { auth, clock, http, keys: RwLock::default(), refreshed: Mutex::new(None) })
    }

    /// What the token says, if all of it is right.
    ///
    /// # Errors
    /// What is wrong with it, for the log; the caller is only told that it is.
    pub async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Invalid("larger than a token may be"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Invalid("not a JWT"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Refusal::Invalid("an algorithm that is not allowed"));
        }
        let kid = header.kid.filter(|kid| kid.len() <= 256).ok_or(Refusal::Invalid("no kid"))?;
        let key = self.key(&kid).await?;
        if !key.algorithms.contains(&header.alg) {
            return Err(Refusal::Invalid("another algorithm than the key's"));
        }
        let mut validation = Validation::new(header.alg);
        validation.algorithms = vec![header.alg];
        // Times are looked at below, on the clock of the platform.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let raw = jsonwebtoken::decode::<Raw>(token, &key.decoding, &validation)
            .map_err(|_| Refusal::Invalid("the signature or the claims"))?;
        self.claims(raw.claims)
    }

    fn claims(&self, raw: Raw) -> Result<Claims, Refusal> {
        if raw.iss.as_deref() != Some(&self.auth.issuer) {
            return Err(Refusal::Invalid("iss"));
        }
        let ours = |aud: &Value| aud.as_str() == Some(&self.auth.client_id);
        let named = match &raw.aud {
            Some(Value::Array(audiences)) => audiences.iter().any(ours),
            Some(audience) => ours(audience),
            None => false,
        };
        if !named {
            return Err(Refusal::Invalid("aud"));
        }
        let now = self.clock.now().timestamp();
        if raw.exp.is_none_or(|exp| exp <= now - LEEWAY_S) {
            return Err(Refusal::Invalid("exp"));
        }
        // Keycloak writes no nbf unless told to: then the time of issue says from when the token holds.
        if raw.nbf.or(raw.iat).is_none_or(|from| from > now + LEEWAY_S) {
            return Err(Refusal::Invalid("nbf"));
        }
        let subject = raw.sub.filter(|sub| !sub.is_empty()).ok_or(Refusal::Invalid("sub"))?;
        let mut roles = raw.realm_access.roles;
        let mut resources = raw.resource_access;
        roles.extend(resources.remove(&self.auth.client_id).unwrap_or_default().roles);
        Ok(Claims { subject, name: raw.preferred_username, roles })
    }

    fn known(&self, kid: &str) -> Option<Key> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(kid).cloned()
    }

    /// The key of this id; an unknown one is looked for at the issuer, but not more often than [`REFRESH_EVERY`].
    async fn key(&self, kid: &str) -> Result<Key, Refusal> {
        if let Some(key) = self.known(kid) {
            return Ok(key);
        }
        let mut refreshed = self.refreshed.lock().await;
        if let Some(key) = self.known(kid) {
            return Ok(key);
        }
        let now = self.clock.monotonic();
        if refreshed.is_some_and(|at| now.saturating_sub(at) < REFRESH_EVERY) {
            return Err(Refusal::Invalid("an unknown key"));
        }
        *refreshed = Some(now);
        let keys = self.fetch().await?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        self.known(kid).ok_or(Refusal::Invalid("an unknown key"))
    }

    /// The issuer's signing keys. On an error the old ones stay.
    async fn fetch(&self) -> Result<HashMap<String, Key>, Refusal> {
        let away = |error: &dyn std::fmt::Display| Refusal::Unavailable(error.to_string());
        let url = format!("{}/protocol/openid-connect/certs", self.auth.issuer);
        let response = self.http.get(url).send().await.map_err(|error| away(&error))?;
        let mut response = response.error_for_status().map_err(|error| away(&error))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| away(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > KEYS_BYTES_MAX {
                return Err(Refusal::Unavailable("its key set is too large".to_owned()));
            }
        }
        let set: JwkSet = serde_json::from_slice(&body).map_err(|error| away(&error))?;
        Ok(set.keys.iter().filter_map(usable).collect())
    }
}

/// A key for signatures (Keycloak lists one for encryption too), with the algorithms it may be used with.
fn usable(jwk: &Jwk) -> Option<(String, Key)> {
    use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve};
    if jwk.common.public_key_use != Some(PublicKeyUse::Signature) {
        return None;
    }
    let kid = jwk.common.key_id.clone()?;
    let algorithms = match (&jwk.algorithm, jwk.common.key_algorithm) {
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS256)) => vec![Algorithm::RS256],
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS384)) => vec![Algorithm::RS384],
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS512)) => vec![Algorithm::RS512],
        (AlgorithmParameters::RSA(_), None) => vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512],
        (AlgorithmParameters::EllipticCurve(key), _) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        _ => return None,
    };
    Some((kid, Key { decoding: DecodingKey::from_jwk(jwk).ok()?, algorithms }))
}
