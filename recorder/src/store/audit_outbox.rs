//! Statements for the `audit_outbox` and `audit_windows` tables: entries of the audit log on their way to the stream.
//!
//! An act is noted in the transaction of the act, so neither is there without the other. The first of several equal acts gets an entry at
//! once; the further ones within a minute are counted, and get one entry together when the minute is over. So equal acts make two entries a
//! minute at most, however many they are.

use sha2::{Digest as _, Sha256};
use shared::event::{
    ANONYMOUS, AuditAction, AuditOutcome, AuditRecorded, AuditTarget, AuditTargetKind, COMMAND_LINE, Event,
};
use shared::id::{AuditId, UserId};
use sqlx::{PgConnection, PgPool};
use time::{Duration, OffsetDateTime};

use super::read::utc;

/// The time in which equal acts are counted together, from the first one on.
const WINDOW: Duration = Duration::MINUTE;
/// The maximum number of different acts of somebody who has not logged in, in a window. Further ones are counted without address and target.
const MAX_ANONYMOUS: i64 = 1000;
/// The maximum number of entries that wait for the broker. Further acts are not noted.
const MAX_WAITING: i64 = 100_000;

/// An act for the audit log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    /// The user who acts, `cli` or `anonymous`.
    pub actor: String,
    /// The kind of the act.
    pub action: AuditAction,
    /// The thing that the act is about.
    pub target: Option<(AuditTargetKind, String)>,
    /// The outcome.
    pub outcome: AuditOutcome,
    /// The address of the client, as sessions have it.
    pub address: Option<String>,
}

/// Who acts, and from which address.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// The user, `cli` or `anonymous`.
    pub id: &'a str,
    /// The address of the client.
    pub address: Option<&'a str>,
}

/// An entry that waits for the broker.
#[derive(Clone, Debug)]
pub struct WaitingEntry {
    /// The number of the entry in the table.
    pub number: i64,
    /// The event; none for a row that no event can have.
    pub event: Option<Event>,
}

impl Actor<'static> {
    /// The command line.
    pub const COMMAND_LINE: Self = Self { id: COMMAND_LINE, address: None };
}

impl<'a> Actor<'a> {
    /// Somebody who has not logged in.
    pub fn anonymous(address: &'a str) -> Self {
        Self { id: ANONYMOUS, address: Some(address) }
    }

    /// A user, at an address.
    pub fn user(id: &'a UserId, address: &'a str) -> Self {
        Self { id: id.as_str(), address: Some(address) }
    }

    /// An act that was done.
    pub fn act(self, action: AuditAction) -> Act {
        Act {
            actor: self.id.to_owned(),
            action,
            target: None,
            outcome: AuditOutcome::Success,
            address: self.address.map(str::to_owned),
        }
    }
}

impl Act {
    /// The act, about a thing.
    #[must_use]
    pub fn on(self, kind: AuditTargetKind, id: &impl ToString) -> Self {
        Self { target: Some((kind, id.to_string())), ..self }
    }

    /// The act, with another outcome than success.
    #[must_use]
    pub fn with(self, outcome: AuditOutcome) -> Self {
        Self { outcome, ..self }
    }

    /// The SHA-256 of all parts, each with its length.
    fn digest(&self) -> [u8; 32] {
        let (kind, id) = self.target.as_ref().map_or(("", ""), |(kind, id)| (kind.as_str(), id.as_str()));
        let address = self.address.as_deref().unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [&self.actor, self.action.as_str(), kind, id, self.outcome.as_str(), address] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// Notes `times` equal acts, in the caller's transaction.
pub async fn note(connection: &mut PgConnection, act: &Act, times: u64) -> Result<(), sqlx::Error> {
    if act.actor == ANONYMOUS && !has_room(connection, &act.digest()).await? {
        let many = Act { target: None, address: None, ..act.clone() };
        return write(connection, &many, times).await;
    }
    write(connection, act, times).await
}

/// True if the act has a window, or may get one.
async fn has_room(connection: &mut PgConnection, digest: &[u8; 32]) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM audit_windows WHERE digest = $1)
             OR (SELECT count(*) FROM (SELECT FROM audit_windows WHERE actor = 'anonymous' LIMIT $2) few) < $2 AS \"room!\"",
        digest.as_slice(),
        MAX_ANONYMOUS
    )
    .fetch_one(connection)
    .await
}

