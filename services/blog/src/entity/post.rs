//! `posts`

use sea_orm::entity::prelude::*;

/// A post.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "posts")]
pub struct Model {
    /// UUIDv7: creation order.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Its title.
    pub title: String,
    /// Its address; unique also among deleted posts, so that restoring one cannot clash.
    pub slug: String,
    /// Markdown.
    #[sea_orm(column_type = "Text")]
    pub content: String,
    /// `content`, rendered and sanitized.
    #[sea_orm(column_type = "Text")]
    pub html: String,
    /// A few words about it.
    pub excerpt: Option<String>,
    /// `draft` or `published`.
    pub status: Status,
    /// Shown first.
    pub featured: bool,
    /// Who wrote it.
    pub author_id: Option<Uuid>,
    /// Its picture.
    pub featured_image_id: Option<Uuid>,
    /// What search engines and previews are told.
    pub seo: Json,
    /// Minutes.
    pub reading_time: i32,
    /// When it is, was, or is planned to be published.
    pub published_at: Option<DateTimeUtc>,
    /// When it next wants the clock; null: never.
    pub due_at: Option<DateTimeUtc>,
    /// Raised by each write; the ETag.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTimeUtc,
    /// When it was last changed.
    pub updated_at: DateTimeUtc,
    /// When it was deleted.
    pub deleted_at: Option<DateTimeUtc>,
}

/// Whether readers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum Status {
    /// They do not.
    #[sea_orm(string_value = "draft")]
    Draft,
    /// They do.
    #[sea_orm(string_value = "published")]
    Published,
}

impl Status {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
        }
    }
}

/// None that are followed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
