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
    /// The id of the message.
    id: Uuid,
    /// The chat of the message.
    chat_id: Uuid,
    /// user, tool (or another role that the client gave), or assistant.
    role: String,
    /// complete; partial (the answer broke off); truncated (the answer was longer than the recorded part).
    status: String,
    /// The parts of the message that were recorded: full, metadata or none. Without full, all texts are empty or null, because they were
    /// not recorded.
    recording: String,
    /// The text of the message.
    content: String,
    /// Reasoning text, if the model showed any.
    reasoning: Option<String>,
    /// The model's refusal, if the provider sent one separate from the text.
    refusal: Option<String>,
    /// Calls of the client's tools: an array of id, name, arguments.
    #[schema(value_type = Option<Vec<Object>>)]
    tool_calls: Option<serde_json::Value>,
    /// The id of the tool call that the message answers, as the model named it.
    tool_call_id: Option<String>,
    /// The reason for the end of the answer, in the provider's word.
    finish_reason: Option<String>,
    /// The model that the client asked for.
    model: String,
    /// Output tokens of an answer.
    tokens: Option<i64>,
    /// The start of the chat for a new message, the end of the chat for an answer.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// Messages of a conversation, with the chats of the messages. A chat has its new messages first (one, several or none), then its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Messages {
    /// The messages.
    pub(crate) data: Vec<Message>,
    /// The chats of these messages, with status and errors.
    pub(crate) chats: Vec<Chat>,
    /// The cursor of the next page; null on the last page.
    pub(crate) next_cursor: Option<String>,
}

impl From<reads::messages::MessageRecord> for Message {
    fn from(row: reads::messages::MessageRecord) -> Self {
        Self {
            id: row.message_id,
            chat_id: row.chat_id,
            role: row.role,
            status: row.status,
            recording: row.recording,
            content: row.content,
            reasoning: row.reasoning,
            refusal: row.refusal,
            tool_calls: row.tool_calls.filter(serde_json::Value::is_array),
            tool_call_id: row.tool_call_id,
            finish_reason: row.finish_reason,
            model: row.model,
            tokens: row.tokens,
            created_at: row.created_at,
        }
    }
}
