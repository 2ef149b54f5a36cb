//! The `quarantine` table: events that can never be projected, kept whole.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::sql_enum;
use crate::projection::sql_enum::SqlEnum;

/// An event to put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedEvent {
    /// The subject it was published to.
    pub subject: String,
    /// Its headers, as a JSON object of arrays of texts.
    pub headers: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Why.
    pub reason: QuarantineReason,
    /// The error in words, without the text of any chat.
    pub detail: String,
    /// Where in the stream it was.
    pub stream_sequence: u64,
    /// When the broker stored it.
    pub published_at: OffsetDateTime,
}

/// Why an event cannot be projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineReason {
    /// It cannot be read.
    Undecodable,
    /// PostgreSQL refuses its rows for what is in them.
    RefusedByDatabase,
}

/// Puts an event aside; once, however often it comes.
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

/// An event that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Its id in quarantine.
    pub quarantine_id: Uuid,
    /// When it was put there.
    pub quarantined_at: OffsetDateTime,
    /// The event and the reason.
    pub event: QuarantinedEvent,
}

/// An event that was put aside, without its headers and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineSummary {
    /// Its id in quarantine.
    pub quarantine_id: Uuid,
    /// When it was put there.
    pub quarantined_at: OffsetDateTime,
    /// The subject it was published to.
    pub subject: String,
    /// Why it is there.
    pub reason: String,
    /// The error in words.
    pub detail: String,
    /// The size of its payload.
    pub bytes: i32,
}

/// Up to `limit` of them, the oldest first, those after the one named.
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

/// Which of these events are there.
pub async fn existing_ids(connection: &mut PgConnection, ids: &[Uuid]) -> Result<BTreeSet<Uuid>, sqlx::Error> {
    let there = sqlx::query_scalar("SELECT quarantine_id FROM quarantine WHERE quarantine_id = ANY($1)").bind(ids);
    Ok(there.fetch_all(connection).await?.into_iter().collect())
}

/// How many there are.
pub async fn count(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM quarantine"#).fetch_one(pool).await
}

/// All of one.
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

/// Takes one out. Says whether it was there.
pub(super) async fn delete(connection: &mut PgConnection, quarantine_id: Uuid) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query!("DELETE FROM quarantine WHERE quarantine_id = $1", quarantine_id);
    Ok(deleted.execute(connection).await?.rows_affected() == 1)
}

/// Throws one away, for good. Says whether it was there.
pub async fn discard(pool: &PgPool, quarantine_id: Uuid) -> Result<bool, sqlx::Error> {
    delete(&mut *pool.acquire().await?, quarantine_id).await
}

/// Notes why one that was tried again has to stay.
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

// === impl Quarantined ===

impl QuarantinedEvent {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        let headers: BTreeMap<String, Vec<String>> = serde_json::from_str(&self.headers).ok()?;
        headers.get(name)?.first().cloned()
    }

    /// Its id in quarantine: the same whoever puts it there.
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

// === impl Reason ===

impl SqlEnum for QuarantineReason {
    const ALL: &'static [Self] = &[Self::Undecodable, Self::RefusedByDatabase];

    fn as_sql(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::RefusedByDatabase => "refused_by_database",
        }
    }
}
