//! The event for a chat whose answer the provider makes in the background.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::operation::Operation;
use crate::event::recording_mode::RecordingMode;
use crate::event::restored::Restored;
use crate::id::{ChatId, ConversationId, KeyId, ProjectId, UserId};
use crate::trace_context::TraceContext;

/// The provider has accepted a chat, and makes the answer in the background. The client, and the gateway, ask for the answer later. The end of
/// the chat is an event of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatDeferred {
    /// The id of the chat.
    pub chat_id: ChatId,
    /// The kind of the call.
    pub operation: Operation,
    /// The conversation of the chat. Left out for a call that belongs to no conversation.
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
    /// The gateway instance that follows the answer.
    pub gateway: String,
    /// The time of admission. The chat counts for the UTC day of this time.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub started_at: OffsetDateTime,
    /// The time at which the provider had accepted the chat.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub deferred_at: OffsetDateTime,
    /// The model that the client asked for.
    pub model: String,
    /// The name of the upstream that makes the answer.
    pub upstream: String,
    /// The provider's id of the response.
    pub response_id: String,
    /// The parts of the chat that its events keep. Left out for a chat that is recorded in full.
    #[serde(default, skip_serializing_if = "RecordingMode::is_full")]
    pub recording: RecordingMode,
    /// The span of the call in the client's trace, or in a trace of the gateway's. Left out for a call that belongs to no trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceContext>,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}
