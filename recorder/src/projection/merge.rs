//! The merge of a batch's changes with the existing rows, and the writes that follow.
//!
//! The order is the lock order of the store: chats first, then conversations. Both are handled alike: a missing row is
//! inserted as in the batch, an existing row is joined. Sums (`usage_stats`, `usage_slots`, `operation_slots`, `key_slots` and the totals
//! in `conversations`) change by the contribution of the new row minus the contribution of the old row. Therefore a
//! repeated event adds nothing, and a true ending that arrives after `orphaned` replaces the orphaned ending.

use std::collections::{BTreeMap, BTreeSet};

use shared::event::Operation;
use shared::id::{ChatId, ConversationId, MessageId};

use super::chat::Chat;
use super::chat_change::ChatChange;
use super::conversation::Conversation;
use super::message::{Message, Position};
use super::pricing::Prices;
use super::usage_slots::NO_MODEL;
use super::usage_stats::{ConversationTotals, UsageChanges, UsageKey, UsageTotals};

/// The writes that follow from a batch's chats.
#[derive(Debug, Default)]
pub struct ChatWrites {
    /// Existing rows with changes.
    pub update: Vec<Chat>,
    /// Messages of replaced halves. A replacement, if there is one, is in `insert_messages`.
    pub delete_messages: Vec<MessageId>,
    /// Messages without a row yet.
    pub insert_messages: Vec<Message>,
    /// Changes of the users' totals by day and quarter of an hour.
    pub usage: UsageChanges,
    /// Changes of the conversations' totals.
    pub conversation_totals: BTreeMap<ConversationId, ConversationTotals>,
    /// The number of events that changed a chat.
    pub applied: usize,
}

/// The changes of conversations and usage after a batch's chats have been merged. The changes of several batches can be
/// added and written at once.
#[derive(Debug, Default)]
pub struct AggregateChanges {
    /// The conversations with changes.
    pub conversations: BTreeMap<ConversationId, ConversationDelta>,
    /// Changes of the users' totals by day and quarter of an hour.
    pub usage: UsageChanges,
}

/// The writes that follow from a batch's conversations.
#[derive(Debug, Default)]
pub struct ConversationWrites {
    /// Existing rows with changes.
    pub update: Vec<Conversation>,
    /// The number of `ConversationCreated` events that changed a conversation.
    pub applied: usize,
}

/// The change of one conversation: joined facts and added totals.
#[derive(Debug, Default)]
pub struct ConversationDelta {
    /// The facts from the batch's events; none when a chat only moves out of this conversation.
    pub attributes: Option<Conversation>,
    /// Changes of the totals; negative where a contribution is removed.
    pub totals: ConversationTotals,
}

/// Merges the chats of a batch. `old` has the rows that existed before; all other rows have been inserted as in
/// `changes`. Rows that change are priced, unless `prices` is none: then endings keep the costs that they bring.
pub fn merge_chats(
    changes: BTreeMap<ChatId, ChatChange>,
    old: &BTreeMap<ChatId, Chat>,
    mut prices: Option<&mut Prices>,
) -> ChatWrites {
    let mut writes = ChatWrites::default();
    for (chat_id, change) in changes {
        match old.get(&chat_id) {
            None => writes.add_inserted(change),
            Some(old) => writes.add_joined(old, change, prices.as_deref_mut()),
        }
    }
    writes.conversation_totals.retain(|_, totals| !totals.is_zero());
    writes
}

/// Prices rows again. Returns the rows with another cost, and the changes of the users' totals.
pub fn reprice(rows: impl IntoIterator<Item = Chat>, prices: &mut Prices) -> (Vec<Chat>, UsageChanges) {
    let (mut repriced, mut usage) = (Vec::new(), UsageChanges::default());
    for old in rows {
        let mut new = old.clone();
        prices.price(&mut new);
        if new != old {
            usage.subtract(&chat_key(&old), old.usage_totals());
            usage.add(&chat_key(&new), new.usage_totals());
            repriced.push(new);
        }
    }
    (repriced, usage)
}

/// Merges the conversations of a batch, and adds the conversations' own contribution to `usage`.
///
/// `old` has the rows that existed before; all other rows have been inserted as [`ConversationDelta::row`].
pub fn merge_conversations(
    deltas: BTreeMap<ConversationId, ConversationDelta>,
    created_conversations: &BTreeSet<ConversationId>,
    old: &BTreeMap<ConversationId, Conversation>,
    usage: &mut UsageChanges,
) -> ConversationWrites {
    let mut writes = ConversationWrites::default();
    for (id, change) in deltas {
        let changed = match old.get(&id) {
            None => {
                let row = change.row();
                if let Some(row) = &row {
                    usage.add(&conversation_key(row), UsageTotals::CONVERSATION);
                }
                row.is_some()
            }
            Some(old) => {
                let new = change.join(old);
                let changed = new != *old;
                if changed {
                    usage.subtract(&conversation_key(old), UsageTotals::CONVERSATION);
                    usage.add(&conversation_key(&new), UsageTotals::CONVERSATION);
                    writes.update.push(new);
                }
                changed
            }
        };
        writes.applied += usize::from(changed && created_conversations.contains(&id));
    }
    writes
}

