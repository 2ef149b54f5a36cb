//! The event for a chat that ended with an answer.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::assistant_message::AssistantMessage;
use crate::event::upstream::{Attempt, UpstreamAnswer};
use crate::id::{ChatId, ConversationId, UserId};
use crate::usage::Usage;

/// A chat ended with an answer: durable before the client sees the end of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MessageCompleted {
    /// The chat.
    pub chat_id: ChatId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Whose chat it is.
    pub user_id: UserId,
    /// The gateway instance that served it.
    pub gateway: String,
    /// When it was admitted. Its UTC day is the day that it counts for.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub started_at: OffsetDateTime,
    /// When the answer was complete.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub finished_at: OffsetDateTime,
    /// The model that the client asked for.
    pub model: String,
    /// The answer.
    pub message: AssistantMessage,
    /// What it cost.
    pub usage: Usage,
    /// From admission to the first text, reasoning or tool call, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_ms: Option<u64>,
    /// From admission to the end, in milliseconds.
    pub duration_ms: u64,
    /// Who answered.
    pub upstream: UpstreamAnswer,
    /// Every try, the last one included.
    pub attempts: Vec<Attempt>,
    /// What was odd about the answer, one word each. Nothing odd fails a chat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
