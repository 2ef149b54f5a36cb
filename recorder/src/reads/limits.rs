//! What a user has used of limits, from the `chats` table.

use std::collections::BTreeMap;

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

/// The recorded use of a user or a key in a minute of the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordedUse {
    /// The calls that began in the minute.
    pub requests: i64,
    /// The tokens, reported or estimated, of the calls that began in the minute and have ended.
    pub tokens: i64,
    /// The calls that run.
    pub running: i64,
}

/// Returns a user's recorded use since the time `minute`, by API key; none for calls with a session.
pub async fn use_of(
    pool: &PgPool,
    user: &str,
    minute: OffsetDateTime,
) -> Result<BTreeMap<Option<Uuid>, RecordedUse>, sqlx::Error> {
    let began = sqlx::query!(
        r#"SELECT key_id, count(*) AS "requests!", coalesce(sum(total_tokens), 0)::bigint AS "tokens!"
           FROM chats WHERE user_id = $1 AND started_at >= $2 GROUP BY key_id"#,
        user,
        minute
    );
    let running = sqlx::query!(
        r#"SELECT key_id, count(*) AS "running!" FROM chats WHERE status = 'started' AND user_id = $1 GROUP BY key_id"#,
        user
    );
    let mut uses = BTreeMap::<Option<Uuid>, RecordedUse>::new();
    for row in began.fetch_all(pool).await? {
        uses.insert(row.key_id, RecordedUse { requests: row.requests, tokens: row.tokens, running: 0 });
    }
    for row in running.fetch_all(pool).await? {
        uses.entry(row.key_id).or_default().running = row.running;
    }
    Ok(uses)
}
