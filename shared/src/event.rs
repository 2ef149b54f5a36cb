//! The events: the record itself. Everything else (tables, statistics, exports) is a reading of them.
//!
//! A published version stays decodable for ever: fields are added as optional, never renamed, retyped or removed.
//! Terminal events carry everything that counting needs, so that the order of arrival never matters.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::id::{ChangeId, ChatId, ConversationId, EventId, MessageId, UserId};
use crate::usage::Usage;

/// Anything that can be on the record.
#[derive(Clone, Debug)]
pub enum Event {
    /// A chat was admitted.
    ChatStarted(Box<ChatStarted>),
    /// A chat ended with an answer.
    MessageCompleted(Box<MessageCompleted>),
    /// A chat ended without one, or with part of one.
    ChatFailed(Box<ChatFailed>),
    /// A conversation was opened ahead of its first chat.
    ConversationCreated(Box<ConversationCreated>),
    /// A user renamed a conversation, put it away, or took it out again.
    ConversationChanged(Box<ConversationChanged>),
    /// A user deleted a conversation.
    ConversationDeleted(Box<ConversationDeleted>),
}

/// Which event it is: its place in the subject, and its type in the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// See [`ChatStarted`].
    ChatStarted,
    /// See [`MessageCompleted`].
    MessageCompleted,
    /// See [`ChatFailed`].
    ChatFailed,
    /// See [`ConversationCreated`].
    ConversationCreated,
    /// See [`ConversationChanged`].
    ConversationChanged,
    /// See [`ConversationDeleted`].
    ConversationDeleted,
}

impl EventKind {
    /// Every kind there is.
    pub const ALL: [Self; 6] = [
        Self::ChatStarted,
        Self::MessageCompleted,
        Self::ChatFailed,
        Self::ConversationCreated,
        Self::ConversationChanged,
        Self::ConversationDeleted,
    ];

    /// The token in the subject: `chats.<token>.<user>`.
    pub fn subject_token(self) -> &'static str {
        match self {
            Self::ChatStarted => "started",
            Self::MessageCompleted => "completed",
            Self::ChatFailed => "failed",
            Self::ConversationCreated => "conversation_created",
            Self::ConversationChanged => "conversation_changed",
            Self::ConversationDeleted => "conversation_deleted",
        }
    }

    /// The CloudEvents type, version included.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::ChatStarted => "stenograph.ChatStarted.v1",
            Self::MessageCompleted => "stenograph.MessageCompleted.v1",
            Self::ChatFailed => "stenograph.ChatFailed.v1",
            Self::ConversationCreated => "stenograph.ConversationCreated.v1",
            Self::ConversationChanged => "stenograph.ConversationChanged.v1",
            Self::ConversationDeleted => "stenograph.ConversationDeleted.v1",
        }
    }

    /// The kind with this CloudEvents type, if this build knows it.
    pub fn from_type_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_name() == name)
    }
}

/// How the chat came by its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationOrigin {
    /// The client named none: this chat opened a new one.
    Minted,
    /// The client named one that it was given before.
    Given,
    /// The client named its own thread; whether this is the first chat of it, the gateway cannot know.
    Derived,
}

/// The wire format of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DialectName {
    /// OpenAI chat completions.
    OpenaiChat,
    /// OpenAI responses.
    OpenaiResponses,
    /// Anthropic messages.
    AnthropicMessages,
}

impl DialectName {
    /// Every dialect there is.
    pub const ALL: [Self; 3] = [Self::OpenaiChat, Self::OpenaiResponses, Self::AnthropicMessages];

    /// As in events and rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai_chat",
            Self::OpenaiResponses => "openai_responses",
            Self::AnthropicMessages => "anthropic_messages",
        }
    }
}

/// A chat was admitted: durable before the first byte of the answer reaches the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Everything else that the client sent: the request object without `messages`.
    pub parameters: Box<RawValue>,
    /// The request's messages as sent, history included.
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

/// What a caller says about a chat: never understood, only kept, to be looked for later.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CallerMetadata {
    /// The caller's own user, as the body's `user` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The body's `metadata`, an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// The tags in the header `x-stenograph-tags`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// The message that a chat adds to its conversation on the asking side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserMessage {
    /// Its id.
    pub id: MessageId,
    /// `user`, or `tool` where the client answers a tool call.
    pub role: String,
    /// Its text: of a content in parts, the text parts joined.
    pub text: String,
}

/// The answer, whole or partial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssistantMessage {
    /// Its id.
    pub id: MessageId,
    /// Its text.
    pub text: String,
    /// Reasoning text, where the model showed any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The model's refusal, where it came apart from the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// What a spoken answer says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_transcript: Option<String>,
    /// Calls of the client's tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// How many calls of the provider's own tools it took.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub server_tool_calls: u64,
    /// The other choices, where the client asked for several; this one is choice 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_choices: Vec<OtherChoice>,
    /// Why it ended, in the provider's word; `client_gone` where the client left first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Whether the answer was longer than the gateway records.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// One more answer to the same request, where the client asked for several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtherChoice {
    /// Its number among the choices.
    pub index: u64,
    /// Its text.
    pub text: String,
    /// Reasoning text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// A refusal apart from the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// What a spoken answer says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_transcript: Option<String>,
    /// Calls of the client's tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended, in the provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One call of a client's tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id for the call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments as sent: usually JSON, never checked.
    pub arguments: String,
}

