//! The tables that every service has beside its own, and what a step of a migration is.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

/// One step: all of its statements and the note that it is done are one transaction, so that a process that dies in its
/// midst leaves nothing half-made.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) statements: fn(DbBackend) -> Vec<String>,
}

impl MigrationName for Step {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in (self.statements)(manager.get_database_backend()) {
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    /// Also on SQLite, where it is not the custom.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// Schedules, runs, outbox, inbox.
fn shared(backend: DbBackend) -> Vec<String> {
    [scheduler::tables::create(backend), outbox::tables::first(backend), inbox::tables::create(backend)].concat()
}

/// A service's steps: what all have at first, its own, and what changed in the shared tables since.
pub(crate) fn steps(own: Vec<Step>) -> Vec<Box<dyn MigrationTrait>> {
    let first = Step { name: "m0001_shared", statements: shared };
    let since = [
        Step { name: "m0003_outbox_waiting_apart", statements: outbox::tables::waiting_apart },
        Step { name: "m0004_outbox_headers_as_text", statements: outbox::tables::headers_as_text },
    ];
    std::iter::once(first).chain(own).chain(since).map(|step| Box::new(step) as Box<dyn MigrationTrait>).collect()
}
