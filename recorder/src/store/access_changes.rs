//! Statements for the `access_changes` table: ended sessions and disabled users on their way to the bucket `ACCESS`. The changes are
//! inserted by the statements that end sessions and disable users, in `sessions` and `users`.

use shared::id::UserId;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::utc;

/// A change to carry to the bucket.
#[derive(Clone, Debug)]
pub struct AccessChange {
    /// The number of the change.
    pub number: i64,
    /// The changed session or user; none for an id that no session and no user can have.
    pub subject: Option<ChangedSubject>,
    /// The time of the change.
    pub changed_at: OffsetDateTime,
}

/// A session or a user whose access changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangedSubject {
    /// A session that ended.
    Session(Uuid),
    /// A user who was disabled or enabled.
    User(UserId),
}

/// Reads the first changes, at most `limit`, in their order.
pub async fn first(pool: &PgPool, limit: i64) -> Result<Vec<AccessChange>, sqlx::Error> {
    let rows =
        sqlx::query!("SELECT number, kind, subject, changed_at FROM access_changes ORDER BY number LIMIT $1", limit);
    let rows = rows.fetch_all(pool).await?.into_iter().map(|row| AccessChange {
        number: row.number,
        subject: match row.kind.as_str() {
            "session" => row.subject.parse().ok().map(ChangedSubject::Session),
            _ => row.subject.parse().ok().map(ChangedSubject::User),
        },
        changed_at: utc(row.changed_at),
    });
    Ok(rows.collect())
}

/// Deletes changes that the bucket has. A later change of the same subject has another number, and stays.
pub async fn delete(pool: &PgPool, numbers: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM access_changes WHERE number = ANY($1)", numbers).execute(pool).await?;
    Ok(())
}

/// Deletes ends of sessions from before the given time, at most 1000 for each call: without `NATS_URL`, nobody carries them.
pub async fn delete_old_sessions(pool: &PgPool, before: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM access_changes WHERE number IN (
             SELECT number FROM access_changes WHERE kind = 'session' AND changed_at < $1 ORDER BY number LIMIT 1000)",
        before
    )
    .execute(pool)
    .await?;
    Ok(())
}
