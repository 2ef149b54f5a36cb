//! The `sessions` and `refresh_tokens` tables.

use shared::id::UserId;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::user_id;

/// Why a session ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The user logged out.
    Logout,
    /// A refresh token came a second time.
    Reuse,
    /// The password was changed.
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

/// A refresh token, and the session that it belongs to.
#[derive(Clone, Debug)]
pub struct PresentedToken {
    /// The session.
    pub session_id: Uuid,
    /// Whose it is.
    pub user_id: UserId,
    /// Until when the session can be refreshed.
    pub expires_at: OffsetDateTime,
    /// Whether the session was ended.
    pub is_ended: bool,
    /// When the token was used before.
    pub used_at: Option<OffsetDateTime>,
}

/// Begins a session.
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

/// Keeps a refresh token of a session.
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

/// The token with this hash, its session locked: whoever comes with the same session waits.
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
    // Read once the lock is held: whoever held it before may have used the token.
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

/// Whether the token with this hash is there, and unused.
pub async fn is_unused(connection: &mut PgConnection, token_hash: &[u8]) -> Result<bool, sqlx::Error> {
    let unused = sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM refresh_tokens WHERE token_hash = $1 AND used_at IS NULL) AS \"unused!\"",
        token_hash
    );
    unused.fetch_one(connection).await
}

/// The token has been used.
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

/// Ends a session.
pub async fn end(
    connection: &mut PgConnection,
    session_id: Uuid,
    by: EndedBy,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sessions SET ended_at = $2, ended_by = $3 WHERE session_id = $1 AND ended_at IS NULL",
        session_id,
        now,
        by.as_sql()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends every session of a user but this one.
pub async fn end_others(
    connection: &mut PgConnection,
    user_id: &UserId,
    except: Option<Uuid>,
    by: EndedBy,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sessions SET ended_at = $3, ended_by = $4
         WHERE user_id = $1 AND session_id IS DISTINCT FROM $2 AND ended_at IS NULL",
        user_id.as_str(),
        except,
        now,
        by.as_sql()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a session was ended, or is not there at all.
pub async fn is_ended(pool: &PgPool, session_id: Uuid) -> Result<bool, sqlx::Error> {
    let open = sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM sessions WHERE session_id = $1 AND ended_at IS NULL) AS \"open!\"",
        session_id
    );
    Ok(!open.fetch_one(pool).await?)
}

/// Whether the account of this name has ever logged in from this address, as far back as sessions are kept.
pub async fn knows_address(pool: &PgPool, name: &str, address: &str) -> Result<bool, sqlx::Error> {
    let known = sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM sessions
             WHERE user_id = (SELECT user_id FROM users WHERE name = $1) AND address = $2) AS \"known!\"",
        name,
        address
    );
    known.fetch_one(pool).await
}

/// Deletes sessions that are over since before this time.
pub async fn delete_expired(pool: &PgPool, before: OffsetDateTime) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "DELETE FROM sessions WHERE session_id IN (
             SELECT session_id FROM sessions WHERE expires_at < $1 ORDER BY expires_at LIMIT 1000)",
        before
    );
    Ok(deleted.execute(pool).await?.rows_affected())
}
