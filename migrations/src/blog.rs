//! The tables of blog.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

use crate::shared::{self, Step};

/// Brings blog's tables up to date.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        shared::steps(vec![Step { name: "m0002_posts", statements }])
    }
}

fn statements(backend: DbBackend) -> Vec<String> {
    let (uuid, time, json, flag) = match backend {
        DbBackend::Sqlite => ("blob", "text", "text", "integer"),
        _ => ("uuid", "timestamptz", "jsonb", "boolean"),
    };
    let named = |table: &str, more: &str| {
        format!(
            "CREATE TABLE {table} (id {uuid} PRIMARY KEY, name text NOT NULL, slug text NOT NULL UNIQUE, {more}
                 version bigint NOT NULL, created_at {time} NOT NULL, updated_at {time} NOT NULL)"
        )
    };
    let joined = |table: &str, column: &str, other: &str| {
        format!(
            "CREATE TABLE {table} (post_id {uuid} NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
                 {column} {uuid} NOT NULL REFERENCES {other} (id) ON DELETE CASCADE, PRIMARY KEY (post_id, {column}))"
        )
    };
    vec![
        format!(
            "CREATE TABLE posts (id {uuid} PRIMARY KEY, title text NOT NULL, slug text NOT NULL UNIQUE,
                 content text NOT NULL, html text NOT NULL, excerpt text, status text NOT NULL, featured {flag} NOT NULL,
                 author_id {uuid}, featured_image_id {uuid}, seo {json} NOT NULL, reading_time integer NOT NULL,
                 published_at {time}, due_at {time}, version bigint NOT NULL, created_at {time} NOT NULL,
                 updated_at {time} NOT NULL, deleted_at {time})"
        ),
        // When a row next wants the clock; null: never. `due_at <= now` implies the predicate, so bound parameters
        // keep the index.
        "CREATE INDEX posts_due ON posts (due_at, id) WHERE due_at IS NOT NULL".to_owned(),
        "CREATE INDEX posts_by_status ON posts (status, id) WHERE deleted_at IS NULL".to_owned(),
        "CREATE INDEX posts_by_author ON posts (author_id, id) WHERE deleted_at IS NULL".to_owned(),
        "CREATE INDEX posts_published ON posts (published_at, id) WHERE status = 'published' AND deleted_at IS NULL"
            .to_owned(),
        named("categories", &format!("description text, parent_id {uuid} REFERENCES categories (id),")),
        "CREATE INDEX categories_by_parent ON categories (parent_id) WHERE parent_id IS NOT NULL".to_owned(),
        named("tags", ""),
        joined("post_categories", "category_id", "categories"),
        "CREATE INDEX post_categories_by_category ON post_categories (category_id, post_id)".to_owned(),
        joined("post_tags", "tag_id", "tags"),
        "CREATE INDEX post_tags_by_tag ON post_tags (tag_id, post_id)".to_owned(),
    ]
}
