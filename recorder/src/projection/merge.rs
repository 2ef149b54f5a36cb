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
use super::usage_stats::{Counts, Tally, UsageChanges};

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
    pub tallies: BTreeMap<ConversationId, Tally>,
    /// How many events changed a chat.
    pub applied: usize,
}

/// What batches say of conversations and usage, once their chats are settled. It adds up: what several batches say can be
/// settled at once.
#[derive(Debug, Default)]
pub struct Sums {
    /// The conversations that are touched.
    pub conversations: BTreeMap<ConversationId, ConversationChange>,
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
pub struct ConversationChange {
    /// What the batch's events say of it; none where a chat only leaves it.
    pub facts: Option<Conversation>,
    /// What its sums gain and lose.
    pub tally: Tally,
}

/// Settles the chats. `old` has the rows that were there; the others have been inserted as they are in `changes`.
pub fn chats(changes: BTreeMap<ChatId, ChatChange>, old: &BTreeMap<ChatId, Chat>) -> ChatWrites {
    let mut writes = ChatWrites::default();
    for (chat_id, change) in changes {
        match old.get(&chat_id) {
            None => writes.inserted(change),
            Some(old) => writes.joined(old, change),
        }
    }
    writes.tallies.retain(|_, tally| !tally.is_zero());
    writes
}

/// Settles the conversations. `old` has the rows that were there; the others have been inserted as [`ConversationChange::row`].
pub fn conversations(
    touched: BTreeMap<ConversationId, ConversationChange>,
    opened: &BTreeSet<ConversationId>,
    old: &BTreeMap<ConversationId, Conversation>,
    usage: &mut UsageChanges,
) -> ConversationWrites {
    let mut writes = ConversationWrites::default();
    for (id, change) in touched {
        let changed = match old.get(&id) {
            None => {
                let row = change.row();
                if let Some(row) = &row {
                    usage.add(&row.user_id, row.created_at, NO_MODEL, Counts::CONVERSATION);
                }
                row.is_some()
            }
            Some(old) => {
                let new = change.join(old);
                let changed = new != *old;
                if changed {
                    usage.take_back(&old.user_id, old.created_at, NO_MODEL, Counts::CONVERSATION);
                    usage.add(&new.user_id, new.created_at, NO_MODEL, Counts::CONVERSATION);
                    writes.update.push(new);
                }
                changed
            }
        };
        writes.applied += usize::from(changed && opened.contains(&id));
    }
    writes
}

// === impl ChatWrites ===

impl ChatWrites {
    fn inserted(&mut self, change: ChatChange) {
        let row = change.row;
        self.applied += usize::from(row.request.is_some()) + usize::from(row.ending.is_some());
        self.usage.add(&row.user_id, row.started_at, &row.model, row.counts());
        *self.tallies.entry(row.conversation_id).or_default() += row.tally();
        self.insert_messages.extend(change.asked);
        self.insert_messages.extend(change.answered);
    }

    fn joined(&mut self, old: &Chat, change: ChatChange) {
        let mut new = old.clone();
        let replaced = new.join(change.row);
        if new == *old {
            return;
        }
        self.applied += usize::from(replaced.request) + usize::from(replaced.ending);
        self.usage.take_back(&old.user_id, old.started_at, &old.model, old.counts());
        self.usage.add(&new.user_id, new.started_at, &new.model, new.counts());
        *self.tallies.entry(old.conversation_id).or_default() -= old.tally();
        *self.tallies.entry(new.conversation_id).or_default() += new.tally();
        if replaced.request {
            if old.request.as_ref().is_some_and(|request| request.has_message) {
                self.delete_messages.push(Position::Asked.message_of(old.chat_id));
            }
            self.insert_messages.extend(change.asked);
        }
        if replaced.ending {
            if old.ending.as_ref().is_some_and(|ending| ending.has_message) {
                self.delete_messages.push(Position::Answered.message_of(old.chat_id));
            }
            self.insert_messages.extend(change.answered);
        }
        self.update.push(new);
    }
}

// === impl Sums ===

impl Sums {
    /// Of one batch: what it says of conversations, and what its chats add to them and to usage.
    pub fn new(
        facts: BTreeMap<ConversationId, Conversation>,
        mut tallies: BTreeMap<ConversationId, Tally>,
        usage: UsageChanges,
    ) -> Self {
        let mut conversations: BTreeMap<_, _> = facts
            .into_iter()
            .map(|(id, facts)| {
                let tally = tallies.remove(&id).unwrap_or_default();
                (id, ConversationChange { facts: Some(facts), tally })
            })
            .collect();
        conversations.extend(tallies.into_iter().map(|(id, tally)| (id, ConversationChange { facts: None, tally })));
        Self { conversations, usage }
    }

    /// Takes in those of another batch.
    pub fn add(&mut self, other: Self) {
        for (id, change) in other.conversations {
            self.conversations.entry(id).or_default().add(change);
        }
        self.usage.add_all(other.usage);
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

impl ConversationChange {
    /// The row to insert where there is none. A conversation that only loses something is there for certain.
    pub fn row(&self) -> Option<Conversation> {
        let facts = self.facts.clone().filter(|_| !self.tally.takes_away())?;
        Some(Conversation { tally: self.tally, ..facts })
    }

    /// Takes in what another batch says of the same conversation.
    fn add(&mut self, other: Self) {
        self.tally += other.tally;
        match (&mut self.facts, other.facts) {
            (Some(mine), Some(theirs)) => mine.join(theirs),
            (mine, theirs) => *mine = mine.take().or(theirs),
        }
    }

    fn join(self, old: &Conversation) -> Conversation {
        let mut new = old.clone();
        if let Some(facts) = self.facts {
            new.join(facts);
        }
        new.tally += self.tally;
        new
    }
}
