//! Queries for responses of OpenAI's Responses API, from the `chats` table.

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

/// The chat that made a response.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the columns, which have comments")]
pub struct ResponseRecord {
    pub chat_id: Uuid,
    pub conversation_id: Option<Uuid>,
    pub operation: String,
    pub key_id: Option<Uuid>,
    pub project_id: Option<Uuid>,
    pub gateway: String,
    pub recording: String,
    /// The upstream that made the response, or makes the response in the background.
    pub upstream_name: Option<String>,
    pub model: String,
    pub status: String,
    pub started_at: OffsetDateTime,
    /// True if the response was made in the background, or is still being made.
    pub is_deferred: bool,
}

/// Returns the latest of a user's chats that made the response with this id, or whose answer has this id and is made in the background.
/// Providers reuse ids, so there may be several.
pub async fn by_id(pool: &PgPool, user: &str, response_id: &str) -> Result<Option<ResponseRecord>, sqlx::Error> {
    sqlx::query_as!(
        ResponseRecord,
        r#"SELECT chat_id AS "chat_id!", conversation_id, operation AS "operation!", key_id, project_id,
                  gateway AS "gateway!", recording AS "recording!", upstream_name, model AS "model!",
                  status AS "status!", started_at AS "started_at!", is_deferred AS "is_deferred!"
         FROM (
             SELECT chat_id, conversation_id, operation, key_id, project_id, gateway, recording, upstream_name,
                    model, status, started_at, deferred_at IS NOT NULL AS is_deferred
             FROM chats
             WHERE user_id = $1 AND upstream_response_id = $2 AND dialect = 'openai_responses'
             UNION ALL
             SELECT chat_id, conversation_id, operation, key_id, project_id, gateway, recording, deferred_upstream,
                    model, status, started_at, true
             FROM chats
             WHERE user_id = $1 AND deferred_response_id = $2
         ) AS made
         ORDER BY started_at DESC, chat_id DESC LIMIT 1"#,
        user,
        response_id
    )
    .fetch_optional(pool)
    .await
}
