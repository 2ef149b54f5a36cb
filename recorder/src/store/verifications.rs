//! The `verifications` table: what comparisons of the tables with the log came to.

use sqlx::{PgConnection, PgPool};
use time::{Date, OffsetDateTime};

/// How many are kept.
const MAX_KEPT: i64 = 100;

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// When it was finished.
    pub finished_at: OffsetDateTime,
    /// From which UTC day on; none for all of the log.
    pub since: Option<Date>,
    /// Events read.
    pub events: i64,
    /// Rows compared, as a JSON object of numbers by table.
    pub rows: String,
    /// Rows that differ.
    pub differences: i64,
}

/// Keeps the result, and forgets those that are long past.
pub async fn insert(connection: &mut PgConnection, result: &Verification) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO verifications (finished_at, since, events, rows, differences)
         VALUES ($1, $2, $3, $4::text::jsonb, $5)
         ON CONFLICT (finished_at) DO NOTHING",
        result.finished_at,
        result.since,
        result.events,
        result.rows,
        result.differences
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "DELETE FROM verifications WHERE finished_at <
             (SELECT finished_at FROM verifications ORDER BY finished_at DESC OFFSET $1 LIMIT 1)",
        MAX_KEPT - 1
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// When the latest was finished, and how many differences it found.
pub async fn latest(pool: &PgPool) -> Result<Option<(OffsetDateTime, i64)>, sqlx::Error> {
    let row = sqlx::query!("SELECT finished_at, differences FROM verifications ORDER BY finished_at DESC LIMIT 1");
    Ok(row.fetch_optional(pool).await?.map(|row| (row.finished_at, row.differences)))
}
