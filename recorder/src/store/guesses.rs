//! Statements for the `guesses` table: counts of failed logins and failed invite codes, shared by all processes.

use sqlx::PgPool;
use time::OffsetDateTime;

/// Counts a guess, and returns the count of the current window with the beginning of the window. A window that began
/// before `window_start` has ended: a new window begins at `now`.
pub async fn count(
    pool: &PgPool,
    scope: &str,
    key_hash: &[u8],
    now: OffsetDateTime,
    window_start: OffsetDateTime,
) -> Result<(i32, OffsetDateTime), sqlx::Error> {
    let row = sqlx::query!(
        "INSERT INTO guesses AS g (scope, key_hash, count, since) VALUES ($1, $2, 1, $3)
         ON CONFLICT (scope, key_hash) DO UPDATE SET
             count = CASE WHEN g.since < $4 THEN 1 ELSE LEAST(g.count, 1000000) + 1 END,
             since = CASE WHEN g.since < $4 THEN $3 ELSE g.since END
         RETURNING count, since",
        scope,
        key_hash,
        now,
        window_start
    );
    let row = row.fetch_one(pool).await?;
    Ok((row.count, row.since))
}

/// Returns the count of the current window with the beginning of the window, and writes nothing. Without a guess since
/// `window_start`, returns `None`.
pub async fn current(
    pool: &PgPool,
    scope: &str,
    key_hash: &[u8],
    window_start: OffsetDateTime,
) -> Result<Option<(i32, OffsetDateTime)>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT count, since FROM guesses WHERE scope = $1 AND key_hash = $2 AND since >= $3",
        scope,
        key_hash,
        window_start
    );
    Ok(row.fetch_optional(pool).await?.map(|row| (row.count, row.since)))
}

/// Takes back one counted guess, after the password or code turned out to be right.
pub async fn decrement(pool: &PgPool, scope: &str, key_hash: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE guesses SET count = count - 1 WHERE scope = $1 AND key_hash = $2 AND count > 1",
        scope,
        key_hash
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Deletes the count for a key, after a successful login.
pub async fn clear(pool: &PgPool, scope: &str, key_hash: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM guesses WHERE scope = $1 AND key_hash = $2", scope, key_hash).execute(pool).await?;
    Ok(())
}

/// Deletes counts of windows that began before the given time, at most 1000 for each call. Returns the number deleted.
pub async fn delete_old(pool: &PgPool, before: OffsetDateTime) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "DELETE FROM guesses WHERE (scope, key_hash) IN (
             SELECT scope, key_hash FROM guesses WHERE since < $1 ORDER BY since LIMIT 1000)",
        before
    );
    Ok(deleted.execute(pool).await?.rows_affected())
}
