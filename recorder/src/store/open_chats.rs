//! Queries for open chats: rows of the `chats` table with the status `started`.

use shared::event::{Operation, RecordingMode};
use shared::id::{ChatId, ConversationId, KeyId, ProjectId, UserId};
use sqlx::PgPool;
use time::OffsetDateTime;

use super::read::{sql_enum, user_id, utc};
use crate::policy::failure_detector::OpenGateway;

/// The gateways that have open chats, ordered by the oldest open chat; at most `limit` gateways.
pub async fn open_gateways(pool: &PgPool, limit: u16) -> Result<Vec<OpenGateway>, sqlx::Error> {
    sqlx::query_as!(
        OpenGateway,
        r#"SELECT gateway, min(started_at) AS "oldest!" FROM chats
           WHERE status = 'started' GROUP BY gateway ORDER BY min(started_at) LIMIT $1"#,
        i64::from(limit)
    )
    .fetch_all(pool)
    .await
}

/// A chat without an ending.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of Chat")]
pub struct OpenChat {
    pub chat_id: ChatId,
    pub conversation_id: Option<ConversationId>,
    pub operation: Operation,
    pub user_id: UserId,
    pub key_id: Option<KeyId>,
    pub project_id: Option<ProjectId>,
    pub gateway: String,
    pub model: String,
    pub started_at: OffsetDateTime,
    pub recording: RecordingMode,
}

/// Up to `limit` open chats that started before the given time, oldest first; of one gateway, or of all gateways
/// without a name.
pub async fn open(
    pool: &PgPool,
    gateway: Option<&str>,
    before: OffsetDateTime,
    limit: u16,
) -> Result<Vec<OpenChat>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT chat_id, conversation_id, operation, user_id, key_id, project_id, gateway, model, started_at,
                recording
         FROM chats
         WHERE status = 'started' AND ($1::text IS NULL OR gateway = $1) AND started_at < $2
         ORDER BY started_at, chat_id LIMIT $3",
        gateway,
        before,
        i64::from(limit)
    );
    let rows = rows.fetch_all(pool).await?.into_iter().map(|row| {
        Ok(OpenChat {
            chat_id: ChatId(row.chat_id),
            conversation_id: row.conversation_id.map(ConversationId),
            operation: sql_enum("operation", Some(&row.operation))?,
            user_id: user_id(row.user_id)?,
            key_id: row.key_id.map(KeyId),
            project_id: row.project_id.map(ProjectId),
            gateway: row.gateway,
            model: row.model,
            started_at: utc(row.started_at),
            recording: sql_enum("recording", Some(&row.recording))?,
        })
    });
    rows.collect()
}
