//! Statements for the `messages` table.
//!
//! A writer of a message holds the lock on the row of the message's chat, and the chat's row records whether the
//! message exists. Therefore no statement in this file needs `ON CONFLICT`.

use std::collections::BTreeMap;

use shared::id::{ChatId, ConversationId, MessageId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::{UnreadableColumn, sql_enum, user_id, utc};
use super::write::{Jsonb, column, copy_rows};
use crate::projection::message::{Message, Position};
use crate::projection::pg_value::PgJson;
use crate::projection::sql_enum::SqlEnum as _;

/// The columns written for each row.
const COLUMNS: &str = "message_id, conversation_id, chat_id, position, user_id, role, status, content, reasoning, refusal, \
     tool_calls, finish_reason, model, tokens, created_at, audio_transcript, tool_call_id, recording";

/// The values of a row, in the order of [`COLUMNS`], each as a function of the row. The list is passed on to the macro
/// `$then!`.
macro_rules! values {
    ($then:ident $with:tt) => {
        $then! { $with
            |m| m.message_id.0,
            |m| m.conversation_id.map(|id| id.0),
            |m| m.chat_id.0,
            |m| m.position.number(),
            |m| m.user_id.as_str(),
            |m| m.role.as_str(),
            |m| m.status.as_sql(),
            |m| m.content.as_str(),
            |m| m.reasoning.as_deref(),
            |m| m.refusal.as_deref(),
            |m| m.tool_calls.as_ref().map(Jsonb),
            |m| m.finish_reason.as_deref(),
            |m| m.model.as_str(),
            |m| m.tokens,
            |m| m.created_at,
            |m| m.audio_transcript.as_deref(),
            |m| m.tool_call_id.as_deref(),
            |m| m.recording.as_str(),
        }
    };
}

macro_rules! statement {
    (($rows:ident) $($value:expr,)*) => {
        sqlx::query!(
            "INSERT INTO messages (
                 message_id, conversation_id, chat_id, position, user_id, role, status, content, reasoning, refusal,
                 tool_calls, finish_reason, model, tokens, created_at, audio_transcript, tool_call_id, recording)
             SELECT message_id, conversation_id, chat_id, position, user_id, role, status, content, reasoning, refusal,
                    tool_calls, finish_reason, model, tokens, created_at, audio_transcript, tool_call_id, recording
             FROM (SELECT
                         UNNEST($1::uuid[]) AS message_id, UNNEST($2::uuid[]) AS conversation_id,
                         UNNEST($3::uuid[]) AS chat_id, UNNEST($4::smallint[]) AS position, UNNEST($5::text[]) AS user_id,
                         UNNEST($6::text[]) AS role, UNNEST($7::text[]) AS status, UNNEST($8::text[]) AS content,
                         UNNEST($9::text[]) AS reasoning, UNNEST($10::text[]) AS refusal, UNNEST($11::jsonb[]) AS tool_calls,
                         UNNEST($12::text[]) AS finish_reason, UNNEST($13::text[]) AS model,
                         UNNEST($14::bigint[]) AS tokens, UNNEST($15::timestamptz[]) AS created_at,
                         UNNEST($16::text[]) AS audio_transcript, UNNEST($17::text[]) AS tool_call_id,
                         UNNEST($18::text[]) AS recording) AS new",
            $(&column($rows, $value) as _),*
        )
    };
}

/// A query for whole rows; `$tail` follows the table's name.
macro_rules! rows_where {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            MessageRow,
            "SELECT message_id, conversation_id, chat_id, position, user_id, role, status, content, reasoning, refusal,
                    tool_calls::text AS tool_calls, finish_reason, model, tokens, created_at, audio_transcript, tool_call_id,
                    recording
             FROM messages " + $tail
            $(, $argument)*
        )
    };
}

/// Deletes the messages of replaced halves of chats.
pub(super) async fn delete(tx: &mut PgConnection, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM messages WHERE message_id = ANY($1)", ids).execute(tx).await?;
    Ok(())
}

/// Inserts messages that have no row yet.
pub(super) async fn insert(tx: &mut PgConnection, rows: &[&Message]) -> Result<(), sqlx::Error> {
    values!(statement(rows)).execute(tx).await?;
    Ok(())
}

/// Inserts new messages by COPY. The table must have no other writer.
pub(super) async fn copy_in(tx: &mut PgConnection, rows: &[&Message]) -> Result<(), sqlx::Error> {
    values!(copy_rows(tx, "messages", COLUMNS, rows))
}

/// Reads rows without a lock. Missing rows are left out.
pub(super) async fn by_ids(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<BTreeMap<MessageId, Message>, sqlx::Error> {
    let rows = rows_where!("WHERE message_id = ANY($1)", ids).fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((MessageId(row.message_id), row.read()?))).collect()
}

/// Reads all rows of the table.
pub(super) async fn read_all(connection: &mut PgConnection) -> Result<BTreeMap<MessageId, Message>, sqlx::Error> {
    let rows = rows_where!("").fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((MessageId(row.message_id), row.read()?))).collect()
}

/// A row as read by the driver.
struct MessageRow {
    message_id: Uuid,
    conversation_id: Option<Uuid>,
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
    tool_call_id: Option<String>,
    recording: String,
}

impl MessageRow {
    fn read(self) -> Result<Message, UnreadableColumn> {
        Ok(Message {
            message_id: MessageId(self.message_id),
            conversation_id: self.conversation_id.map(ConversationId),
            chat_id: ChatId(self.chat_id),
            position: Position::from_number(self.position),
            user_id: user_id(self.user_id)?,
            role: self.role,
            status: sql_enum("status", Some(&self.status))?,
            content: self.content,
            reasoning: self.reasoning,
            refusal: self.refusal,
            audio_transcript: self.audio_transcript,
            tool_calls: self.tool_calls.as_deref().map(PgJson::new),
            tool_call_id: self.tool_call_id,
            finish_reason: self.finish_reason,
            model: self.model,
            tokens: self.tokens,
            recording: sql_enum("recording", Some(&self.recording))?,
            created_at: utc(self.created_at),
        })
    }
}
