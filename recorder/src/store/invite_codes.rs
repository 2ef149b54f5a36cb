//! Statements for the `invite_codes` table.

use shared::token::Role;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::utc;
use super::users::role_name;
use crate::cursor::TimeCursor;

/// An invite code's row. The code is never stored, only the code's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// The public id in lists: a UUIDv7, from which the code cannot be derived.
    pub invite_id: Uuid,
    /// A note by the author about the purpose of the invite.
    pub note: Option<String>,
    /// The role of accounts made with the code; none for a normal user.
    pub role: Option<Role>,
    /// The author of the invite; none for an operator on the command line.
    pub created_by: Option<String>,
    /// The time of creation.
    pub created_at: OffsetDateTime,
    /// The time after which the code is refused.
    pub expires_at: OffsetDateTime,
    /// The maximum number of accounts made with the code.
    pub max_uses: i32,
    /// The number of accounts made so far.
    pub uses: i32,
    /// The time of revocation; none while the invite has not been revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

/// Stores a new invite with the hash of the code.
pub async fn create(connection: &mut PgConnection, invite: &Invite, code_hash: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO invite_codes (code_hash, invite_id, note, role, created_by, created_at, expires_at, max_uses)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        code_hash,
        invite.invite_id,
        invite.note,
        invite.role.map(role_name),
        invite.created_by,
        invite.created_at,
        invite.expires_at,
        invite.max_uses
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns true when the code could be used now: known, not revoked, not expired and not used up.
pub async fn is_usable(pool: &PgPool, code_hash: &[u8], now: OffsetDateTime) -> Result<bool, sqlx::Error> {
    let good = sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM invite_codes
             WHERE code_hash = $1 AND revoked_at IS NULL AND expires_at > $2 AND uses < max_uses) AS \"good!\"",
        code_hash,
        now
    );
    good.fetch_one(pool).await
}

/// Uses a code once, and returns the invite's id and role; none when the code cannot be used. Concurrent callers wait
/// for each other, so the maximum number of uses is never exceeded.
pub async fn redeem(
    connection: &mut PgConnection,
    code_hash: &[u8],
    now: OffsetDateTime,
) -> Result<Option<(Uuid, Option<Role>)>, sqlx::Error> {
    let taken = sqlx::query!(
        "UPDATE invite_codes SET uses = uses + 1
         WHERE code_hash = $1 AND revoked_at IS NULL AND expires_at > $2 AND uses < max_uses
         RETURNING invite_id, role",
        code_hash,
        now
    );
    let taken = taken.fetch_optional(connection).await?;
    Ok(taken.map(|row| (row.invite_id, row.role.map(|_| Role::Admin))))
}

/// Revokes an invite. Returns false when there is no such invite. A second revocation keeps the first time.
pub async fn revoke(connection: &mut PgConnection, invite_id: Uuid, now: OffsetDateTime) -> Result<bool, sqlx::Error> {
    let revoked = sqlx::query!(
        "UPDATE invite_codes SET revoked_at = COALESCE(revoked_at, $2) WHERE invite_id = $1",
        invite_id,
        now
    );
    Ok(revoked.execute(connection).await?.rows_affected() == 1)
}

/// A page of invites, newest first. The ids are UUIDv7, so the order of ids is the order of creation.
pub async fn page(pool: &PgPool, before: TimeCursor, limit: i64) -> Result<Vec<Invite>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT invite_id, note, role, created_by, created_at, expires_at, max_uses, uses, revoked_at
         FROM invite_codes WHERE invite_id < $1 ORDER BY invite_id DESC LIMIT $2",
        before.id,
        limit
    );
    let rows = rows.fetch_all(pool).await?.into_iter().map(|row| Invite {
        invite_id: row.invite_id,
        note: row.note,
        role: row.role.map(|_| Role::Admin),
        created_by: row.created_by,
        created_at: utc(row.created_at),
        expires_at: utc(row.expires_at),
        max_uses: row.max_uses,
        uses: row.uses,
        revoked_at: row.revoked_at.map(utc),
    });
    Ok(rows.collect())
}
