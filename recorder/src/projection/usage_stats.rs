//! The contributions of chats and conversations to sums. Sums change only by differences of contributions.

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};

use shared::event::Operation;
use shared::id::{KeyId, ProjectId, UserId};
use time::{Date, OffsetDateTime};

use super::key_slots::KeySlotKey;
use super::operation_slots::OperationSlotKey;
use super::usage_slots::SlotKey;

/// The sums of one user's UTC day: a row of `usage_stats`, or a change of such a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns, which have comments")]
pub struct UsageTotals {
    pub api_calls: i64,
    pub successful_calls: i64,
    pub failed_calls: i64,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub total_tokens: i64,
    pub estimated_prompt_tokens: i64,
    pub estimated_completion_tokens: i64,
    pub estimated_total_tokens: i64,
    pub messages_created: i64,
    pub conversations_created: i64,
    pub cost_nanodollars: i64,
    pub estimated_cost_nanodollars: i64,
    pub provider_cost_nanodollars: i64,
    pub unpriced_calls: i64,
}

/// The sums of one conversation, or a change of the sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConversationTotals {
    /// The number of messages.
    pub messages: i64,
    /// Tokens reported by providers.
    pub total_tokens: i64,
    /// Tokens estimated by the gateway.
    pub estimated_total_tokens: i64,
}

/// The place in the sums to which something contributes.
#[derive(Clone, Copy, Debug)]
pub struct UsageKey<'a> {
    /// The user whose usage is counted.
    pub user: &'a UserId,
    /// A time in the day and the quarter of an hour for which something counts.
    pub at: OffsetDateTime,
    /// The model that the client asked for.
    pub model: &'a str,
    /// The kind of the call.
    pub operation: Operation,
    /// The API key of the caller; none for a session token.
    pub key: Option<KeyId>,
    /// The project of the API key.
    pub project: Option<ProjectId>,
}

/// Changes of `usage_stats`, `usage_slots`, `operation_slots` and `key_slots`, by row. The first two tables receive the same counts;
/// the rows of `usage_slots` are finer. `operation_slots` receives the part of calls that are no chats, and `key_slots` the part of
/// calls with an API key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageChanges {
    days: BTreeMap<(UserId, Date), UsageTotals>,
    slots: BTreeMap<SlotKey, UsageTotals>,
    operations: BTreeMap<OperationSlotKey, UsageTotals>,
    keys: BTreeMap<KeySlotKey, UsageTotals>,
}

// === impl UsageTotals ===

impl UsageTotals {
    /// The contribution of a conversation to the day on which the conversation was opened.
    pub const CONVERSATION: Self = Self { conversations_created: 1, ..Self::ZERO };

    const ZERO: Self = Self {
        api_calls: 0,
        successful_calls: 0,
        failed_calls: 0,
        prompt_tokens: 0,
        completion_tokens: 0,
        total_tokens: 0,
        estimated_prompt_tokens: 0,
        estimated_completion_tokens: 0,
        estimated_total_tokens: 0,
        messages_created: 0,
        conversations_created: 0,
        cost_nanodollars: 0,
        estimated_cost_nanodollars: 0,
        provider_cost_nanodollars: 0,
        unpriced_calls: 0,
    };

    /// Returns true when all counts are zero.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// Returns true when any count is negative. Adding such a change can leave a row with only zeros.
    pub fn has_negative(&self) -> bool {
        self.columns().iter().any(|count| *count < 0)
    }

    fn columns(&self) -> [i64; 15] {
        [
            self.api_calls,
            self.successful_calls,
            self.failed_calls,
            self.prompt_tokens,
            self.completion_tokens,
            self.total_tokens,
            self.estimated_prompt_tokens,
            self.estimated_completion_tokens,
            self.estimated_total_tokens,
            self.messages_created,
            self.conversations_created,
            self.cost_nanodollars,
            self.estimated_cost_nanodollars,
            self.provider_cost_nanodollars,
            self.unpriced_calls,
        ]
    }

