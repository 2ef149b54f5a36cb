//! The kinds of events, and the published versions of each kind.

/// The kind of an event: determines the subject, and the type in the envelope together with the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// The kind of [`ChatStarted`](super::ChatStarted) events.
    ChatStarted,
    /// The kind of [`MessageCompleted`](super::MessageCompleted) events.
    MessageCompleted,
    /// The kind of [`ChatFailed`](super::ChatFailed) events.
    ChatFailed,
    /// The kind of [`ConversationCreated`](super::ConversationCreated) events.
    ConversationCreated,
    /// The kind of [`ConversationChanged`](super::ConversationChanged) events.
    ConversationChanged,
    /// The kind of [`ConversationDeleted`](super::ConversationDeleted) events.
    ConversationDeleted,
    /// The kind of [`KeyIssued`](super::KeyIssued) events.
    KeyIssued,
    /// The kind of [`KeyChanged`](super::KeyChanged) events.
    KeyChanged,
    /// The kind of [`KeyRevoked`](super::KeyRevoked) events.
    KeyRevoked,
    /// The kind of [`LimitsChanged`](super::LimitsChanged) events.
    LimitsChanged,
    /// The kind of [`PricesPublished`](super::PricesPublished) events.
    PricesPublished,
    /// The kind of [`CostsRepriced`](super::CostsRepriced) events.
    CostsRepriced,
    /// The kind of [`AuditRecorded`](super::AuditRecorded) events.
    AuditRecorded,
    /// The kind of [`ProjectChanged`](super::ProjectChanged) events.
    ProjectChanged,
    /// The kind of [`ChatDeferred`](super::ChatDeferred) events.
    ChatDeferred,
}

/// The type of a published event: a kind of event, in one version of the payload's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType {
    kind: EventKind,
    version: EventVersion,
}

/// A version of the payload's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventVersion {
    /// `v1`.
    V1,
    /// `v2`.
    V2,
}

impl EventKind {
    /// All kinds of events.
    pub const ALL: [Self; 15] = [
        Self::ChatStarted,
        Self::MessageCompleted,
        Self::ChatFailed,
        Self::ConversationCreated,
        Self::ConversationChanged,
        Self::ConversationDeleted,
        Self::KeyIssued,
        Self::KeyChanged,
        Self::KeyRevoked,
        Self::LimitsChanged,
        Self::PricesPublished,
        Self::CostsRepriced,
        Self::AuditRecorded,
        Self::ProjectChanged,
        Self::ChatDeferred,
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
            Self::KeyIssued => "key_issued",
            Self::KeyChanged => "key_changed",
            Self::KeyRevoked => "key_revoked",
            Self::LimitsChanged => "limits_changed",
            Self::PricesPublished => "prices_published",
            Self::CostsRepriced => "costs_repriced",
            Self::AuditRecorded => "audit_recorded",
            Self::ProjectChanged => "project_changed",
            Self::ChatDeferred => "deferred",
        }
    }

    /// Returns the type with which events of this kind are published: the latest version.
    pub fn latest(self) -> EventType {
        let version = match self {
            Self::ChatStarted | Self::MessageCompleted | Self::ChatFailed => EventVersion::V2,
            Self::ConversationCreated
            | Self::ConversationChanged
            | Self::ConversationDeleted
            | Self::KeyIssued
            | Self::KeyChanged
            | Self::KeyRevoked
            | Self::LimitsChanged
            | Self::PricesPublished
            | Self::CostsRepriced
            | Self::AuditRecorded
            | Self::ProjectChanged
            | Self::ChatDeferred => EventVersion::V1,
        };
        EventType { kind: self, version }
    }

    /// Returns the CloudEvents type of the latest version, such as `stenograph.ChatStarted.v2`.
    pub fn type_name(self) -> &'static str {
        self.latest().name()
    }
}

