//! Queries for responses of OpenAI's Responses API, from the `chats` table.

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

/// The chat that made a response.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the columns, which have comments")]
pub struct ResponseRecord {
    pub chat_id: Uuid,
    pub upstream_name: Option<String>,
    pub model: String,
    pub status: String,
    pub started_at: OffsetDateTime,
}

/// Returns the latest of a user's chats that made the response with this id. Providers reuse ids, so there may be several.
pub async fn by_id(pool: &PgPool, user: &str, response_id: &str) -> Result<Option<ResponseRecord>, sqlx::Error> {
    sqlx::query_as!(
        ResponseRecord,
        "SELECT chat_id, upstream_name, model, status, started_at FROM chats
         WHERE user_id = $1 AND upstream_response_id = $2 AND dialect = 'openai_responses'
         ORDER BY started_at DESC, chat_id DESC LIMIT 1",
        user,
        response_id
    )
    .fetch_optional(pool)
    .await
}
