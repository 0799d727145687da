//! What the blog service says. Post events carry the whole post but its text; the text is at its address.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{EventData, State};

/// A post without its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Post {
    /// The post.
    pub post_id: Uuid,
    /// Its title.
    pub title: String,
    /// Its slug.
    pub slug: String,
    /// `draft` or `published`.
    pub status: String,
    /// Who wrote it.
    #[serde(default)]
    pub author_id: Option<Uuid>,
    /// When it is or was to be published.
    #[serde(default)]
    pub published_at: Option<DateTime<Utc>>,
}

/// A category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Category {
    /// The category.
    pub category_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its slug.
    pub slug: String,
    /// The category above it.
    #[serde(default)]
    pub parent_id: Option<Uuid>,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tag {
    /// The tag.
    pub tag_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its slug.
    pub slug: String,
}

/// A post was published because its moment had come. Said beside [`PostPublished`], for those who planned it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PostScheduledPublished {
    /// The post.
    pub post_id: Uuid,
    /// Its title.
    pub title: String,
    /// Its slug.
    pub slug: String,
    /// The moment that was planned.
    #[serde(default)]
    pub scheduled_at: Option<DateTime<Utc>>,
    /// When it took effect.
    pub published_at: DateTime<Utc>,
}

impl EventData for PostScheduledPublished {
    const TYPE: &'static str = "blog.post.scheduled.published";
    const SERVICE: &'static str = "blog";
    const STATE: State = State::Delta;

    fn key(&self) -> Uuid {
        self.post_id
    }
}

macro_rules! said {
    ($($(#[$doc:meta])* $name:ident = $type:literal of $body:ident . $key:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $body);

        impl EventData for $name {
            const TYPE: &'static str = $type;
            const SERVICE: &'static str = "blog";
            const STATE: State = State::Full;

            fn key(&self) -> Uuid {
                self.0.$key
            }
        }
    )+};
}

said! {
    /// A post was written.
    PostCreated = "blog.post.created" of Post.post_id,
    /// A post was edited, scheduled or unscheduled.
    PostUpdated = "blog.post.updated" of Post.post_id,
    /// A post was published, by hand or on schedule.
    PostPublished = "blog.post.published" of Post.post_id,
    /// A post was taken back.
    PostUnpublished = "blog.post.unpublished" of Post.post_id,
    /// A post was deleted.
    PostDeleted = "blog.post.deleted" of Post.post_id,
    /// A deleted post was restored as a draft.
    PostRestored = "blog.post.restored" of Post.post_id,
    /// A category was made.
    CategoryCreated = "blog.category.created" of Category.category_id,
    /// A category was edited.
    CategoryUpdated = "blog.category.updated" of Category.category_id,
    /// A category was deleted.
    CategoryDeleted = "blog.category.deleted" of Category.category_id,
    /// A tag was made.
    TagCreated = "blog.tag.created" of Tag.tag_id,
    /// A tag was edited.
    TagUpdated = "blog.tag.updated" of Tag.tag_id,
    /// A tag was deleted.
    TagDeleted = "blog.tag.deleted" of Tag.tag_id,
}
