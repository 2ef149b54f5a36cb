//! Reads across several tables, as of one moment.

use std::collections::{BTreeMap, BTreeSet};

use shared::id::{ChatId, ConversationId, MessageId};
use sqlx::postgres::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{admin_rows, chats, conversations, key_slots, messages, operation_slots, usage_slots, usage_stats};
use crate::projection::chat::Chat;
use crate::projection::conversation::Conversation;
use crate::projection::message::{Message, Position};
use crate::projection::tables::Tables;

/// Rows of several tables, by key: all facts about some chats and conversations.
#[derive(Clone, Debug, Default)]
pub struct RelatedRows {
    /// Rows of `chats`, by chat id.
    pub chats: BTreeMap<ChatId, Chat>,
    /// Rows of `messages`, by message id.
    pub messages: BTreeMap<MessageId, Message>,
    /// Rows of `conversations`, by conversation id.
    pub conversations: BTreeMap<ConversationId, Conversation>,
}

impl RelatedRows {
    /// Removes facts later than the given time: endings of chats and deletions of conversations. A later
    /// `last_message_at` is reduced to the given time.
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

/// Reads the rows of the given chats and conversations, with the messages and conversations of these chats.
pub async fn read_related(
    connection: &mut PgConnection,
    chats: &[ChatId],
    conversations: &[ConversationId],
) -> Result<RelatedRows, sqlx::Error> {
    let ids: Vec<_> = chats.iter().map(|chat| chat.0).collect();
    let chats = chats::by_ids(connection, &ids).await?;
    let messages: Vec<_> = chats.values().flat_map(message_ids).collect();
    let of_chats = chats.values().filter_map(|chat| chat.conversation_id);
    let ids: BTreeSet<_> = of_chats.chain(conversations.iter().copied()).map(|id| id.0).collect();
    Ok(RelatedRows {
        messages: messages::by_ids(connection, &messages).await?,
        conversations: conversations::by_ids(connection, &ids.into_iter().collect::<Vec<_>>()).await?,
        chats,
    })
}

/// The ids of the messages that a chat's row says to exist, and of the answer.
fn message_ids(chat: &Chat) -> impl Iterator<Item = Uuid> + use<> {
    let chat_id = chat.chat_id;
    let positions = Position::of_new(chat.request.as_ref().map_or(0, |request| request.new_messages));
    positions.chain([Position::Assistant]).map(move |position| position.message_of(chat_id).0)
}

/// Reads all rows of all projected tables in one snapshot. Memory use grows with the number of rows.
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
        operation_slots: operation_slots::read_all(connection).await?,
        key_slots: key_slots::read_all(connection).await?,
        admin: admin_rows::read_all(connection).await?,
    })
}
