//! Spans of time whose costs were computed again: rows of `repricings`.

use shared::event::CostsRepriced;
use shared::prices::history::RepricedSpan;
use time::OffsetDateTime;
use uuid::Uuid;

use super::pg_value::{pg_text, pg_timestamp};

/// A row of `repricings`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repricing {
    /// The key of the row: the change.
    pub change_id: Uuid,
    /// The beginning of the span.
    pub since: OffsetDateTime,
    /// The end of the span, not included.
    pub until: OffsetDateTime,
    /// The time of the change.
    pub repriced_at: OffsetDateTime,
    /// The author.
    pub repriced_by: String,
}

impl Repricing {
    /// Makes the row of a repricing.
    pub fn from_repriced(event: &CostsRepriced) -> Self {
        Self {
            change_id: event.change_id.0,
            since: pg_timestamp(event.since),
            until: pg_timestamp(event.until),
            repriced_at: pg_timestamp(event.repriced_at),
            repriced_by: pg_text(event.repriced_by.as_str()),
        }
    }

    /// Joins another row of the same change. Of two different rows, the greater counts.
    pub fn join(&mut self, other: Self) {
        if other > *self {
            *self = other;
        }
    }

    /// Returns the span without the author.
    pub fn span(&self) -> RepricedSpan {
        let Self { change_id, since, until, repriced_at, .. } = *self;
        RepricedSpan { change_id, since, until, repriced_at }
    }
}
