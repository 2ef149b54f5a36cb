//! Statements for the `quarantine` table: events that can never be projected, stored whole.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::audit_outbox::{self, Act};
use super::read::sql_enum;
use crate::projection::sql_enum::SqlEnum;

/// An event for quarantine, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedEvent {
    /// The subject on which the event was published.
    pub subject: String,
    /// The headers, as a JSON object of arrays of strings.
    pub headers: String,
    /// The payload, byte for byte.
    pub payload: Vec<u8>,
    /// The reason for the quarantine.
    pub reason: QuarantineReason,
    /// The error message, without the text of any chat.
    pub detail: String,
    /// The sequence in the stream when the event was first seen. Sequences are reused after a loss of data.
    pub stream_sequence: u64,
    /// The time at which the broker stored the event.
    pub published_at: OffsetDateTime,
}

/// The reason for which an event cannot be projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineReason {
    /// The payload cannot be decoded as an event.
    Undecodable,
    /// PostgreSQL refuses the content of the event's rows.
    RefusedByDatabase,
}

/// Puts an event into quarantine. A redelivered event has the same id and is stored once.
pub async fn insert(pool: &PgPool, event: &QuarantinedEvent) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO quarantine (
             quarantine_id, subject, headers, payload, reason, detail, stream_sequence, published_at)
         VALUES ($1, $2, $3::text::jsonb, $4, $5, $6, $7, $8)
         ON CONFLICT (quarantine_id) DO NOTHING",
        event.id(),
        event.subject.replace('\0', "\\u0000"),
        event.headers,
        event.payload,
        event.reason.as_sql(),
        event.detail.replace('\0', "\\u0000"),
        i64::try_from(event.stream_sequence).unwrap_or(i64::MAX),
        event.published_at
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// An event in quarantine, with headers and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// The id in quarantine, derived from the event; see [`QuarantinedEvent::id`].
    pub quarantine_id: Uuid,
    /// The time at which a recorder put the event into quarantine.
    pub quarantined_at: OffsetDateTime,
    /// The event and the reason.
    pub event: QuarantinedEvent,
}

/// An event in quarantine, without headers and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineSummary {
    /// The id in quarantine, derived from the event; see [`QuarantinedEvent::id`].
    pub quarantine_id: Uuid,
    /// The time at which a recorder put the event into quarantine.
    pub quarantined_at: OffsetDateTime,
    /// The subject on which the event was published.
    pub subject: String,
    /// The reason, as the word in the column.
    pub reason: String,
    /// The error message, without the text of any chat.
    pub detail: String,
    /// The size of the payload, in bytes.
    pub bytes: i32,
}

/// Up to `limit` events in quarantine, oldest first, beginning after the event `after`.
pub async fn list(pool: &PgPool, after: Option<Uuid>, limit: u16) -> Result<Vec<QuarantineSummary>, sqlx::Error> {
    sqlx::query_as!(
        QuarantineSummary,
        r#"SELECT quarantine_id, quarantined_at, subject, reason, detail, octet_length(payload) AS "bytes!"
           FROM quarantine
           WHERE $1::uuid IS NULL OR (quarantined_at, quarantine_id) >
                 (SELECT quarantined_at, quarantine_id FROM quarantine WHERE quarantine_id = $1)
           ORDER BY quarantined_at, quarantine_id LIMIT $2"#,
        after,
        i64::from(limit)
    )
    .fetch_all(pool)
    .await
}

/// The ids, among the given ones, that are in quarantine.
pub async fn existing_ids(connection: &mut PgConnection, ids: &[Uuid]) -> Result<BTreeSet<Uuid>, sqlx::Error> {
    let query = sqlx::query_scalar("SELECT quarantine_id FROM quarantine WHERE quarantine_id = ANY($1)").bind(ids);
    Ok(query.fetch_all(connection).await?.into_iter().collect())
}

/// The number of events in quarantine.
pub async fn count(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM quarantine"#).fetch_one(pool).await
}

/// Reads one event with headers and payload; none when the id is not in quarantine.
pub async fn by_id(pool: &PgPool, quarantine_id: Uuid) -> Result<Option<QuarantineEntry>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT quarantine_id, subject, headers::text AS "headers!", payload, reason, detail, stream_sequence,
                  published_at, quarantined_at
           FROM quarantine WHERE quarantine_id = $1"#,
        quarantine_id
    );
    let Some(row) = row.fetch_optional(pool).await? else { return Ok(None) };
    let event = QuarantinedEvent {
        subject: row.subject,
        headers: row.headers,
        payload: row.payload,
        reason: sql_enum("reason", Some(&row.reason))?,
        detail: row.detail,
        stream_sequence: u64::try_from(row.stream_sequence).unwrap_or_default(),
        published_at: row.published_at,
    };
    Ok(Some(QuarantineEntry { quarantine_id: row.quarantine_id, quarantined_at: row.quarantined_at, event }))
}

/// Removes an event from quarantine, in the caller's transaction. Returns false when the id was not in quarantine.
pub(super) async fn delete(connection: &mut PgConnection, quarantine_id: Uuid) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query!("DELETE FROM quarantine WHERE quarantine_id = $1", quarantine_id);
    Ok(deleted.execute(connection).await?.rows_affected() == 1)
}

/// Removes events from quarantine that were recorded after all. Ids that are not in quarantine are ignored.
pub async fn delete_recorded(connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    let deleted =
        sqlx::query("DELETE FROM quarantine WHERE quarantine_id = ANY($1)").bind(ids).execute(connection).await?;
    if deleted.rows_affected() > 0 {
        tracing::info!(events = deleted.rows_affected(), "events left quarantine, as they were recorded after all");
    }
    Ok(())
}

/// Deletes an event from quarantine for good. Returns false when the id was not in quarantine.
pub async fn discard(pool: &PgPool, quarantine_id: Uuid, act: &Act) -> Result<bool, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let was_there = delete(&mut tx, quarantine_id).await?;
    if was_there {
        audit_outbox::note(&mut tx, act, 1).await?;
    }
    tx.commit().await?;
    Ok(was_there)
}

/// Updates the reason of an event that failed again when retried.
pub async fn update_reason(
    pool: &PgPool,
    quarantine_id: Uuid,
    reason: QuarantineReason,
    detail: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE quarantine SET reason = $2, detail = $3 WHERE quarantine_id = $1",
        quarantine_id,
        reason.as_sql(),
        detail.replace('\0', "\\u0000")
    )
    .execute(pool)
    .await?;
    Ok(())
}

// === impl QuarantinedEvent ===

impl QuarantinedEvent {
    /// The first value of a header; none without the header, or when the stored headers cannot be parsed.
    pub fn header(&self, name: &str) -> Option<String> {
        let headers: BTreeMap<String, Vec<String>> = serde_json::from_str(&self.headers).ok()?;
        headers.get(name)?.first().cloned()
    }

    /// The id in quarantine: a hash of subject, headers and payload, so that all recorders derive the same id.
    pub fn id(&self) -> Uuid {
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

// === impl QuarantineReason ===

impl SqlEnum for QuarantineReason {
    fn as_sql(&self) -> &str {
        match self {
            Self::Undecodable => "undecodable",
            Self::RefusedByDatabase => "refused_by_database",
        }
    }

    fn from_sql(text: &str) -> Option<Self> {
        [Self::Undecodable, Self::RefusedByDatabase].into_iter().find(|reason| reason.as_sql() == text)
    }
}
