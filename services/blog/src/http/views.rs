//! What posts, categories and tags look like on the wire, in and out.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use service_kit::http::{Json, Patch, extract::etag};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    entity::{category, post, tag},
    posts::{Content, Joined, Seo},
};

/// A post
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Post {
    id: Uuid,
    title: String,
    slug: String,
    /// Markdown
    content: String,
    /// The content, rendered and sanitized
    html: String,
    excerpt: Option<String>,
    /// `draft` or `published`
    status: &'static str,
    /// Whether it is a draft that will be published by itself
    scheduled: bool,
    featured: bool,
    author_id: Option<Uuid>,
    category_ids: Vec<Uuid>,
    tag_ids: Vec<Uuid>,
    featured_image_id: Option<Uuid>,
    seo: Seo,
    /// Minutes
    reading_time: i32,
    published_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
}

impl Post {
    pub(super) fn of(post: post::Model, joined: Joined) -> Self {
        Self {
            id: post.id,
            title: post.title,
            slug: post.slug,
            content: post.content,
            html: post.html,
            excerpt: post.excerpt,
            status: post.status.as_str(),
            scheduled: post.due_at.is_some(),
            featured: post.featured,
            author_id: post.author_id,
            category_ids: joined.category_ids,
            tag_ids: joined.tag_ids,
            featured_image_id: post.featured_image_id,
            seo: serde_json::from_value(post.seo).unwrap_or_default(),
            reading_time: post.reading_time,
            published_at: post.published_at,
            version: post.version,
            created_at: post.created_at,
            updated_at: post.updated_at,
            deleted_at: post.deleted_at,
        }
    }

    /// With its ETag.
    pub(super) fn answer(self, status: StatusCode) -> Response {
        let location = (status == StatusCode::CREATED).then(|| format!("/api/blog/posts/{}", self.id));
        versioned(status, self.version, location, self)
    }
}

/// An answer with the ETag of its version, and where a new thing is.
pub(super) fn versioned(status: StatusCode, version: i64, location: Option<String>, body: impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    if let Ok(tag) = HeaderValue::from_str(&etag(version)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    if let Some(location) = location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// A time as the ledgers keep it: whole microseconds.
pub(super) fn whole(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(6)
}

fn micros<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    Ok(Option::<DateTime<Utc>>::deserialize(from)?.map(whole))
}

/// A new post
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPost {
    #[schema(min_length = 1, max_length = 300)]
    title: String,
    /// The wished address; made of the title otherwise. A number is added where it is taken
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    slug: Option<String>,
    /// Markdown
    #[serde(default)]
    content: String,
    #[serde(default)]
    #[schema(max_length = 1000)]
    excerpt: Option<String>,
    #[serde(default)]
    featured: bool,
    #[serde(default)]
    author_id: Option<Uuid>,
    #[serde(default)]
    #[schema(max_items = 50)]
    category_ids: Vec<Uuid>,
    #[serde(default)]
    #[schema(max_items = 50)]
    tag_ids: Vec<Uuid>,
    #[serde(default)]
    featured_image_id: Option<Uuid>,
    #[serde(default)]
    seo: Seo,
    /// When it is to be published; a time that has passed: at once
    #[serde(default, deserialize_with = "micros")]
    published_at: Option<DateTime<Utc>>,
}

impl From<NewPost> for Content {
    fn from(new: NewPost) -> Self {
        Self {
            title: new.title,
            slug: new.slug,
            content: new.content,
            excerpt: new.excerpt,
            featured: new.featured,
            author_id: new.author_id,
            featured_image_id: new.featured_image_id,
            seo: new.seo,
            category_ids: new.category_ids,
            tag_ids: new.tag_ids,
            published_at: new.published_at,
        }
    }
}

/// A change of a post (merge patch): what is not named stays, null clears
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PostPatch {
    #[serde(default)]
    #[schema(min_length = 1, max_length = 300)]
    title: Option<String>,
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    slug: Option<String>,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 1000)]
    excerpt: Patch<String>,
    #[serde(default)]
    featured: Option<bool>,
    #[serde(default)]
    #[schema(value_type = Option<Uuid>)]
    author_id: Patch<Uuid>,
    #[serde(default)]
    #[schema(max_items = 50)]
    category_ids: Option<Vec<Uuid>>,
    #[serde(default)]
    #[schema(max_items = 50)]
    tag_ids: Option<Vec<Uuid>>,
    #[serde(default)]
    #[schema(value_type = Option<Uuid>)]
    featured_image_id: Patch<Uuid>,
    #[serde(default)]
    #[schema(value_type = Option<Seo>)]
    seo: Patch<SeoPatch>,
    /// When it is to be published; null takes the plan away
    #[serde(default)]
    #[schema(value_type = Option<DateTime<Utc>>)]
    published_at: Patch<DateTime<Utc>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SeoPatch {
    meta_title: Patch<String>,
    meta_description: Patch<String>,
    meta_keywords: Patch<String>,
    og_title: Patch<String>,
    og_description: Patch<String>,
    og_image: Patch<String>,
    canonical_url: Patch<String>,
}

impl PostPatch {
    /// What the post says after the patch.
    pub(super) fn apply(self, post: &post::Model, joined: Joined) -> Content {
        let before: Seo = serde_json::from_value(post.seo.clone()).unwrap_or_default();
        let seo = match self.seo {
            Patch::Keep => before,
            Patch::Clear => Seo::default(),
            Patch::Set(patch) => Seo {
                meta_title: patch.meta_title.apply(before.meta_title),
                meta_description: patch.meta_description.apply(before.meta_description),
                meta_keywords: patch.meta_keywords.apply(before.meta_keywords),
                og_title: patch.og_title.apply(before.og_title),
                og_description: patch.og_description.apply(before.og_description),
                og_image: patch.og_image.apply(before.og_image),
                canonical_url: patch.canonical_url.apply(before.canonical_url),
            },
        };
        let published_at = self.published_at.apply(post.published_at).map(whole);
        Content {
            title: self.title.unwrap_or_else(|| post.title.clone()),
            slug: self.slug,
            content: self.content.unwrap_or_else(|| post.content.clone()),
            excerpt: self.excerpt.apply(post.excerpt.clone()),
            featured: self.featured.unwrap_or(post.featured),
            author_id: self.author_id.apply(post.author_id),
            featured_image_id: self.featured_image_id.apply(post.featured_image_id),
            seo,
            category_ids: self.category_ids.unwrap_or(joined.category_ids),
            tag_ids: self.tag_ids.unwrap_or(joined.tag_ids),
            published_at,
        }
    }
}

/// A category
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Category {
    pub(super) id: Uuid,
    name: String,
    slug: String,
    description: Option<String>,
    parent_id: Option<Uuid>,
    pub(super) version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<category::Model> for Category {
    fn from(row: category::Model) -> Self {
        Self {
            id: row.id,
            name: row.name,
            slug: row.slug,
            description: row.description,
            parent_id: row.parent_id,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A tag
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Tag {
    pub(super) id: Uuid,
    name: String,
    slug: String,
    pub(super) version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<tag::Model> for Tag {
    fn from(row: tag::Model) -> Self {
        let (created_at, updated_at) = (row.created_at, row.updated_at);
        Self { id: row.id, name: row.name, slug: row.slug, version: row.version, created_at, updated_at }
    }
}
