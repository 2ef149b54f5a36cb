//! A response of OpenAI's Responses API, as the API shows the response.

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reads::responses::ResponseRecord;

/// A response of OpenAI's Responses API, and the chat that made the response.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MadeResponse {
    /// The provider's id of the response.
    id: String,
    /// The chat that made the response.
    chat_id: Uuid,
    /// The conversation of the chat.
    conversation_id: Option<Uuid>,
    /// The kind of the call.
    operation: String,
    /// The API key with which the caller authenticated.
    key_id: Option<Uuid>,
    /// The project of the API key.
    project_id: Option<Uuid>,
    /// The gateway that served the chat.
    gateway: String,
    /// The parts of the chat that its events keep.
    recording: String,
    /// True if the response was made in the background, or is still being made.
    is_deferred: bool,
    /// The name of the upstream that made the response.
    upstream: Option<String>,
    /// The model that the client requested.
    model: String,
    /// The status of the chat: `started`, `completed`, `failed` or `orphaned`.
    status: String,
    /// The start of the chat.
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
}

impl MadeResponse {
    /// Creates the view of the response with this id.
    pub(crate) fn new(id: String, record: ResponseRecord) -> Self {
        let ResponseRecord {
            chat_id,
            conversation_id,
            operation,
            key_id,
            project_id,
            gateway,
            recording,
            upstream_name,
            model,
            status,
            started_at,
            is_deferred,
        } = record;
        Self {
            id,
            chat_id,
            conversation_id,
            operation,
            key_id,
            project_id,
            gateway,
            recording,
            is_deferred,
            upstream: upstream_name,
            model,
            status,
            started_at,
        }
    }
}
