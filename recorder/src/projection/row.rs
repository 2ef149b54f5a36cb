//! The rule of every row: a row has a key, and is a join over events.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use shared::access::{KeyState, LimitState, ProjectState};
use shared::event::LimitScope;
use shared::id::{ChatId, ConversationId, KeyId, ProjectId};
use uuid::Uuid;

use super::audit_log::AuditEntry;
use super::chat::Chat;
use super::chat_change::ChatChange;
use super::conversation::Conversation;
use super::price_lists::PriceList;
use super::repricings::Repricing;

/// The facts about one thing. Joined in any order, any number of times, the same facts make the same row.
pub trait Row: Clone + PartialEq {
    /// The key of the row.
    type Key: Clone + Ord;

    /// Returns the key.
    fn key(&self) -> Self::Key;

    /// Joins the facts of another row with the same key.
    fn join(&mut self, other: Self);
}

/// Rows by key.
pub type Rows<R> = BTreeMap<<R as Row>::Key, R>;

/// Joins facts into the rows.
pub(super) fn join_into<R: Row>(rows: &mut Rows<R>, facts: impl IntoIterator<Item = R>) {
    for fact in facts {
        match rows.entry(fact.key()) {
            Entry::Vacant(entry) => drop(entry.insert(fact)),
            Entry::Occupied(mut entry) => entry.get_mut().join(fact),
        }
    }
}

/// Returns true if each row exists and has the facts already, so that joining the facts changes no row.
pub(super) fn has_all<R: Row>(rows: &Rows<R>, facts: impl IntoIterator<Item = R>) -> bool {
    facts.into_iter().all(|fact| {
        rows.get(&fact.key()).is_some_and(|row| {
            let mut joined = row.clone();
            joined.join(fact);
            joined == *row
        })
    })
}

/// Implements [`Row`] by the type's own `join` and the field that is the key.
macro_rules! rows {
    ($($row:ty, $key:ty, $field:ident $(. $inner:ident)?;)*) => {$(
        impl Row for $row {
            type Key = $key;

            fn key(&self) -> $key {
                <$key>::clone(&self.$field$(.$inner)?)
            }

            fn join(&mut self, other: Self) {
                Self::join(self, other);
            }
        }
    )*};
}

rows! {
    Chat, ChatId, chat_id;
    ChatChange, ChatId, row.chat_id;
    Conversation, ConversationId, conversation_id;
    KeyState, KeyId, key_id;
    LimitState, LimitScope, scope;
    ProjectState, ProjectId, project_id;
    PriceList, Uuid, change_id;
    Repricing, Uuid, change_id;
    AuditEntry, Uuid, audit_id;
}
