//! From events to rows: pure, without a clock, randomness or any state from outside.
//!
//! `project` reads a batch of events into [`Changes`]; [`settle`] joins them with the rows that are there and says what to
//! write. Both are joins in a semilattice: any order, any batching and any repetition of the same events end in the same
//! rows, which is what lets the broker deliver as it likes, and any number of recorders share the work.
//!
//! Nothing that a provider or a client sends may keep a batch from being written: [`representable`] brings every value into
//! the range of what PostgreSQL can hold.

pub mod chat;
pub mod conversation;
pub mod message;
pub mod usage_slots;
pub mod usage_stats;

pub mod settle;
pub mod tables;

mod digest;
pub mod representable;
pub mod word;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use shared::event::Event;
use shared::id::{ChatId, ConversationId};

use chat::ChatChange;
use conversation::Conversation;

/// What a batch of events says, before it meets the rows that are there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// What is said of each chat.
    pub chats: BTreeMap<ChatId, ChatChange>,
    /// What is said of each conversation; the counts in it are zero.
    pub conversations: BTreeMap<ConversationId, Conversation>,
    /// The conversations that were opened ahead of their first chat.
    pub opened: BTreeSet<ConversationId>,
}

/// Reads a batch of events.
pub fn project(events: &[Event]) -> Changes {
    let mut changes = Changes::default();
    for event in events {
        match event {
            Event::ChatStarted(event) => {
                changes.conversation(Conversation::of_started(event));
                changes.chat(ChatChange::started(event));
            }
            Event::MessageCompleted(event) => {
                changes.conversation(Conversation::of_completed(event));
                changes.chat(ChatChange::completed(event));
            }
            Event::ChatFailed(event) => {
                changes.conversation(Conversation::of_failed(event));
                changes.chat(ChatChange::failed(event));
            }
            Event::ConversationCreated(event) => {
                changes.opened.insert(event.conversation_id);
                changes.conversation(Conversation::of_created(event));
            }
            Event::ConversationChanged(event) => changes.conversation(Conversation::of_changed(event)),
            Event::ConversationDeleted(event) => changes.conversation(Conversation::of_deleted(event)),
        }
    }
    changes
}

impl Changes {
    /// What both say together.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        other.chats.into_values().for_each(|change| self.chat(change));
        other.conversations.into_values().for_each(|row| self.conversation(row));
        self.opened.extend(other.opened);
        self
    }

    fn chat(&mut self, change: ChatChange) {
        match self.chats.entry(change.row.chat_id) {
            Entry::Vacant(entry) => drop(entry.insert(change)),
            Entry::Occupied(mut entry) => entry.get_mut().join(change),
        }
    }

    fn conversation(&mut self, row: Conversation) {
        match self.conversations.entry(row.conversation_id) {
            Entry::Vacant(entry) => drop(entry.insert(row)),
            Entry::Occupied(mut entry) => entry.get_mut().join(row),
        }
    }
}
