//! `categories`

use sea_orm::entity::prelude::*;

/// A category.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "categories")]
pub struct Model {
    /// UUIDv7: creation order.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its address.
    pub slug: String,
    /// What belongs here.
    pub description: Option<String>,
    /// The category above it.
    pub parent_id: Option<Uuid>,
    /// Raised by each write; the ETag.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTimeUtc,
    /// When it was last changed.
    pub updated_at: DateTimeUtc,
}

/// None that are followed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
