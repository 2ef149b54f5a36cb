//! The projected tables: which they are, and their rows in memory, as a fresh projection of the stream comes to them.
//!
//! [`Table`] is the one place that says which tables are the record. Whatever treats them alike goes through
//! [`Table::ALL`]: the store's locks, `rebuild`, `verify`, the benchmarks, the tests' oracle.

use std::collections::{BTreeMap, BTreeSet};

use shared::event::Event;
use shared::id::{ChatId, ConversationId, MessageId, UserId};
use time::Date;

use super::changes::{Changes, project};
use super::chat::Chat;
use super::conversation::Conversation;
use super::merge::{self, AggregateChanges};
use super::message::Message;
use super::usage_slots::SlotKey;
use super::usage_stats::UsageTotals;

/// A projected table: a function of the events, and of nothing else. A new one is added here, and to [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The ledger.
    Chats,
    /// Threads of chats.
    Conversations,
    /// What was said.
    Messages,
    /// What each user used, by day.
    UsageStats,
    /// What each user used, by quarter of an hour and model.
    UsageSlots,
}

/// Every row of every projected table. Two are equal if all their rows are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// The rows of `chats`.
    pub chats: BTreeMap<ChatId, Chat>,
    /// The rows of `conversations`.
    pub conversations: BTreeMap<ConversationId, Conversation>,
    /// The rows of `messages`.
    pub messages: BTreeMap<MessageId, Message>,
    /// The rows of `usage_stats`.
    pub usage_stats: BTreeMap<(UserId, Date), UsageTotals>,
    /// The rows of `usage_slots`.
    pub usage_slots: BTreeMap<SlotKey, UsageTotals>,
}

// === impl Table ===

impl Table {
    /// All of them, in the order in which a transaction touches them.
    pub const ALL: [Self; 5] = [Self::Chats, Self::Conversations, Self::Messages, Self::UsageStats, Self::UsageSlots];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Conversations => "conversations",
            Self::Messages => "messages",
            Self::UsageStats => "usage_stats",
            Self::UsageSlots => "usage_slots",
        }
    }

    /// What one of its rows is called.
    pub fn row_label(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Conversations => "conversations",
            Self::Messages => "messages",
            Self::UsageStats => "usage rows",
            Self::UsageSlots => "usage slots",
        }
    }
}

// === impl Tables ===

impl Tables {
    /// How many rows a table has.
    pub fn len(&self, table: Table) -> usize {
        let Self { chats, conversations, messages, usage_stats, usage_slots } = self;
        match table {
            Table::Chats => chats.len(),
            Table::Conversations => conversations.len(),
            Table::Messages => messages.len(),
            Table::UsageStats => usage_stats.len(),
            Table::UsageSlots => usage_slots.len(),
        }
    }

    /// Takes in a batch of events, as the store does in one transaction.
    pub fn apply(&mut self, events: &[Event]) {
        let aggregates = self.apply_chats_and_messages(events);
        self.apply_aggregates(aggregates);
    }

    /// Takes in what a batch of events says of chats and messages, and tells the rest.
    pub fn apply_chats_and_messages(&mut self, events: &[Event]) -> AggregateChanges {
        let Changes { chats, conversations, created_conversations: _ } = project(events);

        let old = existing_rows(&self.chats, chats.keys());
        self.chats.extend(chats.iter().map(|(id, change)| (*id, change.row.clone())));
        let chat_writes = merge::merge_chats(chats, &old);
        self.chats.extend(old);
        self.chats.extend(chat_writes.update.into_iter().map(|row| (row.chat_id, row)));
        for id in chat_writes.delete_messages {
            self.messages.remove(&id);
        }
        self.messages.extend(chat_writes.insert_messages.into_iter().map(|row| (row.message_id, row)));
        AggregateChanges::new(conversations, chat_writes.conversation_totals, chat_writes.usage)
    }

    /// Takes in what batches say of conversations and usage.
    pub fn apply_aggregates(&mut self, aggregates: AggregateChanges) {
        let AggregateChanges { conversations, mut usage } = aggregates;
        let old = existing_rows(&self.conversations, conversations.keys());
        self.conversations.extend(conversations.iter().filter_map(|(id, change)| Some((*id, change.row()?))));
        let conversation_writes = merge::merge_conversations(conversations, &BTreeSet::new(), &old, &mut usage);
        self.conversations.extend(old);
        self.conversations.extend(conversation_writes.update.into_iter().map(|row| (row.conversation_id, row)));
        for (key, change) in usage.days() {
            *self.usage_stats.entry(key.clone()).or_default() += *change;
        }
        self.usage_stats.retain(|_, counts| !counts.is_zero());
        for (key, change) in usage.slots() {
            *self.usage_slots.entry(key.clone()).or_default() += *change;
        }
        self.usage_slots.retain(|_, counts| !counts.is_zero());
    }
}

/// The rows that are there, of those asked for.
fn existing_rows<'a, K: Ord + Copy + 'a, V: Clone>(
    rows: &BTreeMap<K, V>,
    keys: impl Iterator<Item = &'a K>,
) -> BTreeMap<K, V> {
    keys.filter_map(|key| Some((*key, rows.get(key)?.clone()))).collect()
}

#[cfg(test)]
mod tests;
