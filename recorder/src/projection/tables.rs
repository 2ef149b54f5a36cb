//! The list of projected tables, and an in-memory form of the rows, filled by a fresh projection of the stream.
//!
//! [`Table`] is the single list of the tables that make up the record. Code that treats all tables alike iterates over
//! [`Table::ALL`]: the store's locks, `rebuild`, `verify`, the benchmarks and the oracle of the tests.

use std::collections::{BTreeMap, BTreeSet};

use shared::event::Event;
use shared::id::{ChatId, ConversationId, MessageId, UserId};
use shared::prices::PriceHistory;
use time::Date;

use super::admin_rows::AdminRows;
use super::changes::{Changes, project};
use super::chat::Chat;
use super::conversation::Conversation;
use super::key_slots::KeySlotKey;
use super::merge::{self, AggregateChanges};
use super::message::Message;
use super::operation_slots::OperationSlotKey;
use super::price_lists::PriceList;
use super::pricing::Prices;
use super::repricings::Repricing;
use super::usage_slots::SlotKey;
use super::usage_stats::{UsageChanges, UsageTotals};

/// A projected table: a function of the events alone. A new table is added here and to [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The ledger: one row for each chat.
    Chats,
    /// Threads of chats, with title, settings and totals.
    Conversations,
    /// Messages of users and assistants.
    Messages,
    /// Usage of each user by UTC day.
    UsageStats,
    /// Usage of each user by quarter of an hour and model.
    UsageSlots,
    /// Usage of calls that are no chats, by user, quarter of an hour, model and operation.
    OperationSlots,
    /// Usage of calls with an API key, by user, quarter of an hour, model, key and project.
    KeySlots,
    /// API keys.
    ApiKeys,
    /// Limits of scopes.
    Limits,
    /// Projects.
    Projects,
    /// Published price lists.
    PriceLists,
    /// Spans of time whose costs were computed again.
    Repricings,
    /// Entries of the audit log.
    AuditLog,
}

/// All rows of all projected tables. Two values are equal when all rows are equal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Rows of the table `chats`, by chat.
    pub chats: BTreeMap<ChatId, Chat>,
    /// Rows of the table `conversations`, by conversation.
    pub conversations: BTreeMap<ConversationId, Conversation>,
    /// Rows of the table `messages`, by message.
    pub messages: BTreeMap<MessageId, Message>,
    /// Rows of the table `usage_stats`, by user and UTC day.
    pub usage_stats: BTreeMap<(UserId, Date), UsageTotals>,
    /// Rows of the table `usage_slots`, by user, quarter of an hour and model.
    pub usage_slots: BTreeMap<SlotKey, UsageTotals>,
    /// Rows of the table `operation_slots`, by user, quarter of an hour, model and operation.
    pub operation_slots: BTreeMap<OperationSlotKey, UsageTotals>,
    /// Rows of the table `key_slots`, by user, quarter of an hour, model, key and project.
    pub key_slots: BTreeMap<KeySlotKey, UsageTotals>,
    /// Rows about the deployment.
    pub admin: AdminRows,
}

// === impl Table ===

impl Table {
    /// All projected tables, in the order in which a transaction locks the tables: prices first.
    pub const ALL: [Self; 13] = [
        Self::PriceLists,
        Self::Repricings,
        Self::Chats,
        Self::Conversations,
        Self::Messages,
        Self::UsageStats,
        Self::UsageSlots,
        Self::OperationSlots,
        Self::KeySlots,
        Self::ApiKeys,
        Self::Limits,
        Self::Projects,
        Self::AuditLog,
    ];

    /// The table's name in the database, without a schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Conversations => "conversations",
            Self::Messages => "messages",
            Self::UsageStats => "usage_stats",
            Self::UsageSlots => "usage_slots",
            Self::OperationSlots => "operation_slots",
            Self::KeySlots => "key_slots",
            Self::ApiKeys => "api_keys",
            Self::Limits => "limits",
            Self::Projects => "projects",
            Self::PriceLists => "price_lists",
            Self::Repricings => "repricings",
            Self::AuditLog => "audit_log",
        }
    }

    /// The word for the table's rows in messages to operators.
    pub fn row_label(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Conversations => "conversations",
            Self::Messages => "messages",
            Self::UsageStats => "usage rows",
            Self::UsageSlots => "usage slots",
            Self::OperationSlots => "operation slots",
            Self::KeySlots => "key slots",
            Self::ApiKeys => "API keys",
            Self::Limits => "limits",
            Self::Projects => "projects",
            Self::PriceLists => "price lists",
            Self::Repricings => "repricings",
            Self::AuditLog => "audit entries",
        }
    }
}

