//! The writes of a batch to the tables of a shadow schema, which has a single writer.
//!
//! The resulting rows are the same as with [`apply`](fn@super::apply), because both use the same projection; only the
//! statements differ. With a single writer, existing rows are looked up without a lock, and all other rows are inserted
//! by COPY. Conversations and usage change again with almost every batch, so the caller decides when to write these:
//! with each batch, or once for many batches.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;

use super::{
    admin_rows, chats, conversations, key_slots, messages, operation_slots, pricing, usage_slots, usage_stats,
};
use crate::projection::Changes;
use crate::projection::merge::{self, AggregateChanges};
use crate::projection::pricing::Prices;
use crate::projection::usage_stats::UsageChanges;

/// Writes prices, chats and messages, and returns the changes that are left for [`write_aggregates`].
pub async fn write_chats_and_messages(
    tx: &mut PgConnection,
    prices: &mut Prices,
    mut changes: Changes,
) -> Result<AggregateChanges, sqlx::Error> {
    let mut usage = UsageChanges::default();
    if changes.admin.has_prices() {
        let spans = pricing::join_changes(tx, &mut changes.admin, prices).await?;
        usage = pricing::reprice_alone(tx, &spans, prices).await?;
    } else if !changes.chats.is_empty() {
        pricing::read_history(tx, prices).await?;
    }
    pricing::load_lists(tx, prices, changes.chats.values().map(|change| change.row.started_at)).await?;
    changes.chats.values_mut().for_each(|change| prices.price(&mut change.row));
    let mut aggregates = write(tx, Some(prices), changes).await?;
    aggregates.usage.merge(usage);
    Ok(aggregates)
}

/// Writes chats and messages that keep the costs that they bring, and returns the changes that are left for [`write_aggregates`].
pub async fn write_priced(tx: &mut PgConnection, changes: Changes) -> Result<AggregateChanges, sqlx::Error> {
    write(tx, None, changes).await
}

async fn write(
    tx: &mut PgConnection,
    mut prices: Option<&mut Prices>,
    changes: Changes,
) -> Result<AggregateChanges, sqlx::Error> {
    let Changes { chats, conversations, created_conversations: _, admin } = changes;
    let ids: Vec<_> = chats.keys().map(|id| id.0).collect();
    let old = if ids.is_empty() { <_>::default() } else { chats::by_ids(tx, &ids).await? };
    let new: Vec<_> = chats.iter().filter(|(id, _)| !old.contains_key(id)).map(|(_, change)| &change.row).collect();
    chats::copy_in(tx, &new).await?;
    if let Some(prices) = prices.as_deref_mut() {
        pricing::load_lists(tx, prices, old.values().map(|chat| chat.started_at)).await?;
    }
    let chat_writes = merge::merge_chats(chats, &old, prices);
    if !chat_writes.update.is_empty() {
        chats::update(tx, &chat_writes.update.iter().collect::<Vec<_>>()).await?;
    }
    if !chat_writes.delete_messages.is_empty() {
        let ids: Vec<_> = chat_writes.delete_messages.iter().map(|id| id.0).collect();
        messages::delete(tx, &ids).await?;
    }
    messages::copy_in(tx, &chat_writes.insert_messages.iter().collect::<Vec<_>>()).await?;
    admin_rows::join_all_but_prices(tx, admin).await?;
    Ok(AggregateChanges::new(conversations, chat_writes.conversation_totals, chat_writes.usage))
}

/// Writes the changes of conversations and usage from one or several batches.
pub async fn write_aggregates(tx: &mut PgConnection, aggregates: AggregateChanges) -> Result<(), sqlx::Error> {
    let AggregateChanges { conversations, mut usage } = aggregates;
    let ids: Vec<_> = conversations.keys().map(|id| id.0).collect();
    let old = if ids.is_empty() { <_>::default() } else { conversations::by_ids(tx, &ids).await? };
    let new = conversations.iter().filter(|(id, _)| !old.contains_key(id));
    let new: Vec<_> = new.filter_map(|(_, change)| change.row()).collect();
    conversations::copy_in(tx, &new.iter().collect::<Vec<_>>()).await?;
    let conversation_writes = merge::merge_conversations(conversations, &BTreeSet::new(), &old, &mut usage);
    if !conversation_writes.update.is_empty() {
        conversations::update(tx, &conversation_writes.update.iter().collect::<Vec<_>>()).await?;
    }
    usage_stats::add(tx, &usage).await?;
    usage_slots::add(tx, &usage).await?;
    operation_slots::add(tx, &usage).await?;
    key_slots::add(tx, &usage).await
}
