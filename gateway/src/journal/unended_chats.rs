//! Chats with a recorded start and no recorded end. A restarted gateway records a failure for each such chat.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use shared::event::{
    About, ChatDeferred, ChatError, ChatFailed, ChatStarted, Event, EventType, FailureStage, Operation, RecordingMode,
};
use shared::id::{ChatId, ConversationId, KeyId, ProjectId, UserId};
use shared::trace_context::TraceContext;
use shared::usage::Usage;
use time::OffsetDateTime;

use super::record::{JournalEntry, RecordKind, UnnumberedRecord};

/// The properties of a chat that are needed to record the chat's end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UnendedChat {
    chat_id: ChatId,
    /// Absent in records of gateways that knew no other calls than chats.
    #[serde(default = "operation_before_operations")]
    operation: Operation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conversation_id: Option<ConversationId>,
    user_id: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_id: Option<ProjectId>,
    gateway: String,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    model: String,
    #[serde(default, skip_serializing_if = "RecordingMode::is_full")]
    recording: RecordingMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<TraceContext>,
    /// The answer that the provider makes in the background.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deferral: Option<Deferral>,
}

/// An answer that a provider makes in the background, as far as the chat does not have it already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Deferral {
    #[serde(with = "time::serde::rfc3339")]
    deferred_at: OffsetDateTime,
    upstream: String,
    response_id: String,
}

/// All unended chats by chat id.
#[derive(Debug, Default)]
pub(super) struct UnendedChats(HashMap<ChatId, UnendedChat>);

impl UnendedChat {
    fn from_start(started: &ChatStarted) -> Self {
        Self {
            chat_id: started.chat_id,
            operation: started.operation,
            conversation_id: started.conversation_id,
            user_id: started.user_id.clone(),
            key_id: started.key_id,
            project_id: started.project_id,
            gateway: started.gateway.clone(),
            started_at: started.started_at,
            model: started.model.clone(),
            recording: started.recording,
            traceparent: started.traceparent,
            deferral: None,
        }
    }

    /// Returns the event of a chat whose answer a provider makes in the background. Such a chat goes on after a restart.
    pub(super) fn deferred(&self) -> Option<ChatDeferred> {
        let Deferral { deferred_at, upstream, response_id } = self.deferral.clone()?;
        Some(ChatDeferred {
            chat_id: self.chat_id,
            operation: self.operation,
            conversation_id: self.conversation_id,
            user_id: self.user_id.clone(),
            key_id: self.key_id,
            project_id: self.project_id,
            gateway: self.gateway.clone(),
            started_at: self.started_at,
            deferred_at,
            model: self.model.clone(),
            upstream,
            response_id,
            recording: self.recording,
            traceparent: self.traceparent,
            restored: None,
        })
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> ChatId {
        self.chat_id
    }

    /// Returns the end of a chat that an earlier process left unended: a `ChatFailed` at stage `GatewayRestarted`,
    /// whose duration includes the downtime.
    pub(super) fn end_event(self, now: OffsetDateTime) -> Event {
        // The clock may have been set back since the start.
        let failed_at = now.max(self.started_at);
        let duration_ms = u64::try_from((failed_at - self.started_at).whole_milliseconds()).unwrap_or(0);
        Event::ChatFailed(Box::new(ChatFailed {
            chat_id: self.chat_id,
            operation: self.operation,
            conversation_id: self.conversation_id,
            user_id: self.user_id,
            key_id: self.key_id,
            project_id: self.project_id,
            gateway: self.gateway,
            started_at: self.started_at,
            failed_at,
            model: self.model,
            stage: FailureStage::GatewayRestarted,
            error: ChatError::new("gateway_restarted", "the gateway died while the chat was running"),
            message: None,
            usage: Usage::default(),
            media: None,
            time_to_first_token_ms: None,
            duration_ms,
            upstream: None,
            attempts: Vec::new(),
            notes: vec!["duration_includes_downtime".to_owned()],
            recording: self.recording,
            traceparent: self.traceparent,
            restored: None,
        }))
    }
}

/// The change of the unended chats by an event.
#[derive(Debug, Default)]
pub(super) enum ChatChange {
    /// The event is the start of the chat.
    Started(Box<UnendedChat>),
    /// The event says that a provider makes the answer in the background.
    Deferred(ChatId, Box<Deferral>),
    /// The event is the end of the chat.
    Ended(ChatId),
    /// The event belongs to no call.
    #[default]
    None,
}

impl ChatChange {
    /// Returns the change by an event.
    pub(super) fn of(event: &Event) -> Self {
        match event {
            Event::ChatStarted(started) => Self::Started(Box::new(UnendedChat::from_start(started))),
            Event::ChatDeferred(event) => {
                let ChatDeferred { chat_id, deferred_at, upstream, response_id, .. } = (**event).clone();
                Self::Deferred(chat_id, Box::new(Deferral { deferred_at, upstream, response_id }))
            }
            ended => match ended.about() {
                About::Chat { chat_id, .. } => Self::Ended(chat_id),
                About::Conversation(_) | About::Deployment => Self::None,
            },
        }
    }
}

fn operation_before_operations() -> Operation {
    Operation::Chat
}

impl UnendedChats {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds or removes a chat.
    pub(super) fn apply(&mut self, change: ChatChange) {
        match change {
            ChatChange::Started(chat) => drop(self.0.insert(chat.chat_id, *chat)),
            ChatChange::Deferred(chat, deferral) => {
                if let Some(chat) = self.0.get_mut(&chat) {
                    chat.deferral = Some(*deferral);
                }
            }
            ChatChange::Ended(chat) => drop(self.0.remove(&chat)),
            ChatChange::None => {}
        }
    }

    /// Applies a record that was read from a segment. Returns false if the record cannot be decoded.
    pub(super) fn apply_record(&mut self, entry: &JournalEntry) -> bool {
        if entry.kind == RecordKind::UnendedChat {
            let chat = serde_json::from_slice::<UnendedChat>(&entry.body());
            return chat.map(|chat| self.0.insert(chat.chat_id, chat)).is_ok();
        }
        let Some(stored) = entry.event() else { return false };
        let event_type = EventType::from_name(stored.envelope.type_name);
        let event = event_type.and_then(|event_type| Event::decode(event_type, &stored.payload).ok());
        event.as_ref().map(|event| self.apply(ChatChange::of(event))).is_some()
    }

    /// Returns all unended chats as encoded records, for the beginning of a segment.
    pub(super) fn records(&self, at_ms: u64) -> Vec<u8> {
        let bodies = self.0.values().filter_map(|chat| serde_json::to_vec(chat).ok());
        let unnumbered = bodies.filter_map(|body| UnnumberedRecord::from_bytes(RecordKind::UnendedChat, &body).ok());
        unnumbered.flat_map(|record| record.assign_number(0, at_ms).record().to_vec()).collect()
    }

    /// Returns all unended chats, the oldest first.
    pub(super) fn all(&self) -> Vec<UnendedChat> {
        let mut chats: Vec<UnendedChat> = self.0.values().cloned().collect();
        chats.sort_by_key(|chat| chat.chat_id);
        chats
    }
}