// === impl Tables ===

impl Tables {
    /// The number of rows of a table.
    pub fn len(&self, table: Table) -> usize {
        let Self {
            chats,
            conversations,
            messages,
            usage_stats,
            usage_slots,
            operation_slots,
            key_slots,
            admin: AdminRows { api_keys, limits, projects, price_lists, repricings, audit_log },
        } = self;
        match table {
            Table::Chats => chats.len(),
            Table::Conversations => conversations.len(),
            Table::Messages => messages.len(),
            Table::UsageStats => usage_stats.len(),
            Table::UsageSlots => usage_slots.len(),
            Table::OperationSlots => operation_slots.len(),
            Table::KeySlots => key_slots.len(),
            Table::ApiKeys => api_keys.len(),
            Table::Limits => limits.len(),
            Table::Projects => projects.len(),
            Table::PriceLists => price_lists.len(),
            Table::Repricings => repricings.len(),
            Table::AuditLog => audit_log.len(),
        }
    }

    /// Applies a batch of events, as the store does in one transaction.
    pub fn apply(&mut self, events: &[Event]) {
        let aggregates = self.apply_chats_and_messages(events);
        self.apply_aggregates(aggregates);
    }

    /// Applies the part of a batch that concerns chats and messages, and returns the remaining changes for
    /// [`Tables::apply_aggregates`].
    pub fn apply_chats_and_messages(&mut self, events: &[Event]) -> AggregateChanges {
        let changes = project(events);
        let Changes { mut chats, conversations, created_conversations: _, admin } = changes;
        let has_prices = admin.has_prices();
        self.admin.join(admin);
        let mut prices = self.prices();
        let mut repriced_usage = UsageChanges::default();
        if has_prices {
            let (repriced, usage) = merge::reprice(self.chats.values().cloned(), &mut prices);
            self.chats.extend(repriced.into_iter().map(|row| (row.chat_id, row)));
            repriced_usage = usage;
        }

        chats.values_mut().for_each(|change| prices.price(&mut change.row));
        let old = existing_rows(&self.chats, chats.keys());
        self.chats.extend(chats.iter().map(|(id, change)| (*id, change.row.clone())));
        let mut chat_writes = merge::merge_chats(chats, &old, Some(&mut prices));
        chat_writes.usage.merge(repriced_usage);
        self.chats.extend(old);
        self.chats.extend(chat_writes.update.into_iter().map(|row| (row.chat_id, row)));
        for id in chat_writes.delete_messages {
            self.messages.remove(&id);
        }
        self.messages.extend(chat_writes.insert_messages.into_iter().map(|row| (row.message_id, row)));
        AggregateChanges::new(conversations, chat_writes.conversation_totals, chat_writes.usage)
    }

    /// The prices, with all published lists.
    fn prices(&self) -> Prices {
        let mut prices = Prices::default();
        for row in self.admin.price_lists.values() {
            // A list that cannot be read is never in force.
            let _ = prices.add_list(&row.sha256, &row.list);
        }
        let lists = self.admin.price_lists.values().map(PriceList::published).collect();
        prices.set_history(PriceHistory::new(lists, self.admin.repricings.values().map(Repricing::span).collect()));
        prices
    }

    /// Applies the changes of conversations and usage from one or several batches.
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
        for (key, change) in usage.operations() {
            *self.operation_slots.entry(key.clone()).or_default() += *change;
        }
        self.operation_slots.retain(|_, counts| !counts.is_zero());
        for (key, change) in usage.keys() {
            *self.key_slots.entry(key.clone()).or_default() += *change;
        }
        self.key_slots.retain(|_, counts| !counts.is_zero());
    }
}

/// The existing rows among the given keys.
fn existing_rows<'a, K: Ord + Copy + 'a, V: Clone>(
    rows: &BTreeMap<K, V>,
    keys: impl Iterator<Item = &'a K>,
) -> BTreeMap<K, V> {
    keys.filter_map(|key| Some((*key, rows.get(key)?.clone()))).collect()
}

#[cfg(test)]
mod tests;
