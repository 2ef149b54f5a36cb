//! The events in the stream. The events are the source of truth; tables, statistics and exports are derived from
//! events.
//!
//! Every published version stays decodable for ever: within a version, new fields are optional, and no field is renamed, retyped
//! or removed. Events of an earlier version are decoded into the types of the latest version. Terminal events carry all values
//! that usage counters need, so that the order of arrival never matters.

mod api_key;
mod audit;
mod budget;
mod chat_deferred;
mod chat_failed;
mod chat_started;
mod conversation;
mod limit;
mod message_completed;
mod prices;
mod project;

mod assistant_message;
mod caller_metadata;
mod dialect;
mod event_type;
mod media;
mod new_message;
mod operation;
mod recording_mode;
mod restored;
mod upstream;
mod version1;

use serde::de::DeserializeOwned;
use time::OffsetDateTime;

pub use api_key::{KeyChanged, KeyIssued, KeyRevoked, KeySettings};
pub use assistant_message::{AssistantMessage, CUT_BY_BUDGET, OtherChoice, STOPPED_BY_USER, ToolCall};
pub use audit::{ANONYMOUS, AuditAction, AuditOutcome, AuditRecorded, AuditTarget, AuditTargetKind, COMMAND_LINE};
pub use budget::{Budget, BudgetPeriod, BudgetPolicy, UnpricedCalls};
pub use caller_metadata::CallerMetadata;
pub use chat_deferred::ChatDeferred;
pub use chat_failed::{ChatError, ChatFailed, FailureStage};
pub use chat_started::{ChatStarted, ConversationOrigin};
pub use conversation::{ConversationChanged, ConversationCreated, ConversationDeleted};
pub use dialect::DialectName;
pub use event_type::{EventKind, EventType, EventVersion};
pub use limit::{InvalidLimitScope, LimitScope, LimitsChanged, UsageLimits};
pub use media::Media;
pub use message_completed::MessageCompleted;
pub use new_message::{MAX_NEW_MESSAGES, NewMessage};
pub use operation::Operation;
pub use prices::{CostsRepriced, PricesPublished};
pub use project::{ProjectChanged, ProjectSettings};
pub use recording_mode::RecordingMode;
pub use restored::Restored;
pub use upstream::{Attempt, UpstreamAnswer};

use crate::id::{ChatId, ConversationId, EventId, UserId};
use crate::trace_context::TraceContext;

/// An event of any kind.
#[derive(Clone, Debug)]
pub enum Event {
    /// The gateway admitted a chat.
    ChatStarted(Box<ChatStarted>),
    /// A chat ended with a complete answer.
    MessageCompleted(Box<MessageCompleted>),
    /// A chat ended without an answer, or with a part of an answer.
    ChatFailed(Box<ChatFailed>),
    /// The provider makes the answer to a chat in the background.
    ChatDeferred(Box<ChatDeferred>),
    /// A conversation was created before the first chat.
    ConversationCreated(Box<ConversationCreated>),
    /// A user renamed, archived or unarchived a conversation.
    ConversationChanged(Box<ConversationChanged>),
    /// A user deleted a conversation.
    ConversationDeleted(Box<ConversationDeleted>),
    /// An API key was issued.
    KeyIssued(Box<KeyIssued>),
    /// The settings of an API key were changed.
    KeyChanged(Box<KeyChanged>),
    /// An API key was revoked.
    KeyRevoked(Box<KeyRevoked>),
    /// The limits of a scope were changed.
    LimitsChanged(Box<LimitsChanged>),
    /// A price list was published.
    PricesPublished(Box<PricesPublished>),
    /// The costs of a span of time are computed again.
    CostsRepriced(Box<CostsRepriced>),
    /// An act that concerns access to the record.
    AuditRecorded(Box<AuditRecorded>),
    /// A project was created or changed.
    ProjectChanged(Box<ProjectChanged>),
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A chat, or another call.
    Chat {
        /// The chat.
        chat_id: ChatId,
        /// The conversation; none for a call that belongs to no conversation.
        conversation_id: Option<ConversationId>,
        /// The start of the chat.
        started_at: OffsetDateTime,
    },
    /// A conversation.
    Conversation(ConversationId),
    /// The deployment: API keys, limits, projects, prices, or the audit log.
    Deployment,
}

