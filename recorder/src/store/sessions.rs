//! Statements for the `sessions` and `refresh_tokens` tables.

use shared::id::UserId;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::{user_id, utc};
use crate::name_key::name_key;

/// The reason for which a session ended before its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The user logged out.
    Logout,
    /// A refresh token was used a second time, so two parties may hold the token.
    Reuse,
    /// The account's password was changed.
    Password,
    /// The account was disabled.
    Disabled,
}

impl EndedBy {
    fn as_sql(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Reuse => "reuse",
            Self::Password => "password",
            Self::Disabled => "disabled",
        }
    }
}

/// A presented refresh token, with the token's session.
#[derive(Clone, Debug)]
pub struct PresentedToken {
    /// The session of the token.
    pub session_id: Uuid,
    /// The user who logged in.
    pub user_id: UserId,
    /// The time until which the session can be refreshed.
    pub expires_at: OffsetDateTime,
    /// True when the session was ended before its expiry.
    pub is_ended: bool,
    /// The time of the token's first use; none for an unused token.
    pub used_at: Option<OffsetDateTime>,
}

/// Stores a new session after a login from the given address.
pub async fn create(
    connection: &mut PgConnection,
    session_id: Uuid,
    user_id: &UserId,
    address: &str,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO sessions (session_id, user_id, address, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        session_id,
        user_id.as_str(),
        address,
        now,
        expires_at
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores the hash of a new refresh token. A hash that exists already is left unchanged.
pub async fn add_token(
    connection: &mut PgConnection,
    token_hash: &[u8],
    session_id: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO refresh_tokens (token_hash, session_id, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        token_hash,
        session_id,
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Finds a refresh token by hash, and locks the token's session. Concurrent refreshes of one session wait for each
/// other. Returns none for an unknown token.
pub async fn find_token_for_update(
    connection: &mut PgConnection,
    token_hash: &[u8],
) -> Result<Option<PresentedToken>, sqlx::Error> {
    let session = sqlx::query_scalar!(
        "SELECT session_id FROM sessions WHERE session_id = (SELECT session_id FROM refresh_tokens WHERE token_hash = $1)
         FOR UPDATE",
        token_hash
    );
    if session.fetch_optional(&mut *connection).await?.is_none() {
        return Ok(None);
    }
    // Read only after the lock is held: the previous holder of the lock may have used the token.
    let row = sqlx::query!(
        "SELECT s.session_id, s.user_id, s.expires_at, s.ended_at, t.used_at
         FROM refresh_tokens t JOIN sessions s USING (session_id) WHERE t.token_hash = $1",
        token_hash
    );
    let Some(row) = row.fetch_optional(connection).await? else { return Ok(None) };
    Ok(Some(PresentedToken {
        session_id: row.session_id,
        user_id: user_id(row.user_id)?,
        expires_at: row.expires_at,
        is_ended: row.ended_at.is_some(),
        used_at: row.used_at,
    }))
}

/// Returns true when the token exists and has not been used.
pub async fn is_unused(connection: &mut PgConnection, token_hash: &[u8]) -> Result<bool, sqlx::Error> {
    let unused = sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM refresh_tokens WHERE token_hash = $1 AND used_at IS NULL) AS \"unused!\"",
        token_hash
    );
    unused.fetch_one(connection).await
}

/// Records the time of the token's use.
pub async fn mark_used(
    connection: &mut PgConnection,
    token_hash: &[u8],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE refresh_tokens SET used_at = $2 WHERE token_hash = $1", token_hash, now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends a session, and notes the end for the gateways. A session that has ended already keeps its first reason. Returns true if the session
/// ended just now.
pub async fn end(
    connection: &mut PgConnection,
    session_id: Uuid,
    by: EndedBy,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query!(
        "WITH ended AS (
             UPDATE sessions SET ended_at = $2, ended_by = $3 WHERE session_id = $1 AND ended_at IS NULL RETURNING session_id)
         INSERT INTO access_changes (kind, subject, changed_at)
             SELECT 'session', session_id::text, $2::timestamptz FROM ended
         ON CONFLICT (kind, subject) DO UPDATE SET number = EXCLUDED.number, changed_at = EXCLUDED.changed_at",
        session_id,
        now,
        by.as_sql()
    );
    Ok(ended.execute(connection).await?.rows_affected() > 0)
}

/// Ends all sessions of a user, except for one session if given, and notes the ends for the gateways. Returns the number of sessions.
pub async fn end_others(
    connection: &mut PgConnection,
    user_id: &UserId,
    except: Option<Uuid>,
    by: EndedBy,
    now: OffsetDateTime,
) -> Result<u64, sqlx::Error> {
    let ended = sqlx::query!(
        "WITH ended AS (
             UPDATE sessions SET ended_at = $3, ended_by = $4
             WHERE user_id = $1 AND session_id IS DISTINCT FROM $2 AND ended_at IS NULL RETURNING session_id)
         INSERT INTO access_changes (kind, subject, changed_at)
             SELECT 'session', session_id::text, $3::timestamptz FROM ended
         ON CONFLICT (kind, subject) DO UPDATE SET number = EXCLUDED.number, changed_at = EXCLUDED.changed_at",
        user_id.as_str(),
        except,
        now,
        by.as_sql()
    );
    Ok(ended.execute(connection).await?.rows_affected())
}

/// Returns true when the session has been ended, or does not exist.
pub async fn is_ended(pool: &PgPool, session_id: Uuid) -> Result<bool, sqlx::Error> {
    let open = sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM sessions WHERE session_id = $1 AND ended_at IS NULL) AS \"open!\"",
        session_id
    );
    Ok(!open.fetch_one(pool).await?)
}

/// Returns those of the sessions that have been ended.
pub async fn ended_among(pool: &PgPool, sessions: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    let ended = sqlx::query_scalar!(
        "SELECT session_id FROM sessions WHERE session_id = ANY($1) AND ended_at IS NOT NULL",
        sessions
    );
    ended.fetch_all(pool).await
}

/// Returns up to `limit` ended sessions with the times of their ends, in the order of ends, after the given end.
pub async fn ended_after(
    pool: &PgPool,
    after: (OffsetDateTime, Uuid),
    limit: i64,
) -> Result<Vec<(OffsetDateTime, Uuid)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT ended_at AS \"ended_at!\", session_id FROM sessions
         WHERE ended_at IS NOT NULL AND (ended_at, session_id) > ($1, $2) ORDER BY ended_at, session_id LIMIT $3",
        after.0,
        after.1,
        limit
    );
    Ok(rows.fetch_all(pool).await?.into_iter().map(|row| (utc(row.ended_at), row.session_id)).collect())
}

/// Returns true when the account logged in from this address before, as far back as sessions are kept.
pub async fn knows_address(pool: &PgPool, name: &str, address: &str) -> Result<bool, sqlx::Error> {
    let known = sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM sessions
             WHERE user_id = (SELECT user_id FROM users WHERE name = $1 OR name_key = $3 ORDER BY name = $1 DESC LIMIT 1)
               AND address = $2) AS \"known!\"",
        name,
        address,
        name_key(name)
    );
    known.fetch_one(pool).await
}

/// Deletes sessions that expired before the given time, at most 1000 for each call. Returns the number deleted.
pub async fn delete_expired(pool: &PgPool, before: OffsetDateTime) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "DELETE FROM sessions WHERE session_id IN (
             SELECT session_id FROM sessions WHERE expires_at < $1 ORDER BY expires_at LIMIT 1000)",
        before
    );
    Ok(deleted.execute(pool).await?.rows_affected())
}
