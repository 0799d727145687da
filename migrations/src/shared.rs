//! The tables that every service has beside its own: schedules, runs, outbox, inbox.

use sea_orm_migration::prelude::*;

/// Creates them, as the first step of each service.
pub(crate) struct Shared;

impl MigrationName for Shared {
    fn name(&self) -> &'static str {
        "m0001_shared"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Shared {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();
        let statements =
            [scheduler::tables::create(backend), outbox::tables::create(backend), inbox::tables::create(backend)];
        run(manager, &statements.concat()).await
    }
}

/// Runs statements in order.
pub(crate) async fn run(manager: &SchemaManager<'_>, statements: &[String]) -> Result<(), DbErr> {
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}

/// A service's steps, with the shared one first.
pub(crate) fn steps(own: Vec<Box<dyn MigrationTrait>>) -> Vec<Box<dyn MigrationTrait>> {
    let mut steps: Vec<Box<dyn MigrationTrait>> = vec![Box::new(Shared)];
    steps.extend(own);
    steps
}
