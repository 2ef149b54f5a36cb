//! The changes of a batch of events, before the join with existing rows.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use shared::access::{KeyState, LimitState, ProjectState};
use shared::event::{Event, LimitScope};
use shared::id::{ChatId, ConversationId, KeyId, MessageId, ProjectId};
use uuid::Uuid;

use super::api_keys;
use super::audit_log::{self, AuditEntry};
use super::chat::Chat;
use super::chat_change::ChatChange;
use super::conversation::Conversation;
use super::limits;
use super::message::{Message, Position};
use super::price_lists::{self, PriceList};
use super::projects;
use super::repricings::{self, Repricing};
use super::usage_stats::ConversationTotals;

/// The facts of a batch of events by chat and conversation, before the join with existing rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Facts about each chat.
    pub chats: BTreeMap<ChatId, ChatChange>,
    /// Facts about each conversation. The totals in these rows are zero, because totals are counted from the chats.
    pub conversations: BTreeMap<ConversationId, Conversation>,
    /// Conversations opened by a `ConversationCreated` event, ahead of the first chat.
    pub created_conversations: BTreeSet<ConversationId>,
    /// Facts about each API key.
    pub api_keys: BTreeMap<KeyId, KeyState>,
    /// The limits of each scope.
    pub limits: BTreeMap<LimitScope, LimitState>,
    /// The settings of each project.
    pub projects: BTreeMap<ProjectId, ProjectState>,
    /// The price lists that were published.
    pub price_lists: BTreeMap<Uuid, PriceList>,
    /// The spans of time whose costs are computed again.
    pub repricings: BTreeMap<Uuid, Repricing>,
    /// Entries of the audit log.
    pub audit_log: BTreeMap<Uuid, AuditEntry>,
}

/// Reads a batch of events into changes. The order and the repetition of events do not affect the result.
pub fn project(events: &[Event]) -> Changes {
    let mut changes = Changes::default();
    for event in events {
        match event {
            Event::ChatStarted(event) => {
                changes.add_conversations(Conversation::from_started(event));
                changes.add_chat(ChatChange::from_started(event));
            }
            Event::MessageCompleted(event) => {
                changes.add_conversations(Conversation::from_completed(event));
                changes.add_chat(ChatChange::from_completed(event));
            }
            Event::ChatFailed(event) => {
                changes.add_conversations(Conversation::from_failed(event));
                changes.add_chat(ChatChange::from_failed(event));
            }
            Event::ConversationCreated(event) => {
                changes.created_conversations.insert(event.conversation_id);
                changes.add_conversation(Conversation::from_created(event));
            }
            Event::ConversationChanged(event) => changes.add_conversation(Conversation::from_changed(event)),
            Event::ConversationDeleted(event) => changes.add_conversation(Conversation::from_deleted(event)),
            Event::KeyIssued(_) | Event::KeyChanged(_) | Event::KeyRevoked(_) => {
                api_keys::join(&mut changes.api_keys, api_keys::from_event(event));
            }
            Event::LimitsChanged(_) => limits::join(&mut changes.limits, limits::from_event(event)),
            Event::ProjectChanged(_) => projects::join(&mut changes.projects, projects::from_event(event)),
            Event::PricesPublished(event) => {
                price_lists::join(&mut changes.price_lists, [PriceList::from_published(event)]);
            }
            Event::CostsRepriced(event) => {
                repricings::join(&mut changes.repricings, [Repricing::from_repriced(event)]);
            }
            Event::AuditRecorded(event) => {
                audit_log::join(&mut changes.audit_log, [AuditEntry::from_recorded(event)]);
            }
        }
    }
    changes
}

/// Rows with which events are compared.
#[derive(Clone, Debug, Default)]
pub struct RecordedRows {
    /// Chats.
    pub chats: BTreeMap<ChatId, Chat>,
    /// Conversations.
    pub conversations: BTreeMap<ConversationId, Conversation>,
    /// API keys.
    pub api_keys: BTreeMap<KeyId, KeyState>,
    /// Limits of scopes.
    pub limits: BTreeMap<LimitScope, LimitState>,
    /// Projects.
    pub projects: BTreeMap<ProjectId, ProjectState>,
    /// Price lists.
    pub price_lists: BTreeMap<Uuid, PriceList>,
    /// Repricings.
    pub repricings: BTreeMap<Uuid, Repricing>,
    /// Entries of the audit log.
    pub audit_log: BTreeMap<Uuid, AuditEntry>,
}