    fn combine(&mut self, other: Self, operation: fn(i64, i64) -> i64) {
        self.api_calls = operation(self.api_calls, other.api_calls);
        self.successful_calls = operation(self.successful_calls, other.successful_calls);
        self.failed_calls = operation(self.failed_calls, other.failed_calls);
        self.prompt_tokens = operation(self.prompt_tokens, other.prompt_tokens);
        self.completion_tokens = operation(self.completion_tokens, other.completion_tokens);
        self.total_tokens = operation(self.total_tokens, other.total_tokens);
        self.estimated_prompt_tokens = operation(self.estimated_prompt_tokens, other.estimated_prompt_tokens);
        self.estimated_completion_tokens =
            operation(self.estimated_completion_tokens, other.estimated_completion_tokens);
        self.estimated_total_tokens = operation(self.estimated_total_tokens, other.estimated_total_tokens);
        self.messages_created = operation(self.messages_created, other.messages_created);
        self.conversations_created = operation(self.conversations_created, other.conversations_created);
        self.cost_nanodollars = operation(self.cost_nanodollars, other.cost_nanodollars);
        self.estimated_cost_nanodollars = operation(self.estimated_cost_nanodollars, other.estimated_cost_nanodollars);
        self.provider_cost_nanodollars = operation(self.provider_cost_nanodollars, other.provider_cost_nanodollars);
        self.unpriced_calls = operation(self.unpriced_calls, other.unpriced_calls);
    }
}

impl AddAssign for UsageTotals {
    fn add_assign(&mut self, other: Self) {
        self.combine(other, |a, b| a + b);
    }
}

impl SubAssign for UsageTotals {
    fn sub_assign(&mut self, other: Self) {
        self.combine(other, |a, b| a - b);
    }
}

// === impl ConversationTotals ===

impl ConversationTotals {
    /// Returns true when all sums are zero.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true when any sum is negative.
    pub fn has_negative(&self) -> bool {
        self.messages < 0 || self.total_tokens < 0 || self.estimated_total_tokens < 0
    }
}

impl AddAssign for ConversationTotals {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.total_tokens += other.total_tokens;
        self.estimated_total_tokens += other.estimated_total_tokens;
    }
}

impl SubAssign for ConversationTotals {
    fn sub_assign(&mut self, other: Self) {
        self.messages -= other.messages;
        self.total_tokens -= other.total_tokens;
        self.estimated_total_tokens -= other.estimated_total_tokens;
    }
}

// === impl UsageChanges ===

impl UsageChanges {
    /// Adds counts to the sums of the given place.
    pub fn add(&mut self, key: &UsageKey<'_>, counts: UsageTotals) {
        let UsageKey { user, at, model, operation, key, project } = *key;
        let slot = SlotKey::new(user, at, model);
        *self.days.entry((user.clone(), at.date())).or_default() += counts;
        if operation != Operation::Chat {
            *self.operations.entry(OperationSlotKey { slot: slot.clone(), operation }).or_default() += counts;
        }
        if let Some(key_id) = key {
            *self.keys.entry(KeySlotKey { slot: slot.clone(), key_id, project_id: project }).or_default() += counts;
        }
        *self.slots.entry(slot).or_default() += counts;
    }

    /// Subtracts counts from the sums of the given place.
    pub fn subtract(&mut self, key: &UsageKey<'_>, counts: UsageTotals) {
        let mut negative = UsageTotals::ZERO;
        negative -= counts;
        self.add(key, negative);
    }

    /// Adds all changes of `other`.
    pub fn merge(&mut self, other: Self) {
        for (key, counts) in other.days {
            *self.days.entry(key).or_default() += counts;
        }
        for (key, counts) in other.slots {
            *self.slots.entry(key).or_default() += counts;
        }
        for (key, counts) in other.operations {
            *self.operations.entry(key).or_default() += counts;
        }
        for (key, counts) in other.keys {
            *self.keys.entry(key).or_default() += counts;
        }
    }

    /// The number of rows with changes.
    pub fn len(&self) -> usize {
        self.days.len() + self.slots.len() + self.operations.len() + self.keys.len()
    }

    /// Returns true when no row has changes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The changes of days other than zero, in key order.
    pub fn days(&self) -> impl Iterator<Item = (&(UserId, Date), &UsageTotals)> {
        self.days.iter().filter(|(_, counts)| !counts.is_zero())
    }

    /// The changes of quarters of an hour other than zero, in key order.
    pub fn slots(&self) -> impl Iterator<Item = (&SlotKey, &UsageTotals)> {
        self.slots.iter().filter(|(_, counts)| !counts.is_zero())
    }

    /// The changes of the quarters of an hour of calls that are no chats, other than zero, in key order.
    pub fn operations(&self) -> impl Iterator<Item = (&OperationSlotKey, &UsageTotals)> {
        self.operations.iter().filter(|(_, counts)| !counts.is_zero())
    }

    /// The changes of the quarters of an hour of calls with an API key, other than zero, in key order.
    pub fn keys(&self) -> impl Iterator<Item = (&KeySlotKey, &UsageTotals)> {
        self.keys.iter().filter(|(_, counts)| !counts.is_zero())
    }
}
