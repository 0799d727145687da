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

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use test_kit::fuzz;
    use uuid::Uuid;

    use super::*;

    type Place = (DateTime<Utc>, Uuid, i64);

    fn page(cursor: &str) -> Page {
        Page { cursor: Some(cursor.to_owned()), limit: LIMIT_DEFAULT }
    }

    #[test]
    fn fuzz_a_cursor_is_a_place_or_refused_by_name() {
        let place: Place = (DateTime::from_timestamp_nanos(1_780_000_000_123_456_000), Uuid::from_u128(7), -3);
        let cursor = encode(&place);
        assert_eq!(page(&cursor).after::<Place>().expect("it is one of ours"), Some(place));
        let words = &["=", "+", "/", "-", "_", "AAAA", "bnVsbA", "W10", "!!", "\0"];
        let examples = [cursor.as_str(), "W10", "", "bnVsbA"];
        fuzz::all(20_000, fuzz::text(&examples, words), |cursor| match page(&cursor).after::<Place>() {
            Ok(place) => {
                let place = place.expect("a cursor was given");
                assert_eq!(page(&encode(&place)).after().expect("it is one of ours"), Some(place));
            }
            Err(problem) => assert_eq!((problem.status, problem.errors[0].field.as_str()), (400, "cursor")),
        });
        // What is behind the base64 as well.
        let inside = [serde_json::to_string(&place).expect("it is JSON")];
        let words = &["[", "]", ",", "null", "\"", "9223372036854775808", "-", "+262143-01-01T00:00:00Z"];
        fuzz::all(20_000, fuzz::bytes(&inside, words), |json| {
            if let Ok(place) = page(&URL_SAFE_NO_PAD.encode(json)).after::<Place>() {
                assert!(page(&encode(&place)).after::<Place>().is_ok());
            }
        });
    }

    #[test]
    fn a_page_is_full_and_says_where_the_next_begins_only_if_there_is_one() {
        let of = |count: i64| Listing::of((0..count).collect(), 3, |last| *last);
        for (count, items, next) in [(0, 0, None), (2, 2, None), (3, 3, None), (4, 3, Some(2_i64))] {
            let listing = of(count);
            assert_eq!(listing.items.len(), items);
            assert_eq!(listing.next_cursor, next.map(|last| encode(&last)), "{count} items");
        }
        assert_eq!(of(9).map(|item| item.to_string()).next_cursor, of(9).next_cursor);
        assert_eq!(Listing::whole(vec![1, 2]).next_cursor, None);
    }

    #[test]
    fn a_limit_is_a_whole_number_from_1_to_200() {
        let read = |limit: &str| serde_json::from_value::<Page>(serde_json::json!({ "limit": limit }));
        for (text, limit) in [("1", 1), ("20", 20), ("200", 200)] {
            assert_eq!(read(text).expect("a limit").limit, limit);
        }
        for text in ["0", "201", "-1", "1.5", "", "ten", "99999999999999999999"] {
            assert!(read(text).expect_err("no limit").to_string().contains("from 1 to 200"), "{text}");
        }
        let unset: Page = serde_json::from_value(serde_json::json!({})).expect("a page");
        assert_eq!((unset.limit, unset.cursor), (20, None));
        assert_eq!(Page::default().limit, 20);
        assert_eq!(Page::default().after::<Place>().expect("no cursor"), None);
    }
}
