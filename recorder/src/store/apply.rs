//! The transaction that writes a batch's changes to all tables.

use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::audit_outbox::Act;
use super::pricing::{self, RepricingPass};
use super::{
    admin_rows, audit_outbox, chats, conversations, key_slots, messages, operation_slots, quarantine, usage_slots,
    usage_stats,
};
use crate::projection::merge::{self, AggregateChanges};
use crate::projection::message::Position;
use crate::projection::pricing::Prices;
use crate::projection::{Changes, project};
use shared::event::Event;

/// The size from which the text of a message is written by COPY, in bytes.
const LARGE_TEXT_BYTES: usize = 1 << 20;

/// The effect of a batch, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppliedCounts {
    /// The number of events that changed a row.
    pub events: usize,
    /// The number of new messages of requests saved: messages of users and tool results.
    pub user_messages: usize,
    /// The number of assistant messages saved.
    pub assistant_messages: usize,
}

/// Writes the changes of a batch in one transaction, and removes the given entries from quarantine: events of the batch
/// that were put there when their bodies were missing. An error leaves the tables unchanged.
///
/// If the changes [have prices](crate::projection::admin_rows::AdminRows::has_prices), the caller has to price other chats anew before it
/// acknowledges the batch: see [`RepricingPass`](super::pricing::RepricingPass).
pub async fn apply(
    pool: &PgPool,
    prices: &mut Prices,
    changes: Changes,
    recorded: &[Uuid],
) -> Result<AppliedCounts, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let applied = apply_in_transaction(&mut tx, prices, changes).await?;
    if !recorded.is_empty() {
        quarantine::delete_recorded(&mut tx, recorded).await?;
    }
    tx.commit().await?;
    Ok(applied)
}

/// Joins changes with the existing rows, inside the caller's transaction.
async fn apply_in_transaction(
    tx: &mut PgConnection,
    prices: &mut Prices,
    changes: Changes,
) -> Result<AppliedCounts, sqlx::Error> {
    let Changes { mut chats, conversations, created_conversations, mut admin } = changes;
    let has_prices = admin.has_prices();
    let changed_prices = if has_prices { pricing::change_live(tx, &mut admin, prices).await? } else { 0 };
    if !chats.is_empty() {
        if !has_prices {
            super::price_lists::lock_for_pricing(tx).await?;
            pricing::read_history(tx, prices).await?;
        }
        pricing::load_lists(tx, prices, chats.values().map(|change| change.row.started_at)).await?;
        chats.values_mut().for_each(|change| prices.price(&mut change.row));
    }
    let rows: Vec<_> = chats.values().map(|change| &change.row).collect();
    let inserted = if rows.is_empty() { <_>::default() } else { chats::insert(tx, &rows).await? };
    let existing: Vec<_> = chats.keys().filter(|id| !inserted.contains(id)).map(|id| id.0).collect();
    let old = if existing.is_empty() { <_>::default() } else { chats::lock(tx, &existing).await? };
    require_all_found(&existing, old.len())?;
    pricing::load_lists(tx, prices, old.values().map(|chat| chat.started_at)).await?;
    let chat_writes = merge::merge_chats(chats, &old, Some(prices));
    if !chat_writes.update.is_empty() {
        chats::update(tx, &chat_writes.update.iter().collect::<Vec<_>>()).await?;
    }

    let AggregateChanges { conversations, mut usage } =
        AggregateChanges::new(conversations, chat_writes.conversation_totals, chat_writes.usage);
    let rows: Vec<_> = conversations.values().filter_map(merge::ConversationDelta::row).collect();
    let rows: Vec<_> = rows.iter().collect();
    let inserted = if rows.is_empty() { <_>::default() } else { conversations::insert(tx, &rows).await? };
    let existing: Vec<_> = conversations.keys().filter(|id| !inserted.contains(id)).map(|id| id.0).collect();
    let old = if existing.is_empty() { <_>::default() } else { conversations::lock(tx, &existing).await? };
    require_all_found(&existing, old.len())?;
    let conversation_writes = merge::merge_conversations(conversations, &created_conversations, &old, &mut usage);
    if !conversation_writes.update.is_empty() {
        conversations::update(tx, &conversation_writes.update.iter().collect::<Vec<_>>()).await?;
    }

    if !chat_writes.delete_messages.is_empty() {
        let ids: Vec<_> = chat_writes.delete_messages.iter().map(|id| id.0).collect();
        messages::delete(tx, &ids).await?;
    }
    if !chat_writes.insert_messages.is_empty() {
        let rows: Vec<_> = chat_writes.insert_messages.iter().collect();
        // COPY sends a row in parts. As a parameter of a statement, a large text is in memory three times.
        if rows.iter().any(|message| message.content.len() >= LARGE_TEXT_BYTES) {
            messages::copy_in(tx, &rows).await?;
        } else {
            messages::insert(tx, &rows).await?;
        }
    }
    usage_stats::add(tx, &usage).await?;
    usage_slots::add(tx, &usage).await?;
    operation_slots::add(tx, &usage).await?;
    key_slots::add(tx, &usage).await?;
    let changed_admin_rows = changed_prices + admin_rows::join_all_but_prices(tx, admin).await?;

    let assistant_messages =
        chat_writes.insert_messages.iter().filter(|message| message.position == Position::Assistant).count();
    Ok(AppliedCounts {
        events: chat_writes.applied + conversation_writes.applied + changed_admin_rows,
        user_messages: chat_writes.insert_messages.len() - assistant_messages,
        assistant_messages,
    })
}

/// Projects a quarantined event and removes the event from quarantine, in one transaction. After an event about prices, other chats
/// are priced anew.
///
/// Returns false when the event is no longer in quarantine: of two callers, only one projects the event, and notes `act`.
pub async fn project_quarantined(
    pool: &PgPool,
    quarantine_id: Uuid,
    event: &Event,
    act: &Act,
) -> Result<bool, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let was_there = quarantine::delete(&mut tx, quarantine_id).await?;
    if was_there {
        let (mut prices, changes) = (Prices::default(), project(std::slice::from_ref(event)));
        let has_prices = changes.admin.has_prices();
        apply_in_transaction(&mut tx, &mut prices, changes).await?;
        audit_outbox::note(&mut tx, act, 1).await?;
        tx.commit().await?;
        while has_prices && let Some(mut pass) = RepricingPass::begin(pool).await? {
            while pass.step(pool, &mut prices).await? {}
        }
    }
    Ok(was_there)
}

/// Checks that each row that prevented an insert was found and locked. A row can only be missing when another program
/// deleted rows in between.
fn require_all_found(existing: &[Uuid], found: usize) -> Result<(), sqlx::Error> {
    if existing.len() == found { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}
