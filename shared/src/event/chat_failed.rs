//! The event for a chat that ended without an answer, or with a part of an answer.

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
use crate::word::open_words;

/// The failed end of a chat, or of another call to a model: no answer, or a part of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatFailed {
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
    /// The time of the failure.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub failed_at: OffsetDateTime,
    /// The model that the client asked for.
    pub model: String,
    /// The point of failure.
    pub stage: FailureStage,
    /// The error.
    pub error: ChatError,
    /// The part of the answer that had come before the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<AssistantMessage>,
    /// The tokens of the chat, as far as known.
    pub usage: Usage,
    /// Sizes, counts and durations of a call that is no chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// Milliseconds from admission to the first text, reasoning or tool call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_ms: Option<u64>,
    /// Milliseconds from admission to the failure.
    pub duration_ms: u64,
    /// The upstream that answered, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamAnswer>,
    /// Every try at an upstream.
    pub attempts: Vec<Attempt>,
    /// Unusual properties of the request or the answer, one word each.
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

open_words! {
    /// The point at which a chat failed. Readers must accept words that they do not know.
    pub enum FailureStage {
        /// No connection to an upstream, or no response head in time.
        UpstreamConnect = "upstream_connect",
        /// The upstream answered with an error status.
        UpstreamStatus = "upstream_status",
        /// The answer broke off, or carried an error.
        UpstreamStream = "upstream_stream",
        /// The client disconnected before any part of an answer had come.
        ClientGone = "client_gone",
        /// The user stopped the chat before any part of an answer had come.
        StoppedByUser = "stopped_by_user",
        /// The gateway stopped or died before the end of the chat, and published the end itself.
        GatewayRestarted = "gateway_restarted",
        /// The gateway was lost before the end of the chat, and a recorder published the end.
        GatewayLost = "gateway_lost",
    }
}

/// The error of a chat. A field that neither the provider nor the gateway gave is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatError {
    /// The HTTP status, if a response came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's error type, or the gateway's word for the error.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The provider's error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The error in words.
    pub message: String,
}

impl ChatError {
    /// Returns an error that the gateway itself detected, without a provider's status and code.
    pub fn new(kind: &str, message: &str) -> Self {
        Self { status: None, kind: Some(kind.to_owned()), code: None, message: message.to_owned() }
    }
}