/// One try at one upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The upstream's name.
    pub upstream: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// Until the response head came, or the try failed, in milliseconds.
    pub duration_ms: u64,
    /// The HTTP status, where one came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong, in one word, where something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Who answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamAnswer {
    /// The upstream's name in this deployment.
    pub name: String,
    /// The model, in the upstream's own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider's id of the response. Never used as a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
}

/// A chat ended with an answer: durable before the client sees the end of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    pub started_at: OffsetDateTime,
    /// When the answer was complete.
    #[serde(with = "time::serde::rfc3339")]
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

/// Where a chat failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// As in events and rows.
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

/// A chat ended without an answer, or with part of one.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    pub started_at: OffsetDateTime,
    /// When it failed.
    #[serde(with = "time::serde::rfc3339")]
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

/// A conversation was opened ahead of its first chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConversationCreated {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// When it was opened.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The title that the client gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The model that the client means to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The temperature that the client means to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// A user changed something about a conversation. Of two changes of the same thing, the one with the greater id stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationChanged {
    /// The change.
    pub change_id: ChangeId,
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// When it was changed.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
    /// Its new title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whether it is put away from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
}

/// A user deleted a conversation: no reading of the record shows it any more, and what it used stays counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationDeleted {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// When it was deleted.
    #[serde(with = "time::serde::rfc3339")]
    pub deleted_at: OffsetDateTime,
}

impl Event {
    /// Which event it is.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::ChatStarted(_) => EventKind::ChatStarted,
            Self::MessageCompleted(_) => EventKind::MessageCompleted,
            Self::ChatFailed(_) => EventKind::ChatFailed,
            Self::ConversationCreated(_) => EventKind::ConversationCreated,
            Self::ConversationChanged(_) => EventKind::ConversationChanged,
            Self::ConversationDeleted(_) => EventKind::ConversationDeleted,
        }
    }

    /// Its id: the same however often and by whomever it is published.
    ///
    /// A recorder that ends a lost gateway's chat says something else than the gateway would have: `orphaned`, not `failed`.
    pub fn id(&self) -> EventId {
        match self {
            Self::ChatStarted(event) => EventId::derive(event.chat_id.0, "started"),
            Self::MessageCompleted(event) => EventId::derive(event.chat_id.0, "completed"),
            Self::ChatFailed(event) if event.stage == FailureStage::GatewayLost => {
                EventId::derive(event.chat_id.0, "orphaned")
            }
            Self::ChatFailed(event) => EventId::derive(event.chat_id.0, "failed"),
            Self::ConversationCreated(event) => EventId::derive(event.conversation_id.0, "conversation_created"),
            Self::ConversationChanged(event) => EventId::derive(event.change_id.0, "conversation_changed"),
            Self::ConversationDeleted(event) => EventId::derive(event.conversation_id.0, "conversation_deleted"),
        }
    }

    /// Whose record it belongs to.
    pub fn user_id(&self) -> &UserId {
        match self {
            Self::ChatStarted(event) => &event.user_id,
            Self::MessageCompleted(event) => &event.user_id,
            Self::ChatFailed(event) => &event.user_id,
            Self::ConversationCreated(event) => &event.user_id,
            Self::ConversationChanged(event) => &event.user_id,
            Self::ConversationDeleted(event) => &event.user_id,
        }
    }

    /// When it happened.
    pub fn time(&self) -> OffsetDateTime {
        match self {
            Self::ChatStarted(event) => event.started_at,
            Self::MessageCompleted(event) => event.finished_at,
            Self::ChatFailed(event) => event.failed_at,
            Self::ConversationCreated(event) => event.created_at,
            Self::ConversationChanged(event) => event.changed_at,
            Self::ConversationDeleted(event) => event.deleted_at,
        }
    }

    /// The payload: one JSON object.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut payload = Vec::with_capacity(1024);
        self.encode_into(&mut payload)?;
        Ok(payload)
    }

    /// Appends the payload to some bytes.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        match self {
            Self::ChatStarted(event) => serde_json::to_writer(bytes, event),
            Self::MessageCompleted(event) => serde_json::to_writer(bytes, event),
            Self::ChatFailed(event) => serde_json::to_writer(bytes, event),
            Self::ConversationCreated(event) => serde_json::to_writer(bytes, event),
            Self::ConversationChanged(event) => serde_json::to_writer(bytes, event),
            Self::ConversationDeleted(event) => serde_json::to_writer(bytes, event),
        }
    }

    /// Reads a payload back.
    pub fn decode(kind: EventKind, payload: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            EventKind::ChatStarted => Self::ChatStarted(serde_json::from_slice(payload)?),
            EventKind::MessageCompleted => Self::MessageCompleted(serde_json::from_slice(payload)?),
            EventKind::ChatFailed => Self::ChatFailed(serde_json::from_slice(payload)?),
            EventKind::ConversationCreated => Self::ConversationCreated(serde_json::from_slice(payload)?),
            EventKind::ConversationChanged => Self::ConversationChanged(serde_json::from_slice(payload)?),
            EventKind::ConversationDeleted => Self::ConversationDeleted(serde_json::from_slice(payload)?),
        })
    }
}

/// The present, in microseconds: what PostgreSQL can hold, so that a time survives the way through the tables.
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}
