//! The room of posts: what can be done with them, and what is said of it.
//!
//! Every verb takes a transaction, rows that are locked in it, and the time. It changes the rows and records what
//! happened; publishing by hand and on schedule are the same verb.

mod find;
mod joins;
mod say;
mod write;

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::{
    find::{Filter, State, by_slug, find, latest_published, list},
    joins::{Joined, joined},
    write::{create, delete, edit, lock, publish, restore, schedule, unpublish, unschedule},
};
use crate::entity::post::{self, Status};

/// Titles have at most this many characters.
pub const TITLE_MAX: usize = 300;
/// Texts have at most this many bytes; the rendered text and the envelope must fit too.
pub const CONTENT_BYTES_MAX: usize = 512 * 1024;
/// Excerpts have at most this many characters.
pub const EXCERPT_MAX: usize = 1_000;
/// A post has at most this many categories, and tags.
pub const JOINED_MAX: usize = 50;
/// A field of [`Seo`] has at most this many characters.
pub const SEO_MAX: usize = 500;

/// What search engines and previews are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Seo {
    /// Title of the page
    #[schema(max_length = 500)]
    pub meta_title: Option<String>,
    /// Description of the page
    #[schema(max_length = 500)]
    pub meta_description: Option<String>,
    /// Keywords of the page
    #[schema(max_length = 500)]
    pub meta_keywords: Option<String>,
    /// Title in previews
    #[schema(max_length = 500)]
    pub og_title: Option<String>,
    /// Description in previews
    #[schema(max_length = 500)]
    pub og_description: Option<String>,
    /// Picture in previews
    #[schema(max_length = 500)]
    pub og_image: Option<String>,
    /// The page's one true address
    #[schema(max_length = 500)]
    pub canonical_url: Option<String>,
}

/// What a post says of itself, as whoever writes it gives it.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Its title.
    pub title: String,
    /// The address that is wished for; made of the title otherwise.
    pub slug: Option<String>,
    /// Markdown.
    pub content: String,
    /// A few words about it.
    pub excerpt: Option<String>,
    /// Shown first.
    pub featured: bool,
    /// Who wrote it.
    pub author_id: Option<Uuid>,
    /// Its picture.
    pub featured_image_id: Option<Uuid>,
    /// What search engines and previews are told.
    pub seo: Seo,
    /// Its categories.
    pub category_ids: Vec<Uuid>,
    /// Its tags.
    pub tag_ids: Vec<Uuid>,
    /// When it is to be published.
    pub published_at: Option<DateTime<Utc>>,
}

/// What a verb that handles many posts needs of each: everything but the text.
#[derive(Debug, Clone, PartialEq, FromQueryResult)]
pub struct Headline {
    /// The post.
    pub id: Uuid,
    /// Its title.
    pub title: String,
    /// Its slug.
    pub slug: String,
    /// Who wrote it.
    pub author_id: Option<Uuid>,
    /// When it is planned to be published.
    pub published_at: Option<DateTime<Utc>>,
    /// When it wants the clock.
    pub due_at: Option<DateTime<Utc>>,
    /// Its version before the write.
    pub version: i64,
}

/// The columns of a [`Headline`].
pub const HEADLINE: &str = "id, title, slug, author_id, published_at, due_at, version";

impl From<&post::Model> for Headline {
    fn from(post: &post::Model) -> Self {
        Self {
            id: post.id,
            title: post.title.clone(),
            slug: post.slug.clone(),
            author_id: post.author_id,
            published_at: post.published_at,
            due_at: post.due_at,
            version: post.version,
        }
    }
}

/// What a post is, in the words of the API: `deleted`, `published`, `scheduled` or `draft`.
pub fn state(post: &post::Model) -> &'static str {
    match post.status {
        _ if post.deleted_at.is_some() => "deleted",
        Status::Published => "published",
        Status::Draft if post.due_at.is_some() => "scheduled",
        Status::Draft => "draft",
    }
}
