//! The events: the record itself. Everything else (tables, statistics, exports) is a reading of them.
//!
//! A published version stays decodable for ever: fields are added as optional, never renamed, retyped or removed.
//! Terminal events carry everything that counting needs, so that the order of arrival never matters.

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
