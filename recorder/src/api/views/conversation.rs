//! The JSON shape of conversations.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::reads;

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Conversation {
    /// The id.
    pub(crate) id: Uuid,
    /// The title: as given, else made from the first message.
    title: Option<String>,
    /// The model of the latest chat.
    model: Option<String>,
    /// The temperature of the latest chat.
    temperature: Option<f64>,
    /// When it was opened.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When the last message came.
    #[serde(with = "time::serde::rfc3339")]
    last_message_at: OffsetDateTime,
    /// How many messages it has.
    message_count: i64,
    /// Tokens that providers reported.
    total_tokens: i64,
    /// Tokens of chats without a report.
    estimated_tokens: i64,
    /// Whether it is put away.
    archived: bool,
}

impl From<reads::conversations::ConversationRecord> for Conversation {
    fn from(row: reads::conversations::ConversationRecord) -> Self {
        Self {
            id: row.conversation_id,
            title: row.title,
            model: row.model,
            temperature: row.temperature,
            created_at: row.created_at,
            last_message_at: row.last_message_at,
            message_count: row.message_count,
            total_tokens: row.total_tokens,
            estimated_tokens: row.estimated_total_tokens,
            archived: row.archived,
        }
    }
}
