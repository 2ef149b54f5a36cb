//! The events in the stream. The events are the source of truth; tables, statistics and exports are derived from
//! events.
//!
//! Every published version stays decodable for ever: new fields are optional, and no field is renamed, retyped or
//! removed. Terminal events carry all values that usage counters need, so that the order of arrival never matters.

mod chat_failed;
mod chat_started;
mod conversation;
mod message_completed;

mod assistant_message;
mod caller_metadata;
mod dialect;
mod upstream;

use time::OffsetDateTime;

pub use assistant_message::{AssistantMessage, OtherChoice, ToolCall};
pub use caller_metadata::CallerMetadata;
pub use chat_failed::{ChatError, ChatFailed, FailureStage};
pub use chat_started::{ChatStarted, ConversationOrigin, UserMessage};
pub use conversation::{ConversationChanged, ConversationCreated, ConversationDeleted};
pub use dialect::DialectName;
pub use message_completed::MessageCompleted;
pub use upstream::{Attempt, UpstreamAnswer};

use crate::id::{EventId, UserId};

/// An event of any kind.
#[derive(Clone, Debug)]
pub enum Event {
    /// The gateway admitted a chat.
    ChatStarted(Box<ChatStarted>),
    /// A chat ended with a complete answer.
    MessageCompleted(Box<MessageCompleted>),
    /// A chat ended without an answer, or with a part of an answer.
    ChatFailed(Box<ChatFailed>),
    /// A conversation was created before the first chat.
    ConversationCreated(Box<ConversationCreated>),
    /// A user renamed, archived or unarchived a conversation.
    ConversationChanged(Box<ConversationChanged>),
    /// A user deleted a conversation.
    ConversationDeleted(Box<ConversationDeleted>),
}

/// The kind of an event: determines the subject and the type in the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// The kind of [`ChatStarted`] events.
    ChatStarted,
    /// The kind of [`MessageCompleted`] events.
    MessageCompleted,
    /// The kind of [`ChatFailed`] events.
    ChatFailed,
    /// The kind of [`ConversationCreated`] events.
    ConversationCreated,
    /// The kind of [`ConversationChanged`] events.
    ConversationChanged,
    /// The kind of [`ConversationDeleted`] events.
    ConversationDeleted,
}

impl EventKind {
    /// All kinds of events.
    pub const ALL: [Self; 6] = [
        Self::ChatStarted,
        Self::MessageCompleted,
        Self::ChatFailed,
        Self::ConversationCreated,
        Self::ConversationChanged,
        Self::ConversationDeleted,
    ];

    /// Returns the token of the kind in subjects: `chats.<token>.<user>`.
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

    /// Returns the CloudEvents type with the version, such as `stenograph.ChatStarted.v1`.
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

    /// Returns the kind with the given CloudEvents type, or `None` if this build does not know the type.
    pub fn from_type_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_name() == name)
    }
}

impl Event {
    /// Returns the kind of the event.
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

    /// Returns the event's id, derived from the kind of event and the id of the chat, conversation or change. Publishing
    /// the event again, from any process, gives the same id.
    ///
    /// A [`ChatFailed`] event that a recorder publishes for a lost gateway has another id than a failure that the
    /// gateway publishes: the label is `orphaned` instead of `failed`.
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

    /// Returns the user to whose records the event belongs.
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

    /// Returns the time of the event: start, finish, failure, creation, change or deletion.
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

    /// Returns the payload: a JSON object.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut payload = Vec::with_capacity(1024);
        self.encode_into(&mut payload)?;
        Ok(payload)
    }

    /// Appends the payload to `bytes`.
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

    /// Decodes the payload of an event of the given kind.
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

/// Returns the current time, truncated to microseconds: the resolution of PostgreSQL, so that a stored time is equal to
/// the time in the event.
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}
