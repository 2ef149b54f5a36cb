//! The answer of a chat, as the gateway reads it for a client that resumes the answer.

use serde::Serialize;
use shared::id::ChatId;
use uuid::Uuid;

use crate::reads::answers::AnswerRecord;

/// A chat and its answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    chat_id: Uuid,
    conversation_id: Option<Uuid>,
    model: String,
    /// `started`, `completed`, `failed` or `orphaned`.
    status: String,
    /// The parts that the record keeps: `full`, `metadata` or `none`.
    recording: String,
    /// Where the chat failed.
    stage: Option<String>,
    error: Option<String>,
    message: Option<AnswerMessage>,
}

/// The message of the assistant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AnswerMessage {
    id: Uuid,
    status: String,
    content: String,
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<serde_json::Value>,
    finish_reason: Option<String>,
}

impl Answer {
    /// Creates the view of the chat with this id.
    pub(crate) fn new(chat: ChatId, record: AnswerRecord) -> Self {
        let AnswerRecord { conversation_id, model, status, recording, stage, error_message, .. } = record;
        let message = record.message_id.map(|id| AnswerMessage {
            id,
            status: record.message_status.unwrap_or_default(),
            content: record.content.unwrap_or_default(),
            reasoning: record.reasoning,
            refusal: record.refusal,
            tool_calls: record.tool_calls.filter(serde_json::Value::is_array),
            finish_reason: record.finish_reason,
        });
        Self { chat_id: chat.0, conversation_id, model, status, recording, stage, error: error_message, message }
    }
}
