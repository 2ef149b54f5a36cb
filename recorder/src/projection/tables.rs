//! The projected tables in memory: what a fresh projection of the stream comes to, to be compared with what a database holds.

use std::collections::BTreeMap;

use shared::event::Event;
use shared::id::{ChatId, ConversationId, MessageId, UserId};
use time::Date;

use super::chat::Chat;
use super::conversation::Conversation;
use super::message::Message;
use super::usage_slots::SlotKey;
use super::usage_stats::Counts;
use super::{Changes, project, settle};

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
    pub usage_stats: BTreeMap<(UserId, Date), Counts>,
    /// The rows of `usage_slots`.
    pub usage_slots: BTreeMap<SlotKey, Counts>,
}

impl Tables {
    /// Takes in a batch of events, as the store does in one transaction.
    pub fn apply(&mut self, events: &[Event]) {
        let Changes { chats, conversations, opened } = project(events);

        let old = present(&self.chats, chats.keys());
        self.chats.extend(chats.iter().map(|(id, change)| (*id, change.row.clone())));
        let mut writes = settle::chats(chats, &old);
        self.chats.extend(old);
        self.chats.extend(writes.update.into_iter().map(|row| (row.chat_id, row)));

        let touched = settle::touched(conversations, writes.tallies);
        let old = present(&self.conversations, touched.keys());
        self.conversations.extend(touched.iter().filter_map(|(id, change)| Some((*id, change.row()?))));
        let settled = settle::conversations(touched, &opened, &old, &mut writes.usage);
        self.conversations.extend(old);
        self.conversations.extend(settled.update.into_iter().map(|row| (row.conversation_id, row)));

        for id in writes.delete_messages {
            self.messages.remove(&id);
        }
        self.messages.extend(writes.insert_messages.into_iter().map(|row| (row.message_id, row)));

        for (key, change) in writes.usage.days() {
            *self.usage_stats.entry(key.clone()).or_default() += *change;
        }
        self.usage_stats.retain(|_, counts| !counts.is_zero());
        for (key, change) in writes.usage.slots() {
            *self.usage_slots.entry(key.clone()).or_default() += *change;
        }
        self.usage_slots.retain(|_, counts| !counts.is_zero());
    }
}

/// The rows that are there, of those asked for.
fn present<'a, K: Ord + Copy + 'a, V: Clone>(
    rows: &BTreeMap<K, V>,
    keys: impl Iterator<Item = &'a K>,
) -> BTreeMap<K, V> {
    keys.filter_map(|key| Some((*key, rows.get(key)?.clone()))).collect()
}

#[cfg(test)]
mod tests;
