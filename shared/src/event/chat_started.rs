//! The event for a chat that the gateway admitted.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::event::caller_metadata::CallerMetadata;
use crate::event::dialect::DialectName;
use crate::event::new_message::NewMessage;
use crate::event::operation::Operation;
use crate::event::recording_mode::RecordingMode;
use crate::event::restored::Restored;
use crate::id::{ChatId, ConversationId, KeyId, MessageId, ProjectId, UserId};
use crate::trace_context::TraceContext;
use crate::word::open_words;

/// The start of a chat, or of another call to a model. The event is durable before the first byte of the answer reaches the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatStarted {
    /// The id of the chat.
    pub chat_id: ChatId,
    /// The kind of the call.
    pub operation: Operation,
    /// The conversation of the chat. Left out for a call that belongs to no conversation, such as embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
    /// The origin of the conversation id. Left out together with the conversation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_origin: Option<ConversationOrigin>,
    /// The client's own name for the thread, if the client sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_thread_id: Option<String>,
    /// The user of the chat.
    pub user_id: UserId,
    /// The API key with which the caller authenticated. Left out for a session token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// The project of the API key. Left out for a key without a project, and for a session token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// The gateway instance that serves the chat.
    pub gateway: String,
    /// The time at which the gateway admitted the chat.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub started_at: OffsetDateTime,
    /// The wire format of the client.
    pub dialect: DialectName,
    /// True if the client asked for a stream.
    pub stream: bool,
    /// The model that the client asked for.
    pub model: String,
    /// The sampling temperature that the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The rest of the request, as the client sent it: an object with every member but the messages.
    #[cfg_attr(feature = "schema", schemars(with = "serde_json::Map<String, serde_json::Value>"))]
    pub parameters: Box<RawValue>,
    /// The messages of the request as sent, history included: a list or a text. For other calls than chats, the input as sent. Left
    /// out if the request has no such member, as for an upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Value>"))]
    pub messages: Option<Box<RawValue>>,
    /// The new messages among `messages`, in the order in which they were sent: every message of the user and every tool result
    /// after the last answer of the model, at most 256 (the last ones).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_messages: Vec<NewMessage>,
    /// The id of the answer to come. Left out for a call whose answer is no message, such as embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assistant_message_id: Option<MessageId>,
    /// Metadata that the caller attached to the chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_metadata: Option<CallerMetadata>,
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
    /// The origin of the conversation id of a chat. Readers must accept words that they do not know.
    pub enum ConversationOrigin {
        /// The client named no conversation, and this chat opened one.
        Minted = "minted",
        /// The client named a conversation whose id it was given before.
        Given = "given",
        /// The id is derived from the client's own name for the thread. The gateway cannot know whether earlier chats have the same
        /// conversation.
        Derived = "derived",
    }
}
