//! A batch's way through tables that nobody else writes: a shadow's.
//!
//! The rows are those of [`apply`](fn@super::apply), for the same projection says them; what differs is what PostgreSQL does.
//! With nobody to race, the rows that are there are looked up, and all others go in by COPY. Conversations and usage, which
//! batch after batch changes again, are the caller's to write: once for many batches, if it likes.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;

use super::{chats, conversations, messages, usage_slots, usage_stats};
use crate::projection::Changes;
use crate::projection::merge::{self, Sums};

/// Writes chats and messages, and says what is left to write.
pub async fn write_but_sums(tx: &mut PgConnection, changes: Changes) -> Result<Sums, sqlx::Error> {
    let Changes { chats, conversations, opened: _ } = changes;
    let ids: Vec<_> = chats.keys().map(|id| id.0).collect();
    let old = if ids.is_empty() { <_>::default() } else { chats::some(tx, &ids).await? };
    let new: Vec<_> = chats.iter().filter(|(id, _)| !old.contains_key(id)).map(|(_, change)| &change.row).collect();
    chats::copy(tx, &new).await?;
    let writes = merge::chats(chats, &old);
    if !writes.update.is_empty() {
        chats::update(tx, &writes.update.iter().collect::<Vec<_>>()).await?;
    }
    if !writes.delete_messages.is_empty() {
        let ids: Vec<_> = writes.delete_messages.iter().map(|id| id.0).collect();
        messages::delete(tx, &ids).await?;
    }
    messages::copy(tx, &writes.insert_messages.iter().collect::<Vec<_>>()).await?;
    Ok(Sums::new(conversations, writes.tallies, writes.usage))
}

/// Writes what was left.
pub async fn write_sums(tx: &mut PgConnection, sums: Sums) -> Result<(), sqlx::Error> {
    let Sums { conversations, mut usage } = sums;
    let ids: Vec<_> = conversations.keys().map(|id| id.0).collect();
    let old = if ids.is_empty() { <_>::default() } else { conversations::some(tx, &ids).await? };
    let new = conversations.iter().filter(|(id, _)| !old.contains_key(id));
    let new: Vec<_> = new.filter_map(|(_, change)| change.row()).collect();
    conversations::copy(tx, &new.iter().collect::<Vec<_>>()).await?;
    let settled = merge::conversations(conversations, &BTreeSet::new(), &old, &mut usage);
    if !settled.update.is_empty() {
        conversations::update(tx, &settled.update.iter().collect::<Vec<_>>()).await?;
    }
    usage_stats::add(tx, &usage).await?;
    usage_slots::add(tx, &usage).await
}
