//! Recent changes of the record, for live streams: the `live_changes` table.
//!
//! Changes are written after the events are committed and before the events are acknowledged. A change may therefore
//! appear twice, but is never missing.

use std::collections::BTreeSet;

use shared::event::{About, Event, FailureStage};
use sqlx::PgPool;
use time::{Date, Duration, OffsetDateTime};
use uuid::Uuid;

use crate::store::column;

/// The time for which changes can be read after publication.
pub const RETENTION: Duration = Duration::minutes(10);

/// A position in the sequence of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LivePosition {
    /// The id of the transaction that wrote the change.
    pub xid: i64,
    /// The number of the change within the transaction.
    pub number: i32,
}

/// A change in the record of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveChange {
    /// The position of the change in the sequence.
    pub position: LivePosition,
    /// The conversation of the change; none for a call that belongs to no conversation.
    pub conversation_id: Option<Uuid>,
    /// The id and the new status of the chat, if a chat has started or ended.
    pub chat: Option<(Uuid, String)>,
    /// The UTC day with changed usage.
    pub day: Date,
}

/// Publishes the changes caused by events to live streams. Call after the events have been committed to the tables.
pub async fn publish(pool: &PgPool, events: &[Event], now: OffsetDateTime) -> Result<(), sqlx::Error> {
    type Row = (String, Option<Uuid>, Option<Uuid>, Option<&'static str>, Date);
    let is_shown = |event: &&Event| !matches!(event.about(), About::Deployment);
    let rows: BTreeSet<Row> = events.iter().filter(is_shown).map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let rows: Vec<&Row> = rows.iter().collect();
    sqlx::query!(
        "INSERT INTO live_changes (number, user_id, conversation_id, chat_id, status, day, announced_at)
         SELECT number, user_id, conversation_id, chat_id, status, day, $6
         FROM UNNEST($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::date[]) WITH ORDINALITY
             AS new (user_id, conversation_id, chat_id, status, day, number)",
        &column(&rows, |row| row.0.as_str()) as _,
        &column(&rows, |row| row.1) as _,
        &column(&rows, |row| row.2) as _,
        &column(&rows, |row| row.3) as _,
        &column(&rows, |row| row.4) as _,
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Returns the horizon: every change before the horizon is visible, and no transaction of any recorder can add a change
/// before the horizon any more.
pub async fn horizon(pool: &PgPool) -> Result<LivePosition, sqlx::Error> {
    let xid = sqlx::query_scalar!(r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "xid!""#);
    Ok(LivePosition { xid: xid.fetch_one(pool).await?, number: 0 })
}

/// Returns those of `users` with changes after the position `after` and before the position `before`.
pub async fn users_with_changes(
    pool: &PgPool,
    users: &[String],
    (after, before): (LivePosition, LivePosition),
) -> Result<Vec<String>, sqlx::Error> {
    let users = sqlx::query_scalar!(
        r#"SELECT watching.user_id AS "user_id!" FROM UNNEST($1::text[]) AS watching (user_id)
           WHERE EXISTS (SELECT FROM live_changes l
                         WHERE l.user_id = watching.user_id AND (l.xid, l.number) > ($2::text::xid8, $3)
                           AND l.xid < $4::text::xid8)"#,
        users,
        after.xid.to_string(),
        after.number,
        before.xid.to_string()
    );
    users.fetch_all(pool).await
}

/// Returns a user's changes after the position `after` and before the position `before`, in order, at most `limit`
/// changes.
pub async fn changes_between(
    pool: &PgPool,
    user: &str,
    (after, before): (LivePosition, LivePosition),
    limit: i64,
) -> Result<Vec<LiveChange>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT xid::text::bigint AS "xid!", number, conversation_id, chat_id, status, day
           FROM live_changes
           WHERE (xid, number) > ($1::text::xid8, $2) AND xid < $3::text::xid8 AND user_id = $4
           ORDER BY live_changes.xid, number LIMIT $5"#,
        after.xid.to_string(),
        after.number,
        before.xid.to_string(),
        user,
        limit
    );
    let rows = rows.fetch_all(pool).await?.into_iter().map(|row| LiveChange {
        position: LivePosition { xid: row.xid, number: row.number },
        conversation_id: row.conversation_id,
        chat: row.chat_id.zip(row.status),
        day: row.day,
    });
    Ok(rows.collect())
}

/// Deletes changes older than twice [`RETENTION`], at most 20000 rows at a time. Returns the number of deleted rows.
pub async fn delete_old(pool: &PgPool, now: OffsetDateTime) -> Result<u64, sqlx::Error> {
    let before: OffsetDateTime = now - RETENTION * 2;
    let deleted = sqlx::query!(
        "DELETE FROM live_changes WHERE ctid = ANY(ARRAY(
             SELECT ctid FROM live_changes WHERE announced_at < $1 ORDER BY announced_at LIMIT 20000))",
        before
    );
    Ok(deleted.execute(pool).await?.rows_affected())
}

fn row(event: &Event) -> (String, Option<Uuid>, Option<Uuid>, Option<&'static str>, Date) {
    let (conversation, chat, at) = match event.about() {
        About::Chat { chat_id, conversation_id, started_at } => (conversation_id, Some(chat_id), started_at),
        About::Conversation(id) => (Some(id), None, event.time()),
        About::Deployment => (None, None, event.time()),
    };
    let status = chat.map(|_| match event {
        Event::MessageCompleted(_) => "completed",
        Event::ChatFailed(event) if event.stage == FailureStage::GatewayLost => "orphaned",
        Event::ChatFailed(_) => "failed",
        _ => "started",
    });
    let at = crate::projection::pg_value::pg_timestamp(at);
    (event.user_id().as_str().to_owned(), conversation.map(|id| id.0), chat.map(|id| id.0), status, at.date())
}