impl Event {
    /// Returns what the event is about.
    pub fn about(&self) -> About {
        match self {
            Self::ChatStarted(event) => {
                let ChatStarted { chat_id, conversation_id, started_at, .. } = **event;
                About::Chat { chat_id, conversation_id, started_at }
            }
            Self::MessageCompleted(event) => {
                let MessageCompleted { chat_id, conversation_id, started_at, .. } = **event;
                About::Chat { chat_id, conversation_id, started_at }
            }
            Self::ChatFailed(event) => {
                let ChatFailed { chat_id, conversation_id, started_at, .. } = **event;
                About::Chat { chat_id, conversation_id, started_at }
            }
            Self::ChatDeferred(event) => {
                let ChatDeferred { chat_id, conversation_id, started_at, .. } = **event;
                About::Chat { chat_id, conversation_id, started_at }
            }
            Self::ConversationCreated(event) => About::Conversation(event.conversation_id),
            Self::ConversationChanged(event) => About::Conversation(event.conversation_id),
            Self::ConversationDeleted(event) => About::Conversation(event.conversation_id),
            Self::KeyIssued(_)
            | Self::KeyChanged(_)
            | Self::KeyRevoked(_)
            | Self::LimitsChanged(_)
            | Self::PricesPublished(_)
            | Self::CostsRepriced(_)
            | Self::AuditRecorded(_)
            | Self::ProjectChanged(_) => About::Deployment,
        }
    }