/// Returns true when the given rows already contain all facts of the event, so that joining the event changes no row.
///
/// The result is true for every event that was applied. For an event that was not applied, the result is true only when
/// other events state the same facts; such an event would have changed no row and no sum.
pub fn is_recorded_in(event: &Event, rows: &RecordedRows) -> bool {
    /// True if each row exists and stays the same when a state is joined.
    fn all<K: Ord, V: Clone + PartialEq, S>(
        states: BTreeMap<K, S>,
        rows: &BTreeMap<K, V>,
        join: impl Fn(&mut V, S),
    ) -> bool {
        states.into_iter().all(|(key, state)| {
            rows.get(&key).is_some_and(|row| {
                let mut joined = row.clone();
                join(&mut joined, state);
                joined == *row
            })
        })
    }
    let changes = project(std::slice::from_ref(event));
    if !changes.chats.is_empty() {
        // A chat and its conversation are written in one transaction, so the chat's row alone decides.
        return all(changes.chats, &rows.chats, |row, change| {
            row.join(change.row);
        });
    }
    all(changes.api_keys, &rows.api_keys, KeyState::join)
        && all(changes.limits, &rows.limits, LimitState::join)
        && all(changes.projects, &rows.projects, ProjectState::join)
        && all(changes.price_lists, &rows.price_lists, PriceList::join)
        && all(changes.repricings, &rows.repricings, Repricing::join)
        && all(changes.audit_log, &rows.audit_log, AuditEntry::join)
        && all(changes.conversations, &rows.conversations, Conversation::join)
}

impl Changes {
    /// Joins the changes of two batches. The result equals the projection of both batches together.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        other.chats.into_values().for_each(|change| self.add_chat(change));
        other.conversations.into_values().for_each(|row| self.add_conversation(row));
        self.created_conversations.extend(other.created_conversations);
        api_keys::join(&mut self.api_keys, other.api_keys.into_values());
        limits::join(&mut self.limits, other.limits.into_values());
        projects::join(&mut self.projects, other.projects.into_values());
        price_lists::join(&mut self.price_lists, other.price_lists.into_values());
        repricings::join(&mut self.repricings, other.repricings.into_values());
        audit_log::join(&mut self.audit_log, other.audit_log.into_values());
        self
    }

    /// Returns true if the changes may change the costs of chats that have ended before.
    pub fn has_prices(&self) -> bool {
        !self.price_lists.is_empty() || !self.repricings.is_empty()
    }

    /// Makes changes from rows, for events that are no longer in the log.
    ///
    /// A row is joined like an event, so the sums are counted again. The request and the ending of a chat that
    /// `projected` already has are not taken from the row.
    pub fn from_rows(
        chats: BTreeMap<ChatId, Chat>,
        mut messages: BTreeMap<MessageId, Message>,
        conversations: BTreeMap<ConversationId, Conversation>,
        projected: &BTreeMap<ChatId, Chat>,
    ) -> Self {
        let mut changes = Self::default();
        for (id, mut row) in chats {
            let has = projected.get(&id);
            if has.is_some_and(|has| has.request.is_some()) {
                row.request = None;
            }
            if has.is_some_and(|has| has.ending.is_some()) {
                row.ending = None;
            }
            let positions = Position::of_new(row.request.as_ref().map_or(0, |request| request.new_messages));
            let new_messages = positions.filter_map(|position| messages.remove(&position.message_of(id))).collect();
            let assistant_message = row.ending.as_ref().and_then(|_| messages.remove(&id.assistant_message()));
            if row.conversation_id.is_some_and(|id| !conversations.contains_key(&id)) {
                changes.add_conversations(Conversation::from_chat_row(&row));
            }
            changes.add_chat(ChatChange { row, new_messages, assistant_message });
        }
        for row in conversations.into_values() {
            changes.add_conversation(Conversation { totals: ConversationTotals::default(), ..row });
        }
        changes
    }

    fn add_chat(&mut self, change: ChatChange) {
        match self.chats.entry(change.row.chat_id) {
            Entry::Vacant(entry) => drop(entry.insert(change)),
            Entry::Occupied(mut entry) => entry.get_mut().join(change),
        }
    }

    fn add_conversations(&mut self, rows: impl IntoIterator<Item = Conversation>) {
        rows.into_iter().for_each(|row| self.add_conversation(row));
    }

    fn add_conversation(&mut self, row: Conversation) {
        match self.conversations.entry(row.conversation_id) {
            Entry::Vacant(entry) => drop(entry.insert(row)),
            Entry::Occupied(mut entry) => entry.get_mut().join(row),
        }
    }
}