/// The place in the usage sums to which a chat contributes.
fn chat_key(chat: &Chat) -> UsageKey<'_> {
    UsageKey {
        user: &chat.user_id,
        at: chat.started_at,
        model: &chat.model,
        operation: chat.operation,
        key: chat.key_id,
        project: chat.project_id,
    }
}

/// The place in the usage sums to which the opening of a conversation contributes.
fn conversation_key(row: &Conversation) -> UsageKey<'_> {
    UsageKey {
        user: &row.user_id,
        at: row.created_at,
        model: NO_MODEL,
        operation: Operation::Chat,
        key: None,
        project: None,
    }
}

// === impl ChatWrites ===

impl ChatWrites {
    fn add_inserted(&mut self, change: ChatChange) {
        let row = change.row;
        self.applied += [row.request.is_some(), row.deferral.is_some(), row.ending.is_some()]
            .map(usize::from)
            .iter()
            .sum::<usize>();
        self.usage.add(&chat_key(&row), row.usage_totals());
        if let Some(id) = row.conversation_id {
            *self.conversation_totals.entry(id).or_default() += row.conversation_totals();
        }
        self.insert_messages.extend(change.new_messages);
        self.insert_messages.extend(change.assistant_message);
    }

    fn add_joined(&mut self, old: &Chat, change: ChatChange, prices: Option<&mut Prices>) {
        let mut new = old.clone();
        let replaced = new.join(change.row);
        if new == *old {
            return;
        }
        let is_same_call = new.started_at == old.started_at && new.model == old.model;
        if let Some(prices) = prices
            && (replaced.ending || !is_same_call)
        {
            prices.price(&mut new);
        }
        self.applied += [replaced.request, replaced.deferral, replaced.ending].map(usize::from).iter().sum::<usize>();
        self.usage.subtract(&chat_key(old), old.usage_totals());
        self.usage.add(&chat_key(&new), new.usage_totals());
        if let Some(id) = old.conversation_id {
            *self.conversation_totals.entry(id).or_default() -= old.conversation_totals();
        }
        if let Some(id) = new.conversation_id {
            *self.conversation_totals.entry(id).or_default() += new.conversation_totals();
        }
        if replaced.request {
            let positions = Position::of_new(old.request.as_ref().map_or(0, |request| request.new_messages));
            self.delete_messages.extend(positions.map(|position| position.message_of(old.chat_id)));
            self.insert_messages.extend(change.new_messages);
        }
        if replaced.ending {
            if old.ending.as_ref().is_some_and(|ending| ending.has_message) {
                self.delete_messages.push(Position::Assistant.message_of(old.chat_id));
            }
            self.insert_messages.extend(change.assistant_message);
        }
        self.update.push(new);
    }
}

// === impl AggregateChanges ===

impl AggregateChanges {
    /// Makes the changes of one batch from the facts about conversations and the contributions of the batch's chats.
    pub fn new(
        attributes: BTreeMap<ConversationId, Conversation>,
        mut conversation_totals: BTreeMap<ConversationId, ConversationTotals>,
        usage: UsageChanges,
    ) -> Self {
        let mut conversations: BTreeMap<_, _> = attributes
            .into_iter()
            .map(|(id, attributes)| {
                let totals = conversation_totals.remove(&id).unwrap_or_default();
                (id, ConversationDelta { attributes: Some(attributes), totals })
            })
            .collect();
        conversations.extend(
            conversation_totals.into_iter().map(|(id, totals)| (id, ConversationDelta { attributes: None, totals })),
        );
        Self { conversations, usage }
    }

    /// Adds the changes of another batch.
    pub fn add(&mut self, other: Self) {
        for (id, change) in other.conversations {
            self.conversations.entry(id).or_default().add(change);
        }
        self.usage.merge(other.usage);
    }

    /// The approximate number of rows to write. A caller uses the number to bound memory.
    pub fn len(&self) -> usize {
        self.conversations.len() + self.usage.len()
    }

    /// Returns true when there is no row to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl ConversationDelta ===

impl ConversationDelta {
    /// The row to insert when the conversation has no row yet. None when a total is negative: a conversation that loses
    /// a contribution always has a row already.
    pub fn row(&self) -> Option<Conversation> {
        let attributes = self.attributes.clone().filter(|_| !self.totals.has_negative())?;
        Some(Conversation { totals: self.totals, ..attributes })
    }

    /// Adds the change of the same conversation from another batch.
    fn add(&mut self, other: Self) {
        self.totals += other.totals;
        match (&mut self.attributes, other.attributes) {
            (Some(mine), Some(theirs)) => mine.join(theirs),
            (mine, theirs) => *mine = mine.take().or(theirs),
        }
    }

    fn join(self, old: &Conversation) -> Conversation {
        let mut new = old.clone();
        if let Some(attributes) = self.attributes {
            new.join(attributes);
        }
        new.totals += self.totals;
        new
    }
}
