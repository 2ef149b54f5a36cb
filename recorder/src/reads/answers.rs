//! Queries for the answer of a chat, from the tables `chats` and `messages`.

use shared::id::ChatId;
use sqlx::PgPool;
use uuid::Uuid;

/// A chat and its answer. The columns of the answer are `None` without an answer.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the columns, which have comments")]
pub struct AnswerRecord {
    pub conversation_id: Option<Uuid>,
    pub model: String,
    pub status: String,
    pub recording: String,
    pub stage: Option<String>,
    pub error_message: Option<String>,
    pub message_id: Option<Uuid>,
    pub message_status: Option<String>,
    pub content: Option<String>,
    pub reasoning: Option<String>,
    pub refusal: Option<String>,
    pub tool_calls: Option<serde_json::Value>,
    pub finish_reason: Option<String>,
}

/// Returns a chat of the user with its answer. `None` for a chat of another user, and of a deleted conversation.
pub async fn of_chat(pool: &PgPool, user: &str, chat: ChatId) -> Result<Option<AnswerRecord>, sqlx::Error> {
    sqlx::query_as!(
        AnswerRecord,
        r#"SELECT c.conversation_id, c.model, c.status, c.recording, c.stage, c.error_message, m.message_id AS "message_id?",
                  m.status AS "message_status?", m.content AS "content?", m.reasoning, m.refusal, m.tool_calls, m.finish_reason
           FROM chats c LEFT JOIN messages m ON m.message_id = $3
           WHERE c.chat_id = $1 AND c.user_id = $2
             AND (SELECT d.deleted_at FROM conversations d WHERE d.conversation_id = c.conversation_id) IS NULL"#,
        chat.0,
        user,
        chat.assistant_message().0
    )
    .fetch_optional(pool)
    .await
}