impl EventType {
    /// All types that were ever published. Each type is decoded for ever. Programs store positions in this list: a new type is added
    /// at the end.
    pub const ALL: [Self; 18] = [
        Self { kind: EventKind::ChatStarted, version: EventVersion::V1 },
        Self { kind: EventKind::MessageCompleted, version: EventVersion::V1 },
        Self { kind: EventKind::ChatFailed, version: EventVersion::V1 },
        Self { kind: EventKind::ConversationCreated, version: EventVersion::V1 },
        Self { kind: EventKind::ConversationChanged, version: EventVersion::V1 },
        Self { kind: EventKind::ConversationDeleted, version: EventVersion::V1 },
        Self { kind: EventKind::ChatStarted, version: EventVersion::V2 },
        Self { kind: EventKind::MessageCompleted, version: EventVersion::V2 },
        Self { kind: EventKind::ChatFailed, version: EventVersion::V2 },
        Self { kind: EventKind::KeyIssued, version: EventVersion::V1 },
        Self { kind: EventKind::KeyChanged, version: EventVersion::V1 },
        Self { kind: EventKind::KeyRevoked, version: EventVersion::V1 },
        Self { kind: EventKind::LimitsChanged, version: EventVersion::V1 },
        Self { kind: EventKind::PricesPublished, version: EventVersion::V1 },
        Self { kind: EventKind::CostsRepriced, version: EventVersion::V1 },
        Self { kind: EventKind::AuditRecorded, version: EventVersion::V1 },
        Self { kind: EventKind::ProjectChanged, version: EventVersion::V1 },
        Self { kind: EventKind::ChatDeferred, version: EventVersion::V1 },
    ];

    /// Returns the type with the given name, or `None` if this build does not know the name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Returns the CloudEvents type, such as `stenograph.ChatStarted.v1`.
    pub fn name(self) -> &'static str {
        match (self.kind, self.version) {
            (EventKind::ChatStarted, EventVersion::V1) => "stenograph.ChatStarted.v1",
            (EventKind::ChatStarted, EventVersion::V2) => "stenograph.ChatStarted.v2",
            (EventKind::MessageCompleted, EventVersion::V1) => "stenograph.MessageCompleted.v1",
            (EventKind::MessageCompleted, EventVersion::V2) => "stenograph.MessageCompleted.v2",
            (EventKind::ChatFailed, EventVersion::V1) => "stenograph.ChatFailed.v1",
            (EventKind::ChatFailed, EventVersion::V2) => "stenograph.ChatFailed.v2",
            (EventKind::ConversationCreated, _) => "stenograph.ConversationCreated.v1",
            (EventKind::ConversationChanged, _) => "stenograph.ConversationChanged.v1",
            (EventKind::ConversationDeleted, _) => "stenograph.ConversationDeleted.v1",
            (EventKind::KeyIssued, _) => "stenograph.KeyIssued.v1",
            (EventKind::KeyChanged, _) => "stenograph.KeyChanged.v1",
            (EventKind::KeyRevoked, _) => "stenograph.KeyRevoked.v1",
            (EventKind::LimitsChanged, _) => "stenograph.LimitsChanged.v1",
            (EventKind::PricesPublished, _) => "stenograph.PricesPublished.v1",
            (EventKind::CostsRepriced, _) => "stenograph.CostsRepriced.v1",
            (EventKind::AuditRecorded, _) => "stenograph.AuditRecorded.v1",
            (EventKind::ProjectChanged, _) => "stenograph.ProjectChanged.v1",
            (EventKind::ChatDeferred, _) => "stenograph.ChatDeferred.v1",
        }
    }

    /// Returns the kind of event.
    pub fn kind(self) -> EventKind {
        self.kind
    }

    /// Returns the version of the payload's format.
    pub fn version(self) -> EventVersion {
        self.version
    }
}

impl From<EventKind> for EventType {
    fn from(kind: EventKind) -> Self {
        kind.latest()
    }
}
