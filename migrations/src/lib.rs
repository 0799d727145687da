//! The tables of every service. One module a service; the shared tables come from the shared crates.

pub mod blog;
mod shared;

use std::pin::Pin;

use sea_orm::{DatabaseConnection, DbErr};
use sea_orm_migration::MigratorTrait;

/// Brings the tables of one service up to date, in the schema that its connections have.
pub type Up = for<'a> fn(&'a DatabaseConnection) -> Pin<Box<dyn Future<Output = Result<(), DbErr>> + Send + 'a>>;

/// Every service that has tables, and how they are brought up to date.
pub const SERVICES: &[(&str, Up)] = &[("blog", up::<blog::Migrator>)];

fn up<M: MigratorTrait + 'static>(
    db: &DatabaseConnection,
) -> Pin<Box<dyn Future<Output = Result<(), DbErr>> + Send + '_>> {
    Box::pin(M::up(db, None))
}
