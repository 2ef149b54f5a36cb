//! The `messages` table.
//!
//! Who writes a message holds the lock on its chat's row, which says whether the message is there; so no statement here has
//! to ask.

use std::collections::BTreeMap;

use shared::id::{ChatId, ConversationId, MessageId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::{Unreadable, user, utc, word};
use super::write::column;
use crate::projection::message::{Message, Position};
use crate::projection::representable::Json;
use crate::projection::word::Word as _;

/// Deletes messages that another takes the place of, or none.
pub(super) async fn delete(tx: &mut PgConnection, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM messages WHERE message_id = ANY($1)", ids).execute(tx).await?;
    Ok(())
}

/// Inserts messages that are not there.
pub(super) async fn insert(tx: &mut PgConnection, rows: &[&Message]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO messages (
             message_id, conversation_id, chat_id, position, user_id, role, status, content, reasoning, refusal,
             tool_calls, finish_reason, model, tokens, created_at, audio_transcript)
         SELECT message_id, conversation_id, chat_id, position, user_id, role, status, content, reasoning, refusal,
                tool_calls::jsonb, finish_reason, model, tokens, created_at, audio_transcript
         FROM UNNEST(
             $1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], $5::text[], $6::text[], $7::text[], $8::text[],
             $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::timestamptz[],
             $16::text[]) AS new (
             message_id, conversation_id, chat_id, position, user_id, role, status, content, reasoning, refusal,
             tool_calls, finish_reason, model, tokens, created_at, audio_transcript)",
        &column(rows, |m| m.message_id.0) as _,
        &column(rows, |m| m.conversation_id.0) as _,
        &column(rows, |m| m.chat_id.0) as _,
        &column(rows, |m| m.position.number()) as _,
        &column(rows, |m| m.user_id.as_str()) as _,
        &column(rows, |m| m.role.as_str()) as _,
        &column(rows, |m| m.status.word()) as _,
        &column(rows, |m| m.content.as_str()) as _,
        &column(rows, |m| m.reasoning.as_deref()) as _,
        &column(rows, |m| m.refusal.as_deref()) as _,
        &column(rows, |m| m.tool_calls.as_ref().map(Json::as_str)) as _,
        &column(rows, |m| m.finish_reason.as_deref()) as _,
        &column(rows, |m| m.model.as_str()) as _,
        &column(rows, |m| m.tokens) as _,
        &column(rows, |m| m.created_at) as _,
        &column(rows, |m| m.audio_transcript.as_deref()) as _
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Every row.
pub(super) async fn all(connection: &mut PgConnection) -> Result<BTreeMap<MessageId, Message>, sqlx::Error> {
    let rows = sqlx::query_as!(
        MessageRow,
        "SELECT message_id, conversation_id, chat_id, position, user_id, role, status, content, reasoning, refusal,
                tool_calls::text AS tool_calls, finish_reason, model, tokens, created_at,
                audio_transcript
         FROM messages"
    );
    let rows = rows.fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((MessageId(row.message_id), row.read()?))).collect()
}

/// A row as the driver reads it.
struct MessageRow {
    message_id: Uuid,
    conversation_id: Uuid,
    chat_id: Uuid,
    position: i16,
    user_id: String,
    role: String,
    status: String,
    content: String,
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<String>,
    finish_reason: Option<String>,
    model: String,
    tokens: Option<i64>,
    created_at: OffsetDateTime,
    audio_transcript: Option<String>,
}

impl MessageRow {
    fn read(self) -> Result<Message, Unreadable> {
        Ok(Message {
            message_id: MessageId(self.message_id),
            conversation_id: ConversationId(self.conversation_id),
            chat_id: ChatId(self.chat_id),
            position: if self.position == Position::Asked.number() { Position::Asked } else { Position::Answered },
            user_id: user(self.user_id)?,
            role: self.role,
            status: word("status", Some(&self.status))?,
            content: self.content,
            reasoning: self.reasoning,
            refusal: self.refusal,
            audio_transcript: self.audio_transcript,
            tool_calls: self.tool_calls.as_deref().map(Json::new),
            finish_reason: self.finish_reason,
            model: self.model,
            tokens: self.tokens,
            created_at: utc(self.created_at),
        })
    }
}
