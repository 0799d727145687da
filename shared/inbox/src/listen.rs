//! The third door: which events, and what they do.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use events::Event;
use sea_orm::DatabaseTransaction;

use crate::ListenError;

/// What a listener needs of the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// None: the effects commute.
    Any,
    /// Only the newest of a key counts; what is older is dropped. For events that carry the whole of their aggregate.
    Latest,
}

/// Hears events; each event's effect happens once.
#[async_trait]
pub trait Listen: Send + Sync + 'static {
    /// Its name inside the service; part of its group's name, so changing it begins anew.
    fn name(&self) -> &'static str;

    /// What it hears; usually [`events::subscription`] of its service.
    fn topics(&self) -> Vec<&'static str>;

    /// What it needs of their order.
    fn order(&self) -> Order {
        Order::Any
    }

    /// Makes the effect of `events`, in the transaction that notes them. Called again with fewer when it fails, so all
    /// it does must be in `tx`.
    async fn on(&self, tx: &DatabaseTransaction, events: &[Event], now: DateTime<Utc>) -> Result<(), ListenError>;
}
