//! What a batch of events says, before it meets the rows that are there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use shared::event::Event;
use shared::id::{ChatId, ConversationId, MessageId};

use super::chat::Chat;
use super::chat_change::ChatChange;
use super::conversation::Conversation;
use super::message::Message;
use super::usage_stats::ConversationTotals;

/// What a batch of events says, before it meets the rows that are there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// What is said of each chat.
    pub chats: BTreeMap<ChatId, ChatChange>,
    /// What is said of each conversation; the counts in it are zero.
    pub conversations: BTreeMap<ConversationId, Conversation>,
    /// The conversations that were opened ahead of their first chat.
    pub created_conversations: BTreeSet<ConversationId>,
}

/// Reads a batch of events.
pub fn project(events: &[Event]) -> Changes {
    let mut changes = Changes::default();
    for event in events {
        match event {
            Event::ChatStarted(event) => {
                changes.add_conversation(Conversation::from_started(event));
                changes.add_chat(ChatChange::from_started(event));
            }
            Event::MessageCompleted(event) => {
                changes.add_conversation(Conversation::from_completed(event));
                changes.add_chat(ChatChange::from_completed(event));
            }
            Event::ChatFailed(event) => {
                changes.add_conversation(Conversation::from_failed(event));
                changes.add_chat(ChatChange::from_failed(event));
            }
            Event::ConversationCreated(event) => {
                changes.created_conversations.insert(event.conversation_id);
                changes.add_conversation(Conversation::from_created(event));
            }
            Event::ConversationChanged(event) => changes.add_conversation(Conversation::from_changed(event)),
            Event::ConversationDeleted(event) => changes.add_conversation(Conversation::from_deleted(event)),
        }
    }
    changes
}

/// Whether these rows have what an event says: joining it changes nothing. An event that was counted always is; one that
/// was not is only where others say all that it does, and then it would not have counted.
pub fn is_recorded_in(
    event: &Event,
    chats: &BTreeMap<ChatId, Chat>,
    conversations: &BTreeMap<ConversationId, Conversation>,
) -> bool {
    let changes = project(std::slice::from_ref(event));
    if !changes.chats.is_empty() {
        // One transaction writes a chat and its conversation.
        return changes.chats.into_iter().all(|(id, change)| {
            chats.get(&id).is_some_and(|row| {
                let mut joined = row.clone();
                joined.join(change.row);
                joined == *row
            })
        });
    }
    changes.conversations.into_iter().all(|(id, change)| {
        conversations.get(&id).is_some_and(|row| {
            let mut joined = row.clone();
            joined.join(change);
            joined == *row
        })
    })
}

impl Changes {
    /// What both say together.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        other.chats.into_values().for_each(|change| self.add_chat(change));
        other.conversations.into_values().for_each(|row| self.add_conversation(row));
        self.created_conversations.extend(other.created_conversations);
        self
    }

    /// What rows say, where a projection lacks it: the events that they were made from are no longer in the log. A row is
    /// joined like an event, so the sums are counted anew; what `projected` has already is not taken from rows.
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
            let user_message = row.request.as_ref().and_then(|_| messages.remove(&id.user_message()));
            let assistant_message = row.ending.as_ref().and_then(|_| messages.remove(&id.assistant_message()));
            if !conversations.contains_key(&row.conversation_id) {
                changes.add_conversation(Conversation::from_chat_row(&row));
            }
            changes.add_chat(ChatChange { row, user_message, assistant_message });
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

    fn add_conversation(&mut self, row: Conversation) {
        match self.conversations.entry(row.conversation_id) {
            Entry::Vacant(entry) => drop(entry.insert(row)),
            Entry::Occupied(mut entry) => entry.get_mut().join(row),
        }
    }
}
