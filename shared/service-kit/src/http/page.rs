//! Lists in pages: an opaque cursor, a limit, and the one shape of all lists.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use utoipa::{IntoParams, ToSchema};

use super::Problem;

/// Items a page has at most.
pub const LIMIT_MAX: u64 = 200;
/// Items a page has unless asked.
pub const LIMIT_DEFAULT: u64 = 20;

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Listing<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; null: this was the last.
    pub next_cursor: Option<String>,
}

impl<T> Listing<T> {
    /// A page from one item more than it has room for: that item only says that there is a next page.
    pub fn of<C: Serialize>(mut items: Vec<T>, limit: u64, cursor: impl FnOnce(&T) -> C) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| encode(&cursor(last)));
        Self { items, next_cursor }
    }

    /// A list that is whole.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }

    /// The same page of other items.
    pub fn map<U>(self, map: impl FnMut(T) -> U) -> Listing<U> {
        Listing { items: self.items.into_iter().map(map).collect(), next_cursor: self.next_cursor }
    }
}

/// Which page.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// Items a page has, 1 to 200.
    #[serde(default = "default_limit", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 200, default = 20)]
    pub limit: u64,
}

impl Default for Page {
    fn default() -> Self {
        Self { cursor: None, limit: LIMIT_DEFAULT }
    }
}

/// The limit of a page unless asked.
pub fn default_limit() -> u64 {
    LIMIT_DEFAULT
}

/// Reads a limit, 1 to 200.
///
/// # Errors
/// When it is not a number in that range.
pub fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    match text.parse() {
        Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => Err(serde::de::Error::custom(format!("expected a whole number from 1 to {LIMIT_MAX}"))),
    }
}

impl Page {
    /// Where the page before ended, as the type that [`Listing::of`] was given.
    ///
    /// # Errors
    /// 400 when the cursor is not one of ours.
    pub fn after<C: DeserializeOwned>(&self) -> Result<Option<C>, Problem> {
        self.cursor.as_deref().map(decode).transpose()
    }
}

/// A place in a list as an opaque word.
pub fn encode(place: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).unwrap_or_default())
}

/// The place such a word stands for.
///
/// # Errors
/// 400 when it is not one of ours.
pub fn decode<C: DeserializeOwned>(cursor: &str) -> Result<C, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| Problem::bad("cursor", "expected the next_cursor of a page before"))
}
