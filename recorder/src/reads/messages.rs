//! Queries for messages, from the `messages` table.

use futures_util::TryStreamExt as _;
use shared::id::ConversationId;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cursor::IdCursor;

/// A message, with the columns that the API shows.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the columns, which have comments")]
pub struct MessageRecord {
    pub message_id: Uuid,
    pub chat_id: Uuid,
    pub position: i16,
    pub role: String,
    pub status: String,
    pub content: String,
    pub reasoning: Option<String>,
    pub refusal: Option<String>,
    pub tool_calls: Option<serde_json::Value>,
    pub tool_call_id: Option<String>,
    pub finish_reason: Option<String>,
    pub model: String,
    pub tokens: Option<i64>,
    pub recording: String,
    pub created_at: OffsetDateTime,
}

/// The order of a list of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortOrder {
    /// The oldest message first.
    Ascending,
    /// The newest message first.
    Descending,
}

/// The amount of text, in bytes, after which a page takes no further message. Answers may be long.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// Returns a page of at most `limit` messages after the cursor, and true if more messages follow. The conversation has
/// to belong to the user; otherwise the page is empty.
pub async fn page(
    pool: &PgPool,
    (conversation, user): (ConversationId, &str),
    order: SortOrder,
    after: IdCursor,
    limit: i64,
) -> Result<(Vec<MessageRecord>, bool), sqlx::Error> {
    let size = usize::try_from(limit).unwrap_or(0);
    macro_rules! messages_where {
        ($tail:tt) => {
            sqlx::query_as!(
                MessageRecord,
                "SELECT message_id, chat_id, position, role, status, content, reasoning, refusal, tool_calls,
                        tool_call_id, finish_reason, model, tokens, recording, created_at
                 FROM messages WHERE conversation_id = $1 AND user_id = $2 "
                    + $tail,
                conversation.0,
                user,
                after.id,
                after.number,
                limit + 1
            )
            .fetch(pool)
        };
    }
    let mut found = match order {
        SortOrder::Ascending => {
            messages_where!("AND (chat_id, position) > ($3, $4) ORDER BY chat_id, position LIMIT $5")
        }
        SortOrder::Descending => {
            messages_where!("AND (chat_id, position) < ($3, $4) ORDER BY chat_id DESC, position DESC LIMIT $5")
        }
    };
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.try_next().await? {
        if rows.len() == size || bytes > MAX_PAGE_BYTES {
            return Ok((rows, true));
        }
        bytes += row.content.len() + row.reasoning.as_ref().map_or(0, String::len);
        rows.push(row);
    }
    Ok((rows, false))
}
