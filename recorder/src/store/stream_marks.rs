//! Statements for the `stream_marks` table: the remembered position of the recorders' consumer in the stream.

use sqlx::PgConnection;

/// The position up to which the recorders' consumer had acknowledged, and the identity of the event at the position. A
/// different event at the same sequence shows that the broker lost the end of the stream and reused sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamMark {
    /// The creation time of the stream, in nanoseconds since 1970.
    pub stream_created_ns: i64,
    /// The sequence up to which all events had been acknowledged.
    pub sequence: u64,
    /// The time at which the broker stored the event at `sequence`, in nanoseconds since 1970; none without such an
    /// event.
    pub taken_in_ns: Option<i64>,
    /// True while a recorder creates the consumer again, and after a crash during that work.
    pub is_healing: bool,
}

/// Reads the mark; none before the first mark was saved.
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

/// Inserts or replaces the mark.
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
