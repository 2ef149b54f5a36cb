//! Joins a batch's changes with the rows that are there, and says what to write.
//!
//! The order is the one in which the store locks: chats first, then conversations. Both work alike: a row that is not there
//! is inserted as the batch has it; one that is there is joined. Sums (`usage_stats`, and the counts in `conversations`)
//! change by what the new row contributes minus what the old one did, so a repeated event contributes nothing, and a true
//! ending that comes after `orphaned` takes its place.

use std::collections::{BTreeMap, BTreeSet};

use shared::id::{ChatId, ConversationId, MessageId};

use super::chat::Chat;
use super::chat_change::ChatChange;
use super::conversation::Conversation;
use super::message::{Message, Position};
use super::usage_slots::NO_MODEL;
use super::usage_stats::{ConversationTotals, UsageChanges, UsageTotals};

/// What a batch's chats come to.
#[derive(Debug, Default)]
pub struct ChatWrites {
    /// Rows that were there, and change.
    pub update: Vec<Chat>,
    /// Messages that another takes the place of, or none.
    pub delete_messages: Vec<MessageId>,
    /// Messages that are not there.
    pub insert_messages: Vec<Message>,
    /// What the users' days and quarters of an hour gain and lose.
    pub usage: UsageChanges,
    /// What conversations gain and lose.
    pub conversation_totals: BTreeMap<ConversationId, ConversationTotals>,
    /// How many events changed a chat.
    pub applied: usize,
}

/// What batches say of conversations and usage, once their chats are settled. It adds up: what several batches say can be
/// settled at once.
#[derive(Debug, Default)]
pub struct AggregateChanges {
    /// The conversations that are touched.
    pub conversations: BTreeMap<ConversationId, ConversationDelta>,
    /// What the users' days and quarters of an hour gain and lose.
    pub usage: UsageChanges,
}

/// What a batch's conversations come to.
#[derive(Debug, Default)]
pub struct ConversationWrites {
    /// Rows that were there, and change.
    pub update: Vec<Conversation>,
    /// How many `ConversationCreated` changed a conversation.
    pub applied: usize,
}

/// A conversation that a batch touches.
#[derive(Debug, Default)]
pub struct ConversationDelta {
    /// What the batch's events say of it; none where a chat only leaves it.
    pub attributes: Option<Conversation>,
    /// What its sums gain and lose.
    pub totals: ConversationTotals,
}

/// Settles the chats. `old` has the rows that were there; the others have been inserted as they are in `changes`.
pub fn merge_chats(changes: BTreeMap<ChatId, ChatChange>, old: &BTreeMap<ChatId, Chat>) -> ChatWrites {
    let mut writes = ChatWrites::default();
    for (chat_id, change) in changes {
        match old.get(&chat_id) {
            None => writes.add_inserted(change),
            Some(old) => writes.add_joined(old, change),
        }
    }
    writes.conversation_totals.retain(|_, totals| !totals.is_zero());
    writes
}

/// Settles the conversations. `old` has the rows that were there; the others have been inserted as [`ConversationDelta::row`].
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
                    usage.add(&row.user_id, row.created_at, NO_MODEL, UsageTotals::CONVERSATION);
                }
                row.is_some()
            }
            Some(old) => {
                let new = change.join(old);
                let changed = new != *old;
                if changed {
                    usage.subtract(&old.user_id, old.created_at, NO_MODEL, UsageTotals::CONVERSATION);
                    usage.add(&new.user_id, new.created_at, NO_MODEL, UsageTotals::CONVERSATION);
                    writes.update.push(new);
                }
                changed
            }
        };
        writes.applied += usize::from(changed && created_conversations.contains(&id));
    }
    writes
}

// === impl ChatWrites ===

impl ChatWrites {
    fn add_inserted(&mut self, change: ChatChange) {
        let row = change.row;
        self.applied += usize::from(row.request.is_some()) + usize::from(row.ending.is_some());
        self.usage.add(&row.user_id, row.started_at, &row.model, row.usage_totals());
        *self.conversation_totals.entry(row.conversation_id).or_default() += row.conversation_totals();
        self.insert_messages.extend(change.user_message);
        self.insert_messages.extend(change.assistant_message);
    }

    fn add_joined(&mut self, old: &Chat, change: ChatChange) {
        let mut new = old.clone();
        let replaced = new.join(change.row);
        if new == *old {
            return;
        }
        self.applied += usize::from(replaced.request) + usize::from(replaced.ending);
        self.usage.subtract(&old.user_id, old.started_at, &old.model, old.usage_totals());
        self.usage.add(&new.user_id, new.started_at, &new.model, new.usage_totals());
        *self.conversation_totals.entry(old.conversation_id).or_default() -= old.conversation_totals();
        *self.conversation_totals.entry(new.conversation_id).or_default() += new.conversation_totals();
        if replaced.request {
            if old.request.as_ref().is_some_and(|request| request.has_message) {
                self.delete_messages.push(Position::User.message_of(old.chat_id));
            }
            self.insert_messages.extend(change.user_message);
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

// === impl Sums ===

impl AggregateChanges {
    /// Of one batch: what it says of conversations, and what its chats add to them and to usage.
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

    /// Takes in those of another batch.
    pub fn add(&mut self, other: Self) {
        for (id, change) in other.conversations {
            self.conversations.entry(id).or_default().add(change);
        }
        self.usage.merge(other.usage);
    }

    /// About how many rows they are.
    pub fn len(&self) -> usize {
        self.conversations.len() + self.usage.len()
    }

    /// Whether they say nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl ConversationChange ===

impl ConversationDelta {
    /// The row to insert where there is none. A conversation that only loses something is there for certain.
    pub fn row(&self) -> Option<Conversation> {
        let attributes = self.attributes.clone().filter(|_| !self.totals.has_negative())?;
        Some(Conversation { totals: self.totals, ..attributes })
    }

    /// Takes in what another batch says of the same conversation.
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
