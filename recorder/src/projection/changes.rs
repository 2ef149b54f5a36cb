//! The changes of a batch of events, before the join with existing rows.

use std::collections::{BTreeMap, BTreeSet};

use shared::event::Event;
use shared::id::{ConversationId, MessageId};

use super::admin_rows::AdminRows;
use super::chat::Chat;
use super::chat_change::ChatChange;
use super::conversation::Conversation;
use super::message::{Message, Position};
use super::row::{Rows, has_all, join_into};
use super::usage_stats::ConversationTotals;

/// The facts of a batch of events by chat and conversation, before the join with existing rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Facts about each chat.
    pub chats: Rows<ChatChange>,
    /// Facts about each conversation. The totals in these rows are zero, because totals are counted from the chats.
    pub conversations: Rows<Conversation>,
    /// Conversations opened by a `ConversationCreated` event, ahead of the first chat.
    pub created_conversations: BTreeSet<ConversationId>,
    /// Facts about the deployment.
    pub admin: AdminRows,
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
            Event::ChatDeferred(event) => {
                changes.add_conversations(Conversation::from_deferred(event));
                changes.add_chat(ChatChange::from_deferred(event));
            }
            Event::ConversationCreated(event) => {
                changes.created_conversations.insert(event.conversation_id);
                changes.add_conversation(Conversation::from_created(event));
            }
            Event::ConversationChanged(event) => changes.add_conversation(Conversation::from_changed(event)),
            Event::ConversationDeleted(event) => changes.add_conversation(Conversation::from_deleted(event)),
            _ => changes.admin.add(event),
        }
    }
    changes
}

/// Rows with which events are compared.
#[derive(Clone, Debug, Default)]
pub struct RecordedRows {
    /// Chats.
    pub chats: Rows<Chat>,
    /// Conversations.
    pub conversations: Rows<Conversation>,
    /// Rows about the deployment.
    pub admin: AdminRows,
}

/// Returns true when the given rows already contain all facts of the event, so that joining the event changes no row.
///
/// The result is true for every event that was applied. For an event that was not applied, the result is true only when
/// other events state the same facts; such an event would have changed no row and no sum.
pub fn is_recorded_in(event: &Event, rows: &RecordedRows) -> bool {
    let changes = project(std::slice::from_ref(event));
    if !changes.chats.is_empty() {
        // A chat and its conversation are written in one transaction, so the chat's row alone decides.
        return has_all(&rows.chats, changes.chats.into_values().map(|change| change.row));
    }
    rows.admin.has_all(changes.admin) && has_all(&rows.conversations, changes.conversations.into_values())
}

impl Changes {
    /// Joins the changes of two batches. The result equals the projection of both batches together.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        join_into(&mut self.chats, other.chats.into_values());
        join_into(&mut self.conversations, other.conversations.into_values());
        self.created_conversations.extend(other.created_conversations);
        self.admin.join(other.admin);
        self
    }

    /// Makes changes from rows, for events that are no longer in the log.
    ///
    /// A row is joined like an event, so the sums are counted again. The request and the ending of a chat that
    /// `projected` already has are not taken from the row.
    pub fn from_rows(
        chats: Rows<Chat>,
        mut messages: BTreeMap<MessageId, Message>,
        conversations: Rows<Conversation>,
        projected: &Rows<Chat>,
    ) -> Self {
        let mut changes = Self::default();
        for (id, mut row) in chats {
            let has = projected.get(&id);
            if has.is_some_and(|has| has.request.is_some()) {
                row.request = None;
            }
            if has.is_some_and(|has| has.deferral.is_some()) {
                row.deferral = None;
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
        join_into(&mut self.chats, [change]);
    }

    fn add_conversations(&mut self, rows: impl IntoIterator<Item = Conversation>) {
        join_into(&mut self.conversations, rows);
    }

    fn add_conversation(&mut self, row: Conversation) {
        join_into(&mut self.conversations, [row]);
    }
}
