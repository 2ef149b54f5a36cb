//! The event for a chat that the gateway admitted.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::event::caller_metadata::CallerMetadata;
use crate::event::dialect::DialectName;
use crate::id::{ChatId, ConversationId, MessageId, UserId};

/// A chat was admitted: durable before the first byte of the answer reaches the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatStarted {
    /// The chat.
    pub chat_id: ChatId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// How it came by it.
    pub conversation_origin: ConversationOrigin,
    /// The client's own name for the thread, where it sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_thread_id: Option<String>,
    /// Whose chat it is.
    pub user_id: UserId,
    /// The gateway instance that serves it.
    pub gateway: String,
    /// When it was admitted.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub started_at: OffsetDateTime,
    /// The wire format that the client speaks.
    pub dialect: DialectName,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// The model that the client asked for.
    pub model: String,
    /// The sampling temperature that the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Everything else that the client sent: the request object without `messages` (in a responses request, `input`).
    #[cfg_attr(feature = "schema", schemars(with = "serde_json::Map<String, serde_json::Value>"))]
    pub parameters: Box<RawValue>,
    /// The request's messages (in a responses request, its input) as sent, history included.
    pub messages: Box<RawValue>,
    /// What is new in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_message: Option<UserMessage>,
    /// The id that the answer will have.
    pub assistant_message_id: MessageId,
    /// What the caller said about the chat for whoever reads the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_metadata: Option<CallerMetadata>,
}

/// How the chat came by its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ConversationOrigin {
    /// The client named none: this chat opened a new one.
    Minted,
    /// The client named one that it was given before.
    Given,
    /// The client named its own thread; whether this is the first chat of it, the gateway cannot know.
    Derived,
}

/// The message that a chat adds to its conversation on the asking side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserMessage {
    /// Its id.
    pub id: MessageId,
    /// `user`, or `tool` where the client answers a tool call.
    pub role: String,
    /// Its text: of a content in parts, the text parts joined.
    pub text: String,
}
