//! The `quarantine` table: events that can never be projected, kept whole.

use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// An event to put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The subject it was published to.
    pub subject: String,
    /// Its headers, as a JSON object of arrays of texts.
    pub headers: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Why.
    pub reason: Reason,
    /// The error in words, without the text of any chat.
    pub detail: String,
    /// Where in the stream it was.
    pub stream_sequence: u64,
    /// When the broker stored it.
    pub published_at: OffsetDateTime,
}

/// Why an event cannot be projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It cannot be read.
    Undecodable,
    /// PostgreSQL refuses its rows for what is in them.
    RefusedByDatabase,
}

/// Puts an event aside; once, however often it comes.
pub(super) async fn insert(connection: &mut PgConnection, event: &Quarantined) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO quarantine (
             quarantine_id, subject, headers, payload, reason, detail, stream_sequence, published_at)
         VALUES ($1, $2, $3::text::jsonb, $4, $5, $6, $7, $8)
         ON CONFLICT (quarantine_id) DO NOTHING",
        event.id(),
        event.subject.replace('\0', "\\u0000"),
        event.headers,
        event.payload,
        event.reason.word(),
        event.detail.replace('\0', "\\u0000"),
        i64::try_from(event.stream_sequence).unwrap_or(i64::MAX),
        event.published_at
    )
    .execute(connection)
    .await?;
    Ok(())
}

// === impl Quarantined ===

impl Quarantined {
    fn id(&self) -> Uuid {
        let mut hash = Sha256::new();
        for part in [self.subject.as_bytes(), self.headers.as_bytes(), &self.payload] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

// === impl Reason ===

impl Reason {
    fn word(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::RefusedByDatabase => "refused_by_database",
        }
    }
}
