//! A response of OpenAI's Responses API, as the recorder's API answers.

use serde::Deserialize;
use shared::event::{ChatDeferred, Operation, RecordingMode};
use shared::id::{ChatId, ConversationId, KeyId, ProjectId, UserId};
use time::OffsetDateTime;

/// The chat that made a response, or makes it in the background.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeResponse {
    /// The name of the upstream.
    pub upstream: Option<String>,
    /// The status of the chat: `started`, `completed`, `failed` or `orphaned`.
    pub status: String,
    /// True if the response was made in the background, or is still being made. False in answers of recorders that know none.
    #[serde(default)]
    pub is_deferred: bool,
    /// The API's id of the response.
    id: String,
    chat_id: ChatId,
    conversation_id: Option<ConversationId>,
    /// Absent in answers of recorders that know no deferred chats.
    #[serde(default)]
    operation: Option<Operation>,
    key_id: Option<KeyId>,
    project_id: Option<ProjectId>,
    #[serde(default)]
    gateway: String,
    #[serde(default)]
    recording: RecordingMode,
    model: String,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
}

impl MadeResponse {
    /// Returns the event of a chat whose answer is made in the background.
    pub fn deferred(self, user: &UserId) -> ChatDeferred {
        ChatDeferred {
            chat_id: self.chat_id,
            operation: self.operation.unwrap_or(Operation::Chat),
            conversation_id: self.conversation_id,
            user_id: user.clone(),
            key_id: self.key_id,
            project_id: self.project_id,
            gateway: self.gateway,
            started_at: self.started_at,
            deferred_at: self.started_at,
            model: self.model,
            upstream: self.upstream.unwrap_or_default(),
            response_id: self.id,
            recording: self.recording,
            traceparent: None,
            restored: None,
        }
    }
}
