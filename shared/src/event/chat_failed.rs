//! The event for a chat that ended without an answer, or with a part of an answer.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::assistant_message::AssistantMessage;
use crate::event::upstream::{Attempt, UpstreamAnswer};
use crate::id::{ChatId, ConversationId, UserId};
use crate::usage::Usage;

/// A chat ended without an answer, or with part of one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatFailed {
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
    /// When it failed.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub failed_at: OffsetDateTime,
    /// The model that the client asked for.
    pub model: String,
    /// Where it failed.
    pub stage: FailureStage,
    /// What went wrong.
    pub error: ChatError,
    /// The part of the answer that had arrived, if any had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<AssistantMessage>,
    /// What it cost, as far as known.
    pub usage: Usage,
    /// From admission to the first text, reasoning or tool call, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_ms: Option<u64>,
    /// From admission to the failure, in milliseconds.
    pub duration_ms: u64,
    /// Who answered, where someone did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamAnswer>,
    /// Every try.
    pub attempts: Vec<Attempt>,
    /// What was odd about the answer, one word each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Where a chat failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureStage {
    /// No connection, or no response head in time.
    UpstreamConnect,
    /// The upstream answered with an error status.
    UpstreamStatus,
    /// The answer broke off, or carried an error.
    UpstreamStream,
    /// The client left before there was any answer.
    ClientGone,
    /// The gateway was stopped before the end, came back, and said so itself.
    GatewayRestarted,
    /// The gateway was lost before the end, and a recorder said so.
    GatewayLost,
}

impl FailureStage {
    /// Returns the value in events and in table rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamStatus => "upstream_status",
            Self::UpstreamStream => "upstream_stream",
            Self::ClientGone => "client_gone",
            Self::GatewayRestarted => "gateway_restarted",
            Self::GatewayLost => "gateway_lost",
        }
    }
}

/// What went wrong, as far as anyone said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatError {
    /// The HTTP status, where one came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's error type, or the gateway's word for it.
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
