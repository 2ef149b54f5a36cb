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
        let ResponseRecord { chat_id, upstream_name, model, status, started_at } = record;
        Self { id, chat_id, upstream: upstream_name, model, status, started_at }
    }
}
