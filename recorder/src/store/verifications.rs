//! Statements for the `verifications` table: results of comparing the tables with the log.

use sqlx::{PgConnection, PgPool};
use time::{Date, OffsetDateTime};

/// The number of results kept.
const MAX_KEPT: i64 = 100;

/// The result of a comparison by `verify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The time at which the comparison finished.
    pub finished_at: OffsetDateTime,
    /// The first UTC day compared; none for the whole log.
    pub since: Option<Date>,
    /// The number of events read from the log.
    pub events: i64,
    /// The number of rows compared, as a JSON object by table.
    pub rows: String,
    /// The number of rows that differ.
    pub differences: i64,
}

/// Stores a result, and deletes all but the latest 100 results.
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

/// The time of the latest comparison, and the number of differences found.
pub async fn latest(pool: &PgPool) -> Result<Option<(OffsetDateTime, i64)>, sqlx::Error> {
    let row = sqlx::query!("SELECT finished_at, differences FROM verifications ORDER BY finished_at DESC LIMIT 1");
    Ok(row.fetch_optional(pool).await?.map(|row| (row.finished_at, row.differences)))
}
