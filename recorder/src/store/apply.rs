//! A batch's way through all tables in one transaction.

use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::{chats, conversations, messages, quarantine, usage_slots, usage_stats};
use crate::projection::merge::{self, Sums};
use crate::projection::message::Position;
use crate::projection::{Changes, project};
use shared::event::Event;

/// What a batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Events that changed something.
    pub applied: usize,
    /// Messages saved, of the asking side.
    pub user_messages: usize,
    /// Messages saved, of the answering side.
    pub assistant_messages: usize,
}

/// Writes what a batch of events changes: all of it, or nothing.
pub async fn apply(pool: &PgPool, changes: Changes) -> Result<Applied, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let applied = join(&mut tx, changes).await?;
    tx.commit().await?;
    Ok(applied)
}

/// Joins changes with the rows that are there, inside a transaction.
async fn join(tx: &mut PgConnection, changes: Changes) -> Result<Applied, sqlx::Error> {
    let Changes { chats, conversations, opened } = changes;
    let rows: Vec<_> = chats.values().map(|change| &change.row).collect();
    let inserted = if rows.is_empty() { <_>::default() } else { chats::insert(tx, &rows).await? };
    let there: Vec<_> = chats.keys().filter(|id| !inserted.contains(id)).map(|id| id.0).collect();
    let old = if there.is_empty() { <_>::default() } else { chats::lock(tx, &there).await? };
    expect_all(&there, old.len())?;
    let writes = merge::chats(chats, &old);
    if !writes.update.is_empty() {
        chats::update(tx, &writes.update.iter().collect::<Vec<_>>()).await?;
    }

    let Sums { conversations, mut usage } = Sums::new(conversations, writes.tallies, writes.usage);
    let rows: Vec<_> = conversations.values().filter_map(merge::ConversationChange::row).collect();
    let rows: Vec<_> = rows.iter().collect();
    let inserted = if rows.is_empty() { <_>::default() } else { conversations::insert(tx, &rows).await? };
    let there: Vec<_> = conversations.keys().filter(|id| !inserted.contains(id)).map(|id| id.0).collect();
    let old = if there.is_empty() { <_>::default() } else { conversations::lock(tx, &there).await? };
    expect_all(&there, old.len())?;
    let settled = merge::conversations(conversations, &opened, &old, &mut usage);
    if !settled.update.is_empty() {
        conversations::update(tx, &settled.update.iter().collect::<Vec<_>>()).await?;
    }

    if !writes.delete_messages.is_empty() {
        let ids: Vec<_> = writes.delete_messages.iter().map(|id| id.0).collect();
        messages::delete(tx, &ids).await?;
    }
    if !writes.insert_messages.is_empty() {
        messages::insert(tx, &writes.insert_messages.iter().collect::<Vec<_>>()).await?;
    }
    usage_stats::add(tx, &usage).await?;
    usage_slots::add(tx, &usage).await?;

    let asked = writes.insert_messages.iter().filter(|message| message.position == Position::Asked).count();
    Ok(Applied {
        applied: writes.applied + settled.applied,
        user_messages: asked,
        assistant_messages: writes.insert_messages.len() - asked,
    })
}

/// Projects an event that was put aside, and takes it out of quarantine, in one transaction. Says whether it was still
/// there: of two that try, one does it.
pub async fn take_back(pool: &PgPool, quarantine_id: Uuid, event: &Event) -> Result<bool, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let was_there = quarantine::delete(&mut tx, quarantine_id).await?;
    if was_there {
        join(&mut tx, project(std::slice::from_ref(event))).await?;
        tx.commit().await?;
    }
    Ok(was_there)
}

/// Rows that were in the way of an insert must be there to be locked, unless someone deletes behind our back.
fn expect_all(asked: &[Uuid], found: usize) -> Result<(), sqlx::Error> {
    if asked.len() == found { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}
