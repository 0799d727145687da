//! Addresses made of titles: lower case, no diacritics, unique by a number where needed.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Statement};

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

/// The slug, or the first of `slug-2`, `slug-3`, … that nobody in `table` but `except` has.
pub(crate) async fn free(
    tx: &DatabaseTransaction,
    table: &'static str,
    slug: &str,
    except: Option<uuid::Uuid>,
) -> Result<String, DbErr> {
    let like = format!("{slug}-%");
    let text = format!("SELECT id, slug FROM {table} WHERE slug = $1 OR slug LIKE $2");
    let statement =
        Statement::from_sql_and_values(tx.get_database_backend(), text, [slug.to_owned().into(), like.into()]);
    let mut taken = std::collections::HashSet::new();
    for row in tx.query_all_raw(statement).await? {
        let (id, slug): (uuid::Uuid, String) = (row.try_get("", "id")?, row.try_get("", "slug")?);
        if Some(id) != except {
            taken.insert(slug);
        }
    }
    let numbered = (2_u64..).map(|number| format!("{slug}-{number}"));
    let mut candidates = std::iter::once(slug.to_owned()).chain(numbered);
    Ok(candidates.find(|candidate| !taken.contains(candidate)).unwrap_or_default())
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
