//! Statements for the `repricings` table, and for `pending_repricings`, the spans of chats that are being priced anew.

use std::collections::BTreeMap;

use shared::prices::history::RepricedSpan;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::utc;
use super::stored_row::StoredRow;
use crate::projection::repricings::Repricing;

/// A query for whole rows; `$tail` follows the table's name.
macro_rules! rows_where {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            RepricingRow,
            "SELECT change_id, since, until, repriced_at, repriced_by FROM repricings " + $tail
            $(, $argument)*
        )
    };
}

/// The span of chats whose costs a change of prices may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingSpan {
    /// The publication or the repricing.
    pub(super) change_id: Uuid,
    /// The beginning of the span.
    pub(super) since: OffsetDateTime,
    /// The end of the span, not included; none for no end.
    pub(super) until: Option<OffsetDateTime>,
}

impl PendingSpan {
    /// The span of a repricing.
    pub(super) fn of(repricing: &RepricedSpan) -> Self {
        Self { change_id: repricing.change_id, since: repricing.since, until: Some(repricing.end()) }
    }
}

impl StoredRow for Repricing {
    async fn insert(&self, tx: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query!(
            "INSERT INTO repricings (change_id, since, until, repriced_at, repriced_by) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (change_id) DO NOTHING",
            self.change_id,
            self.since,
            self.until,
            self.repriced_at,
            self.repriced_by
        );
        Ok(inserted.execute(tx).await?.rows_affected() == 1)
    }

    async fn lock(tx: &mut PgConnection, key: &Uuid) -> Result<Self, sqlx::Error> {
        Ok(rows_where!("WHERE change_id = $1 FOR UPDATE", key).fetch_one(tx).await?.read())
    }

    async fn update(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE repricings SET since = $2, until = $3, repriced_at = $4, repriced_by = $5 WHERE change_id = $1",
            self.change_id,
            self.since,
            self.until,
            self.repriced_at,
            self.repriced_by
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Reads rows by change. Missing rows are left out.
pub async fn by_ids(connection: &mut PgConnection, ids: &[Uuid]) -> Result<BTreeMap<Uuid, Repricing>, sqlx::Error> {
    let rows = rows_where!("WHERE change_id = ANY($1)", ids).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.change_id, row.read())).collect())
}

/// Reads all rows of the table.
pub(super) async fn read_all(connection: &mut PgConnection) -> Result<BTreeMap<Uuid, Repricing>, sqlx::Error> {
    let rows = rows_where!("").fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.change_id, row.read())).collect())
}

/// Notes that the chats of a span have to be priced anew.
pub(super) async fn add_pending(tx: &mut PgConnection, span: PendingSpan) -> Result<(), sqlx::Error> {
    // A later note of the same change covers both spans. GREATEST ignores nulls, and null is no end.
    sqlx::query!(
        "INSERT INTO pending_repricings AS p (change_id, since, until) VALUES ($1, $2, $3)
         ON CONFLICT (change_id) DO UPDATE SET since = LEAST(p.since, EXCLUDED.since),
             until = CASE WHEN p.until IS NULL OR EXCLUDED.until IS NULL THEN NULL ELSE GREATEST(p.until, EXCLUDED.until) END",
        span.change_id,
        span.since,
        span.until
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Returns a span whose chats have to be priced anew; none if all chats have their prices.
pub(super) async fn first_pending(connection: &mut PgConnection) -> Result<Option<PendingSpan>, sqlx::Error> {
    let row = sqlx::query!("SELECT change_id, since, until FROM pending_repricings ORDER BY change_id LIMIT 1");
    let row = row.fetch_optional(connection).await?;
    Ok(row.map(|row| PendingSpan { change_id: row.change_id, since: utc(row.since), until: row.until.map(utc) }))
}

/// Returns true while chats are being priced anew.
pub async fn is_any_pending(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    Ok(first_pending(connection).await?.is_some())
}

/// Removes the note of a span, unless the note was changed meanwhile.
pub(super) async fn remove_pending(connection: &mut PgConnection, span: PendingSpan) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM pending_repricings WHERE change_id = $1 AND since = $2 AND until IS NOT DISTINCT FROM $3",
        span.change_id,
        span.since,
        span.until
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes all notes, after the tables were replaced by tables with the prices of the log.
pub async fn clear_pending(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM pending_repricings").execute(connection).await?;
    Ok(())
}

struct RepricingRow {
    change_id: Uuid,
    since: OffsetDateTime,
    until: OffsetDateTime,
    repriced_at: OffsetDateTime,
    repriced_by: String,
}

impl RepricingRow {
    fn read(self) -> Repricing {
        Repricing {
            change_id: self.change_id,
            since: utc(self.since),
            until: utc(self.until),
            repriced_at: utc(self.repriced_at),
            repriced_by: self.repriced_by,
        }
    }
}
