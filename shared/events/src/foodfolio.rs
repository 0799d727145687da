//! What the foodfolio service says.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{EventData, State};

/// Fewer units are left than the minimum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantStockLow {
    /// The variant.
    pub variant_id: Uuid,
    /// Its item.
    pub item_id: Uuid,
    /// Its name.
    pub variant_name: String,
    /// Units left.
    pub current_stock: i64,
    /// The minimum.
    pub min_sku: i64,
    /// When it was seen.
    pub detected_at: DateTime<Utc>,
}

impl EventData for VariantStockLow {
    const TYPE: &'static str = "foodfolio.variant.stock.low";
    const SERVICE: &'static str = "foodfolio";
    const STATE: State = State::Delta;

    fn key(&self) -> Uuid {
        self.variant_id
    }
}

/// No unit is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantStockEmpty {
    /// The variant.
    pub variant_id: Uuid,
    /// Its item.
    pub item_id: Uuid,
    /// Its name.
    pub variant_name: String,
    /// When it was seen.
    pub detected_at: DateTime<Utc>,
}

impl EventData for VariantStockEmpty {
    const TYPE: &'static str = "foodfolio.variant.stock.empty";
    const SERVICE: &'static str = "foodfolio";
    const STATE: State = State::Delta;

    fn key(&self) -> Uuid {
        self.variant_id
    }
}

/// A unit passed its expiry date.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetailExpired {
    /// The unit.
    pub detail_id: Uuid,
    /// Its variant.
    pub variant_id: Uuid,
    /// The date on it.
    #[serde(default)]
    pub expiry_date: Option<NaiveDate>,
    /// When it was seen.
    pub detected_at: DateTime<Utc>,
}

impl EventData for DetailExpired {
    const TYPE: &'static str = "foodfolio.detail.expired";
    const SERVICE: &'static str = "foodfolio";
    const STATE: State = State::Delta;

    fn key(&self) -> Uuid {
        self.detail_id
    }
}

/// A unit expires within seven days.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetailExpiringSoon {
    /// The unit.
    pub detail_id: Uuid,
    /// Its variant.
    pub variant_id: Uuid,
    /// The date on it.
    #[serde(default)]
    pub expiry_date: Option<NaiveDate>,
    /// Whole days left; the seventh counts.
    pub days_left: i64,
    /// When it was seen.
    pub detected_at: DateTime<Utc>,
}

impl EventData for DetailExpiringSoon {
    const TYPE: &'static str = "foodfolio.detail.expiring.soon";
    const SERVICE: &'static str = "foodfolio";
    const STATE: State = State::Delta;

    fn key(&self) -> Uuid {
        self.detail_id
    }
}
