//! The JSON shape of messages.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::chat::Chat;
use crate::reads;

/// A message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    /// The id.
    id: Uuid,
    /// The chat it belongs to.
    chat_id: Uuid,
    /// user, tool (or whatever role the client gave it), or assistant.
    role: String,
    /// complete; partial: the answer broke off; truncated: it was longer than what is recorded.
    status: String,
    /// The text.
    content: String,
    /// Reasoning, where the model showed any.
    reasoning: Option<String>,
    /// The model's refusal, where it came apart from the text.
    refusal: Option<String>,
    /// Calls of tools: an array of id, name, arguments.
    #[schema(value_type = Option<Vec<Object>>)]
    tool_calls: Option<serde_json::Value>,
    /// Why the answer ended, in the provider's word.
    finish_reason: Option<String>,
    /// The model that was asked for.
    model: String,
    /// Output tokens of an answer.
    tokens: Option<i64>,
    /// When it was asked, or when the answer ended.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// Messages of a conversation, and the chats they belong to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Messages {
    /// The messages.
    pub(crate) data: Vec<Message>,
    /// The chats of these messages: where their state and errors are.
    pub(crate) chats: Vec<Chat>,
    /// Where the next page begins; null: there is none.
    pub(crate) next_cursor: Option<String>,
}

impl From<reads::messages::MessageRecord> for Message {
    fn from(row: reads::messages::MessageRecord) -> Self {
        Self {
            id: row.message_id,
            chat_id: row.chat_id,
            role: row.role,
            status: row.status,
            content: row.content,
            reasoning: row.reasoning,
            refusal: row.refusal,
            tool_calls: row.tool_calls.filter(serde_json::Value::is_array),
            finish_reason: row.finish_reason,
            model: row.model,
            tokens: row.tokens,
            created_at: row.created_at,
        }
    }
}
