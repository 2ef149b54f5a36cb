//! The event for a chat that ended with an answer.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::assistant_message::AssistantMessage;
use crate::event::media::Media;
use crate::event::operation::Operation;
use crate::event::recording_mode::RecordingMode;
use crate::event::restored::Restored;
use crate::event::upstream::{Attempt, UpstreamAnswer};
use crate::id::{ChatId, ConversationId, KeyId, ProjectId, UserId};
use crate::trace_context::TraceContext;
use crate::usage::Usage;

/// The successful end of a chat, or of another call to a model. The event is durable before the client sees the end of the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MessageCompleted {
    /// The id of the chat.
    pub chat_id: ChatId,
    /// The kind of the call.
    pub operation: Operation,
    /// The conversation of the chat. Left out for a call that belongs to no conversation, such as embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
    /// The user of the chat.
    pub user_id: UserId,
    /// The API key with which the caller authenticated. Left out for a session token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// The project of the API key. Left out for a key without a project, and for a session token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// The gateway instance that served the chat.
    pub gateway: String,
    /// The time of admission. The chat counts for the UTC day of this time.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub started_at: OffsetDateTime,
    /// The time at which the answer was complete.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub finished_at: OffsetDateTime,
    /// The model that the client asked for.
    pub model: String,
    /// The answer. Left out if the answer of the call is no message, as for embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<AssistantMessage>,
    /// The tokens of the chat.
    pub usage: Usage,
    /// Sizes, counts and durations of a call that is no chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// Milliseconds from admission to the first text, reasoning or tool call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_ms: Option<u64>,
    /// Milliseconds from admission to the end.
    pub duration_ms: u64,
    /// The upstream that answered.
    pub upstream: UpstreamAnswer,
    /// Every try at an upstream, the last one included.
    pub attempts: Vec<Attempt>,
    /// Unusual properties of the request or the answer, one word each. None of them makes a chat fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The parts of the call that its events keep. Left out if everything is kept.
    #[serde(default, skip_serializing_if = "RecordingMode::is_full")]
    pub recording: RecordingMode,
    /// The span of the call in the client's trace, or in a trace of the gateway's. Left out for a call that belongs to no trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceContext>,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}
