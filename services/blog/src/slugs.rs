//! Addresses made of titles: lower case, no diacritics, unique by a number where needed.

use std::collections::HashSet;

use database::{Fault, Sql};
use sea_orm::DatabaseTransaction;
use uuid::Uuid;

/// Slugs are at most this long.
pub(crate) const SLUG_MAX: usize = 200;
/// Room for a suffix.
const BASE_MAX: usize = 190;

/// A text as a slug: diacritics stripped, everything but letters and digits a dash.
pub(crate) fn slugify(text: &str, otherwise: &str) -> String {
    let plain = deunicode::deunicode(text).to_lowercase();
    let mut slug = String::with_capacity(plain.len());
    for c in plain.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
        if slug.len() >= BASE_MAX {
            break;
        }
    }
    let slug = slug.trim_matches('-');
    if slug.is_empty() { otherwise.to_owned() } else { slug.to_owned() }
}

/// How many numbers are looked at by one question after another.
const TRIES: [u64; 3] = [10, 100, 1_000];

/// The slug, or the first of `slug-2`, `slug-3`, … that nobody in `table` but `except` has. Where a thousand are taken,
/// the number is a random one. Each question reads the unique index, however many rows there are.
pub(crate) async fn free(
    tx: &DatabaseTransaction,
    table: &'static str,
    slug: &str,
    except: Option<Uuid>,
) -> Result<String, Fault> {
    let mut sql = Sql::of(tx);
    if !sql.sqlite() {
        // Those who wish for one slug at once take their turns, or the unluckiest would lose again and again.
        let wish = sql.bind(format!("{table}/{slug}"));
        sql.run(tx, &format!("SELECT pg_advisory_xact_lock(hashtextextended({wish}, 0))")).await?;
    }
    let mut next = 1;
    for tries in TRIES {
        let candidates: Vec<String> = (next..next + tries).map(|number| numbered(slug, number)).collect();
        let mut sql = Sql::of(tx);
        let text = format!("SELECT id, slug FROM {table} WHERE slug {}", sql.words(&candidates));
        let mut taken = HashSet::new();
        for row in sql.all(tx, &text).await? {
            let (id, slug): (Uuid, String) = (row.try_get("", "id")?, row.try_get("", "slug")?);
            if Some(id) != except {
                taken.insert(slug);
            }
        }
        if let Some(free) = candidates.into_iter().find(|candidate| !taken.contains(candidate)) {
            return Ok(free);
        }
        next += tries;
    }
    let random = Uuid::now_v7().as_u128() % 1_000_000_000;
    Ok(format!("{slug}-{random:09}"))
}

fn numbered(slug: &str, number: u64) -> String {
    if number == 1 { slug.to_owned() } else { format!("{slug}-{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_addresses() {
        let table = [
            ("Hello, World!", "hello-world"),
            ("  Über den Wölkchen ", "uber-den-wolkchen"),
            ("Crème brûlée №5", "creme-brulee-no5"),
            ("a--b__c", "a-b-c"),
            ("北京", "bei-jing"),
            ("!!!", "post"),
            ("", "post"),
        ];
        for (title, slug) in table {
            assert_eq!(slugify(title, "post"), slug, "{title:?}");
        }
    }

    #[test]
    fn a_long_title_leaves_room_for_a_number() {
        assert!(slugify(&"long title ".repeat(100), "post").len() <= BASE_MAX);
    }
}
