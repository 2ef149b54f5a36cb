//! The `invite_codes` table.

use shared::token::Role;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::utc;
use super::users::role_name;
use crate::cursor::TimeCursor;

/// An invite, without its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Its name in lists.
    pub invite_id: Uuid,
    /// What it is for.
    pub note: Option<String>,
    /// The role of the accounts made with it.
    pub role: Option<Role>,
    /// Who made it; none: an operator.
    pub created_by: Option<String>,
    /// When.
    pub created_at: OffsetDateTime,
    /// Until when it is good.
    pub expires_at: OffsetDateTime,
    /// How many accounts may be made with it.
    pub max_uses: i32,
    /// How many have been.
    pub uses: i32,
    /// Since when it is good for nothing.
    pub revoked_at: Option<OffsetDateTime>,
}

/// Keeps an invite.
pub async fn create(pool: &PgPool, invite: &Invite, code_hash: &[u8]) -> Result<(), sqlx::Error> {
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
    .execute(pool)
    .await?;
    Ok(())
}

/// Whether an account could be made with this code now.
pub async fn is_usable(pool: &PgPool, code_hash: &[u8], now: OffsetDateTime) -> Result<bool, sqlx::Error> {
    let good = sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM invite_codes
             WHERE code_hash = $1 AND revoked_at IS NULL AND expires_at > $2 AND uses < max_uses) AS \"good!\"",
        code_hash,
        now
    );
    good.fetch_one(pool).await
}

/// Uses a code once, if it is good; whoever comes at the same time waits to see whether there is a use left.
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

/// From now on nobody can use it. False: there is no such invite.
pub async fn revoke(pool: &PgPool, invite_id: Uuid, now: OffsetDateTime) -> Result<bool, sqlx::Error> {
    let revoked = sqlx::query!(
        "UPDATE invite_codes SET revoked_at = COALESCE(revoked_at, $2) WHERE invite_id = $1",
        invite_id,
        now
    );
    Ok(revoked.execute(pool).await?.rows_affected() == 1)
}

/// Invites, newest first: their ids are in the order of time.
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
