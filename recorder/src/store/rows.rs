//! Rows of several tables at once, as of one moment.

use std::collections::{BTreeMap, BTreeSet};

use shared::id::{ChatId, ConversationId, MessageId};
use sqlx::postgres::{PgConnection, PgPool};
use time::OffsetDateTime;

use super::{chats, conversations, messages, usage_slots, usage_stats};
use crate::projection::chat::Chat;
use crate::projection::conversation::Conversation;
use crate::projection::message::Message;
use crate::projection::tables::Tables;

/// Rows of the tables, by key: what is known of some chats and conversations.
#[derive(Clone, Debug, Default)]
pub struct RelatedRows {
    /// Rows of `chats`.
    pub chats: BTreeMap<ChatId, Chat>,
    /// Rows of `messages`.
    pub messages: BTreeMap<MessageId, Message>,
    /// Rows of `conversations`.
    pub conversations: BTreeMap<ConversationId, Conversation>,
}

impl RelatedRows {
    /// Without what came after this time.
    pub fn drop_after(&mut self, time: OffsetDateTime) {
        for chat in self.chats.values_mut() {
            if chat.ending.as_ref().is_some_and(|ending| ending.finished_at > time) {
                chat.ending = None;
            }
        }
        for conversation in self.conversations.values_mut() {
            conversation.last_message_at = conversation.last_message_at.min(time);
            conversation.deleted_at = conversation.deleted_at.filter(|deleted| *deleted <= time);
        }
    }
}

/// What is known of these chats and conversations; of the chats' conversations too.
pub async fn read_related(
    connection: &mut PgConnection,
    chats: &[ChatId],
    conversations: &[ConversationId],
) -> Result<RelatedRows, sqlx::Error> {
    let messages: Vec<_> = chats.iter().flat_map(|chat| [chat.user_message().0, chat.assistant_message().0]).collect();
    let ids: Vec<_> = chats.iter().map(|chat| chat.0).collect();
    let chats = chats::by_ids(connection, &ids).await?;
    let of_chats = chats.values().map(|chat| chat.conversation_id);
    let ids: BTreeSet<_> = of_chats.chain(conversations.iter().copied()).map(|id| id.0).collect();
    Ok(RelatedRows {
        messages: messages::by_ids(connection, &messages).await?,
        conversations: conversations::by_ids(connection, &ids.into_iter().collect::<Vec<_>>()).await?,
        chats,
    })
}

/// Every row of every projected table, as of one moment.
pub async fn read_all(pool: &PgPool) -> Result<Tables, sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
    let connection: &mut PgConnection = &mut tx;
    Ok(Tables {
        chats: chats::read_all(connection).await?,
        conversations: conversations::read_all(connection).await?,
        messages: messages::read_all(connection).await?,
        usage_stats: usage_stats::read_all(connection).await?,
        usage_slots: usage_slots::read_all(connection).await?,
    })
}