async fn write(connection: &mut PgConnection, act: &Act, times: u64) -> Result<(), sqlx::Error> {
    let (now, digest) = (shared::event::now(), act.digest());
    let noted = sqlx::query_scalar!(
        "WITH noted AS (
             INSERT INTO audit_windows AS w
                 (digest, actor, action, target_kind, target_id, outcome, address, ends_at, last_at, count)
             SELECT $1::bytea, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::timestamptz, $9::timestamptz, 0
             WHERE (SELECT COALESCE(max(number) - min(number), 0) FROM audit_outbox) < $11
             ON CONFLICT (digest) DO UPDATE SET count = w.count + $10::bigint, last_at = EXCLUDED.last_at
             RETURNING w.count),
         entry AS (
             INSERT INTO audit_outbox
                 (audit_id, recorded_at, actor, action, target_kind, target_id, outcome, address, count)
             SELECT gen_random_uuid(), $9, $2, $3, $4, $5, $6, $7, $10 FROM noted WHERE count = 0)
         SELECT count FROM noted",
        digest.as_slice(),
        act.actor,
        act.action.as_str(),
        act.target.as_ref().map(|(kind, _)| kind.as_str()),
        act.target.as_ref().map(|(_, id)| id.as_str()),
        act.outcome.as_str(),
        act.address,
        now + WINDOW,
        now,
        i64::try_from(times.max(1)).unwrap_or(i64::MAX),
        MAX_WAITING
    );
    if noted.fetch_optional(connection).await?.is_none() {
        tracing::error!(
            action = act.action.as_str(),
            "an act is missing in the audit log: {MAX_WAITING} entries wait for the broker already, expected a `recorder serve` with NATS_URL"
        );
    }
    Ok(())
}

/// Ends the windows that are over, at most 1000 of them, and makes entries of the acts that were counted. Processes that do so at the same time end
/// different windows.
pub async fn end_windows(pool: &PgPool, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH ended AS (
             DELETE FROM audit_windows WHERE digest IN (
                 SELECT digest FROM audit_windows WHERE ends_at <= $1 ORDER BY ends_at LIMIT 1000 FOR UPDATE SKIP LOCKED)
             RETURNING actor, action, target_kind, target_id, outcome, address, last_at, count)
         INSERT INTO audit_outbox
             (audit_id, recorded_at, actor, action, target_kind, target_id, outcome, address, count)
         SELECT gen_random_uuid(), last_at, actor, action, target_kind, target_id, outcome, address, count
         FROM ended WHERE count > 0",
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Reads the first entries, at most `limit`, in their order.
pub async fn first(pool: &PgPool, limit: i64) -> Result<Vec<WaitingEntry>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT number, audit_id, recorded_at, actor, action, target_kind, target_id, outcome, address, count
         FROM audit_outbox ORDER BY number LIMIT $1",
        limit
    );
    let entries = rows.fetch_all(pool).await?.into_iter().map(|row| {
        let target = match row.target_kind.zip(row.target_id) {
            Some((kind, id)) => kind.parse().ok().map(|kind| Some(AuditTarget { kind, id })),
            None => Some(None),
        };
        let event = || {
            Some(Event::AuditRecorded(Box::new(AuditRecorded {
                audit_id: AuditId(row.audit_id),
                recorded_at: utc(row.recorded_at),
                actor: row.actor.parse().ok()?,
                action: row.action.parse().ok()?,
                target: target?,
                outcome: row.outcome.parse().ok()?,
                address: row.address,
                count: row.count.unsigned_abs(),
                restored: None,
            })))
        };
        WaitingEntry { number: row.number, event: event() }
    });
    Ok(entries.collect())
}

/// Deletes entries that the stream has.
pub async fn delete(pool: &PgPool, numbers: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM audit_outbox WHERE number = ANY($1)", numbers).execute(pool).await?;
    Ok(())
}

/// The number of entries that wait for the broker, as far as the numbers of the rows say: an upper bound.
pub async fn waiting(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let waiting =
        sqlx::query_scalar!("SELECT COALESCE(max(number) - min(number) + 1, 0) AS \"waiting!\" FROM audit_outbox");
    waiting.fetch_one(pool).await
}
