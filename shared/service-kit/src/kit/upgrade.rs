//! Bringing the tables of a service up to date.

use database::Fault;
use sea_orm::DatabaseConnection;

use crate::{
    database::{Place, create_schema},
    service::{Service, Tables},
};

/// What has to be done to the tables of one service, and where.
pub(super) struct Upgrade {
    pub(super) name: &'static str,
    place: Place,
    db: DatabaseConnection,
    tables: Tables,
}

impl Upgrade {
    pub(super) fn of(service: &Service, place: &Place, db: DatabaseConnection) -> Self {
        Self { name: service.name, place: place.clone(), db, tables: service.tables }
    }

    /// Does it, making the schema where there is none.
    pub(super) async fn run(&self) -> Result<(), Fault> {
        if let Place::Schema { url, schema } = &self.place {
            create_schema(url, schema).await?;
        }
        (self.tables.up)(&self.db).await?;
        Ok(())
    }

    /// Does it at the start; what is left to be done when the database is away.
    pub(super) async fn begin(self) -> Result<Option<Self>, Fault> {
        match self.run().await {
            Ok(()) => Ok(None),
            Err(fault) if fault.is_transient() => {
                tracing::warn!(service = self.name, %fault, "the tables are brought up to date when the database is there");
                Ok(Some(self))
            }
            Err(fault) => Err(fault),
        }
    }
}
