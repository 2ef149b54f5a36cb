//! The `stream_marks` table: what is remembered of the broker.

use sqlx::PgConnection;

/// How far the recorders' consumer had come, and which event stood there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamMark {
    /// When the stream was made, in nanoseconds since 1970.
    pub stream_created_ns: i64,
    /// Up to where every event had been acknowledged.
    pub sequence: u64,
    /// When the broker had taken in the event there, in nanoseconds since 1970; none if there was none.
    pub taken_in_ns: Option<i64>,
    /// Whether the consumer is being made anew.
    pub is_healing: bool,
}

/// The mark of the stream.
pub async fn load(connection: &mut PgConnection) -> Result<Option<StreamMark>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT stream_created_ns, sequence, taken_in_ns, is_healing FROM stream_marks WHERE stream = $1",
        shared::stream::NAME
    );
    Ok(row.fetch_optional(connection).await?.map(|row| StreamMark {
        stream_created_ns: row.stream_created_ns,
        sequence: u64::try_from(row.sequence).unwrap_or_default(),
        taken_in_ns: row.taken_in_ns,
        is_healing: row.is_healing,
    }))
}

/// Sets it.
pub async fn save(connection: &mut PgConnection, mark: &StreamMark) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO stream_marks (stream, stream_created_ns, sequence, taken_in_ns, is_healing)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (stream) DO UPDATE SET
             stream_created_ns = EXCLUDED.stream_created_ns, sequence = EXCLUDED.sequence,
             taken_in_ns = EXCLUDED.taken_in_ns, is_healing = EXCLUDED.is_healing",
        shared::stream::NAME,
        mark.stream_created_ns,
        i64::try_from(mark.sequence).unwrap_or(i64::MAX),
        mark.taken_in_ns,
        mark.is_healing
    )
    .execute(connection)
    .await?;
    Ok(())
}