    /// Returns the kind of the event.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::ChatStarted(_) => EventKind::ChatStarted,
            Self::MessageCompleted(_) => EventKind::MessageCompleted,
            Self::ChatFailed(_) => EventKind::ChatFailed,
            Self::ChatDeferred(_) => EventKind::ChatDeferred,
            Self::ConversationCreated(_) => EventKind::ConversationCreated,
            Self::ConversationChanged(_) => EventKind::ConversationChanged,
            Self::ConversationDeleted(_) => EventKind::ConversationDeleted,
            Self::KeyIssued(_) => EventKind::KeyIssued,
            Self::KeyChanged(_) => EventKind::KeyChanged,
            Self::KeyRevoked(_) => EventKind::KeyRevoked,
            Self::LimitsChanged(_) => EventKind::LimitsChanged,
            Self::PricesPublished(_) => EventKind::PricesPublished,
            Self::CostsRepriced(_) => EventKind::CostsRepriced,
            Self::AuditRecorded(_) => EventKind::AuditRecorded,
            Self::ProjectChanged(_) => EventKind::ProjectChanged,
        }
    }

    /// Returns the event's id, derived from the kind of event and the id of the chat, conversation, change or key. Publishing
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
            Self::ChatDeferred(event) => EventId::derive(event.chat_id.0, "deferred"),
            Self::ConversationCreated(event) => EventId::derive(event.conversation_id.0, "conversation_created"),
            Self::ConversationChanged(event) => EventId::derive(event.change_id.0, "conversation_changed"),
            Self::ConversationDeleted(event) => EventId::derive(event.conversation_id.0, "conversation_deleted"),
            Self::KeyIssued(event) => EventId::derive(event.key_id.0, "key_issued"),
            Self::KeyChanged(event) => EventId::derive(event.change_id.0, "key_changed"),
            Self::KeyRevoked(event) => EventId::derive(event.key_id.0, "key_revoked"),
            Self::LimitsChanged(event) => EventId::derive(event.change_id.0, "limits_changed"),
            Self::PricesPublished(event) => EventId::derive(event.change_id.0, "prices_published"),
            Self::CostsRepriced(event) => EventId::derive(event.change_id.0, "costs_repriced"),
            Self::AuditRecorded(event) => EventId::derive(event.audit_id.0, "audit_recorded"),
            Self::ProjectChanged(event) => EventId::derive(event.change_id.0, "project_changed"),
        }
    }

    /// Returns the user to whose records the event belongs; for a change of limits, prices or a project, the author of the
    /// change; for an entry of the audit log, the actor.
    pub fn user_id(&self) -> &UserId {
        match self {
            Self::ChatStarted(event) => &event.user_id,
            Self::MessageCompleted(event) => &event.user_id,
            Self::ChatFailed(event) => &event.user_id,
            Self::ChatDeferred(event) => &event.user_id,
            Self::ConversationCreated(event) => &event.user_id,
            Self::ConversationChanged(event) => &event.user_id,
            Self::ConversationDeleted(event) => &event.user_id,
            Self::KeyIssued(event) => &event.user_id,
            Self::KeyChanged(event) => &event.user_id,
            Self::KeyRevoked(event) => &event.user_id,
            Self::LimitsChanged(event) => &event.changed_by,
            Self::PricesPublished(event) => &event.published_by,
            Self::CostsRepriced(event) => &event.repriced_by,
            Self::AuditRecorded(event) => &event.actor,
            Self::ProjectChanged(event) => &event.changed_by,
        }
    }

    /// Returns the time of the event: start, finish, failure, creation, change or deletion.
    pub fn time(&self) -> OffsetDateTime {
        match self {
            Self::ChatStarted(event) => event.started_at,
            Self::MessageCompleted(event) => event.finished_at,
            Self::ChatFailed(event) => event.failed_at,
            Self::ChatDeferred(event) => event.deferred_at,
            Self::ConversationCreated(event) => event.created_at,
            Self::ConversationChanged(event) => event.changed_at,
            Self::ConversationDeleted(event) => event.deleted_at,
            Self::KeyIssued(event) => event.issued_at,
            Self::KeyChanged(event) => event.changed_at,
            Self::KeyRevoked(event) => event.revoked_at,
            Self::LimitsChanged(event) => event.changed_at,
            Self::PricesPublished(event) => event.published_at,
            Self::CostsRepriced(event) => event.repriced_at,
            Self::AuditRecorded(event) => event.recorded_at,
            Self::ProjectChanged(event) => event.changed_at,
        }
    }

    /// Returns the span of the call that the event is about. `None` for a call that belongs to no trace, and for all other events.
    pub fn traceparent(&self) -> Option<TraceContext> {
        match self {
            Self::ChatStarted(event) => event.traceparent,
            Self::MessageCompleted(event) => event.traceparent,
            Self::ChatFailed(event) => event.traceparent,
            Self::ChatDeferred(event) => event.traceparent,
            _ => None,
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
            Self::ChatDeferred(event) => serde_json::to_writer(bytes, event),
            Self::ConversationCreated(event) => serde_json::to_writer(bytes, event),
            Self::ConversationChanged(event) => serde_json::to_writer(bytes, event),
            Self::ConversationDeleted(event) => serde_json::to_writer(bytes, event),
            Self::KeyIssued(event) => serde_json::to_writer(bytes, event),
            Self::KeyChanged(event) => serde_json::to_writer(bytes, event),
            Self::KeyRevoked(event) => serde_json::to_writer(bytes, event),
            Self::LimitsChanged(event) => serde_json::to_writer(bytes, event),
            Self::PricesPublished(event) => serde_json::to_writer(bytes, event),
            Self::CostsRepriced(event) => serde_json::to_writer(bytes, event),
            Self::AuditRecorded(event) => serde_json::to_writer(bytes, event),
            Self::ProjectChanged(event) => serde_json::to_writer(bytes, event),
        }
    }

    /// Decodes the payload of an event of the given type. An event of an earlier version becomes an event of the latest version.
    pub fn decode(event_type: impl Into<EventType>, payload: &[u8]) -> Result<Self, serde_json::Error> {
        fn read<T: DeserializeOwned, E: From<T>>(payload: &[u8]) -> Result<Box<E>, serde_json::Error> {
            serde_json::from_slice::<T>(payload).map(|event| Box::new(event.into()))
        }
        let event_type = event_type.into();
        Ok(match (event_type.kind(), event_type.version()) {
            (EventKind::ChatStarted, EventVersion::V1) => Self::ChatStarted(read::<version1::ChatStarted, _>(payload)?),
            (EventKind::ChatStarted, EventVersion::V2) => Self::ChatStarted(read::<ChatStarted, _>(payload)?),
            (EventKind::MessageCompleted, EventVersion::V1) => {
                Self::MessageCompleted(read::<version1::MessageCompleted, _>(payload)?)
            }
            (EventKind::MessageCompleted, EventVersion::V2) => {
                Self::MessageCompleted(read::<MessageCompleted, _>(payload)?)
            }
            (EventKind::ChatFailed, EventVersion::V1) => Self::ChatFailed(read::<version1::ChatFailed, _>(payload)?),
            (EventKind::ChatFailed, EventVersion::V2) => Self::ChatFailed(read::<ChatFailed, _>(payload)?),
            (EventKind::ChatDeferred, _) => Self::ChatDeferred(serde_json::from_slice(payload)?),
            (EventKind::ConversationCreated, _) => Self::ConversationCreated(serde_json::from_slice(payload)?),
            (EventKind::ConversationChanged, _) => Self::ConversationChanged(serde_json::from_slice(payload)?),
            (EventKind::ConversationDeleted, _) => Self::ConversationDeleted(serde_json::from_slice(payload)?),
            (EventKind::KeyIssued, _) => Self::KeyIssued(serde_json::from_slice(payload)?),
            (EventKind::KeyChanged, _) => Self::KeyChanged(serde_json::from_slice(payload)?),
            (EventKind::KeyRevoked, _) => Self::KeyRevoked(serde_json::from_slice(payload)?),
            (EventKind::LimitsChanged, _) => Self::LimitsChanged(serde_json::from_slice(payload)?),
            (EventKind::PricesPublished, _) => Self::PricesPublished(serde_json::from_slice(payload)?),
            (EventKind::CostsRepriced, _) => Self::CostsRepriced(serde_json::from_slice(payload)?),
            (EventKind::AuditRecorded, _) => Self::AuditRecorded(serde_json::from_slice(payload)?),
            (EventKind::ProjectChanged, _) => Self::ProjectChanged(serde_json::from_slice(payload)?),
        })
    }
}

/// Returns the current time, truncated to microseconds: the resolution of PostgreSQL, so that a stored time is equal to
/// the time in the event.
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}
