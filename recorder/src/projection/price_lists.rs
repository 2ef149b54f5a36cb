//! Published price lists: rows of `price_lists`.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use shared::event::PricesPublished;
use shared::prices::history::PublishedList;
use time::OffsetDateTime;
use uuid::Uuid;

use super::pg_value::{pg_text, pg_timestamp};

/// A row of `price_lists`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PriceList {
    /// The key of the row: the publication.
    pub change_id: Uuid,
    /// The layer.
    pub layer: String,
    /// The time from which the list is in force.
    pub in_force_from: OffsetDateTime,
    /// The time from which the list is not in force any more.
    pub in_force_until: Option<OffsetDateTime>,
    /// The time of the publication.
    pub published_at: OffsetDateTime,
    /// The author.
    pub published_by: String,
    /// The SHA-256 of `list`, in hexadecimal digits.
    pub sha256: String,
    /// The list.
    pub list: Arc<str>,
}

impl PriceList {
    /// Makes the row of a publication. The hash is that of the content, whatever the event says.
    pub fn from_published(event: &PricesPublished) -> Self {
        let list = pg_text(&event.list);
        Self {
            change_id: event.change_id.0,
            layer: pg_text(&event.layer),
            in_force_from: pg_timestamp(event.in_force_from),
            in_force_until: event.in_force_until.map(pg_timestamp),
            published_at: pg_timestamp(event.published_at),
            published_by: pg_text(event.published_by.as_str()),
            sha256: Sha256::digest(&list).iter().map(|byte| format!("{byte:02x}")).collect(),
            list: list.into(),
        }
    }

    /// Joins another row of the same publication. Of two different rows, the greater counts.
    pub fn join(&mut self, other: Self) {
        if other > *self {
            *self = other;
        }
    }

    /// Returns the publication without the content.
    pub fn published(&self) -> PublishedList {
        PublishedList {
            change_id: self.change_id,
            layer: self.layer.clone(),
            from: self.in_force_from,
            until: self.in_force_until,
            published_at: self.published_at,
            sha256: self.sha256.clone(),
        }
    }
}
