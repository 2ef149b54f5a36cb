//! The events of prices: published price lists, and costs that are computed again.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::restored::Restored;
use crate::id::{ChangeId, UserId};

/// A price list was published. Of two lists of a layer that are in force at a time, the list with the greater change id applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PricesPublished {
    /// The id of the publication.
    pub change_id: ChangeId,
    /// The layer: `base` for a complete list, any other name for an overlay, which is asked before the complete list.
    pub layer: String,
    /// The time from which the list is in force. Chats that started before `published_at` keep their costs all the same, until a
    /// `CostsRepriced`.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub in_force_from: OffsetDateTime,
    /// The time from which the list is not in force any more.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::date_time::DateTime>"))]
    pub in_force_until: Option<OffsetDateTime>,
    /// The time of the publication.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub published_at: OffsetDateTime,
    /// The administrator who published the list; `cli` for the command line.
    pub published_by: UserId,
    /// The SHA-256 of the list's bytes, in hexadecimal digits.
    pub sha256: String,
    /// The size of the list in bytes.
    pub size: u64,
    /// The list, unchanged: a JSON array of providers in the format of genai-prices.
    pub list: String,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// The costs of a span of time are computed again, with the lists that were published before this event: those with lesser change
/// ids, each in force as its `in_force_from` says. Of two such events for a chat, the one with the greater change id applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CostsRepriced {
    /// The id of the change.
    pub change_id: ChangeId,
    /// The beginning of the span: chats that started at this time or later.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub since: OffsetDateTime,
    /// The end of the span: chats that started before this time, and before `repriced_at`.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub until: OffsetDateTime,
    /// The time of the change.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub repriced_at: OffsetDateTime,
    /// The administrator who asked for it; `cli` for the command line.
    pub repriced_by: UserId,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}
