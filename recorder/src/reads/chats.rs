//! Queries for chats, from the `chats` table.

use shared::id::ConversationId;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::deleted::Deleted;
use super::page::Page;
use crate::cursor::TimeCursor;

/// The maximum number of chats to examine for a page.
const SCAN_WINDOW: i64 = 1000;

/// A chat, with the columns that the API shows.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the columns, which have comments")]
pub struct ChatRecord {
    pub chat_id: Uuid,
    pub conversation_id: Option<Uuid>,
    pub operation: String,
    pub user_id: String,
    pub gateway: String,
    pub model: String,
    pub started_at: OffsetDateTime,
    pub status: String,
    pub dialect: Option<String>,
    pub stream: Option<bool>,
    pub temperature: Option<f64>,
    pub finished_at: Option<OffsetDateTime>,
    pub stage: Option<String>,
    pub error_status: Option<i32>,
    pub error_type: Option<String>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub upstream_name: Option<String>,
    pub upstream_model: Option<String>,
    pub upstream_response_id: Option<String>,
    pub attempts: Option<serde_json::Value>,
    pub time_to_first_token_ms: Option<i64>,
    pub duration_ms: Option<i64>,
    pub usage_source: Option<String>,
    pub prompt_tokens: Option<i64>,
    pub completion_tokens: Option<i64>,
    pub total_tokens: Option<i64>,
    pub uncached_input_tokens: Option<i64>,
    pub cache_read_tokens: Option<i64>,
    pub cache_write_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub reasoning_tokens: Option<i64>,
    pub notes: Option<serde_json::Value>,
    pub caller_metadata: Option<serde_json::Value>,
    pub media: Option<serde_json::Value>,
    pub key_id: Option<Uuid>,
    pub project_id: Option<Uuid>,
    pub cost_nanodollars: Option<i64>,
    pub cost_parts: Option<serde_json::Value>,
    pub price_version: Option<String>,
    pub priced_as: Option<String>,
    pub provider_cost_nanodollars: Option<i64>,
    pub recording: String,
}

/// The filters and the bounds of a page of chats. A filter of `None` matches every chat.
#[derive(Clone, Copy, Debug)]
pub struct ChatQuery<'a> {
    /// The owner of the chats; none for those of all users.
    pub user: Option<&'a str>,
    /// The status: `started`, `completed`, `failed` or `orphaned`.
    pub status: Option<&'a str>,
    /// The model that the client requested.
    pub model: Option<&'a str>,
    /// The kind of the call.
    pub operation: Option<&'a str>,
    /// The conversation of the chats.
    pub conversation: Option<ConversationId>,
    /// The API key of the caller.
    pub key: Option<Uuid>,
    /// The project of the API key.
    pub project: Option<Uuid>,
    /// A tag from the header `x-stenograph-tags`.
    pub tag: Option<&'a str>,
    /// The caller's own user, from the field `user` of the request.
    pub caller_user: Option<&'a str>,
    /// The earliest start, inclusive.
    pub from: OffsetDateTime,
    /// The upper bound of the page, exclusive: the latest start, or the last chat of the previous page.
    pub before: TimeCursor,
    /// The treatment of chats whose conversation is deleted.
    pub deleted: Deleted,
    /// The maximum number of chats on the page.
    pub limit: i64,
}

// The conditions on deleted conversations are subqueries with a value, and not NOT EXISTS: PostgreSQL looks such a subquery up in
// the primary key for each row of the page, and joins NOT EXISTS by reading all conversations.

/// Builds a query for [`ChatRecord`]s. The caller supplies the SQL after the list of columns, and the arguments.
macro_rules! chats_from {
    ([$($tail:tt)+] $(, $argument:expr)*) => {
        sqlx::query_as!(
            ChatRecord,
            "SELECT c.chat_id, c.conversation_id, c.user_id, c.gateway, c.model, c.started_at, c.status, c.dialect,
                    c.stream, c.temperature, c.finished_at, c.stage, c.error_status, c.error_type, c.error_code,
                    c.error_message, c.upstream_name, c.upstream_model, c.upstream_response_id, c.attempts,
                    c.time_to_first_token_ms, c.duration_ms, c.usage_source, c.prompt_tokens, c.completion_tokens,
                    c.total_tokens, c.uncached_input_tokens, c.cache_read_tokens, c.cache_write_tokens,
                    c.output_tokens, c.reasoning_tokens, c.notes, c.caller_metadata, c.operation, c.media,
                    c.key_id, c.project_id, c.cost_nanodollars, c.cost_parts, c.price_version, c.priced_as,
                    c.provider_cost_nanodollars, c.recording " + $($tail)+
            $(, $argument)*
        )
    };
}

/// Returns a page of the chats of a user or of all users, newest first.
pub async fn page(pool: &PgPool, query: ChatQuery<'_>) -> Result<Page<ChatRecord>, sqlx::Error> {
    // A statement for each case, because one with a condition for both cases has one plan, with the wrong index for one of them.
    macro_rules! page_where {
        ($whose:tt, $user:expr) => {{
            let window = sqlx::query_as!(
                Window,
                r#"SELECT count(*) AS "scanned!", min(started_at) AS stopped_at,
                          (array_agg(chat_id ORDER BY started_at, chat_id))[1] AS stopped_id
                   FROM (SELECT started_at, chat_id FROM chats c
                         WHERE "# + $whose + r#" AND (started_at, chat_id) < ($2, $3) AND started_at >= $4
                         ORDER BY started_at DESC, chat_id DESC LIMIT $5) looked_at"#,
                $user,
                query.before.at,
                query.before.id,
                query.from,
                SCAN_WINDOW
            );
            let window = window.fetch_one(pool).await?;
            let Some(scan_end) = window.end() else { return Ok(Page { rows: Vec::new(), next: None }) };
            let rows = chats_from!(
                ["FROM chats c
                 WHERE " + $whose + " AND (c.started_at, c.chat_id) < ($2, $3) AND (c.started_at, c.chat_id) >= ($4, $5)
                   AND ($6::text IS NULL OR c.status = $6) AND ($7::text IS NULL OR c.model = $7)
                   AND ($8::uuid IS NULL OR c.conversation_id = $8)
                   AND ($9::text IS NULL OR c.caller_metadata @> jsonb_build_object('tags', jsonb_build_array($9::text)))
                   AND ($10::text IS NULL OR c.caller_metadata @> jsonb_build_object('user', $10::text))
                   AND ($11::text IS NULL OR c.operation = $11)
                   AND ($13::boolean OR (SELECT d.deleted_at FROM conversations d WHERE d.conversation_id = c.conversation_id) IS NULL)
                   AND ($14::uuid IS NULL OR c.key_id = $14) AND ($15::uuid IS NULL OR c.project_id = $15)
                 ORDER BY c.started_at DESC, c.chat_id DESC LIMIT $12"],
                $user,
                query.before.at,
                query.before.id,
                scan_end.at,
                scan_end.id,
                query.status,
                query.model,
                query.conversation.map(|id| id.0),
                query.tag,
                query.caller_user,
                query.operation,
                query.limit + 1,
                query.deleted.is_shown(),
                query.key,
                query.project
            );
            (rows.fetch_all(pool).await?, (window.scanned == SCAN_WINDOW).then_some(scan_end))
        }};
    }
    let (rows, scan_end) = match query.user {
        Some(user) => page_where!("c.user_id = $1", user),
        // The statement has to contain `$1`. The condition is true for every user.
        None => page_where!("$1::text IS NULL", None::<&str>),
    };
    Ok(Page::from_rows(rows, query.limit, scan_end, ChatRecord::key))
}

/// The chats that are examined for a page: their number, and the oldest.
struct Window {
    scanned: i64,
    stopped_at: Option<OffsetDateTime>,
    stopped_id: Option<Uuid>,
}

impl Window {
    fn end(&self) -> Option<TimeCursor> {
        Some(TimeCursor { at: self.stopped_at?, id: self.stopped_id? })
    }
}

/// Returns the usage object of the provider's answer to this chat, as the provider sent it.
pub async fn raw_usage(pool: &PgPool, id: Uuid) -> Result<Option<serde_json::Value>, sqlx::Error> {
    let row = sqlx::query_scalar!("SELECT usage_raw FROM chats WHERE chat_id = $1", id);
    Ok(row.fetch_optional(pool).await?.flatten())
}

/// Returns a page of the failed and orphaned chats of all users, newest first.
pub async fn failures(
    pool: &PgPool,
    before: TimeCursor,
    deleted: Deleted,
    limit: i64,
) -> Result<Page<ChatRecord>, sqlx::Error> {
    let rows = chats_from!(
        ["FROM chats c WHERE c.stage IS NOT NULL AND (c.started_at, c.chat_id) < ($1, $2)
           AND ($4::boolean OR (SELECT d.deleted_at FROM conversations d WHERE d.conversation_id = c.conversation_id) IS NULL)
         ORDER BY c.started_at DESC, c.chat_id DESC LIMIT $3"],
        before.at,
        before.id,
        limit + 1,
        deleted.is_shown()
    );
    Ok(Page::from_rows(rows.fetch_all(pool).await?, limit, None, ChatRecord::key))
}

/// Returns the chats with these ids, sorted by id, of any owner.
pub async fn by_ids(pool: &PgPool, ids: &[Uuid], deleted: Deleted) -> Result<Vec<ChatRecord>, sqlx::Error> {
    chats_from!(
        ["FROM chats c WHERE c.chat_id = ANY($1)
           AND ($2::boolean OR (SELECT d.deleted_at FROM conversations d WHERE d.conversation_id = c.conversation_id) IS NULL)
         ORDER BY c.chat_id"],
        ids,
        deleted.is_shown()
    )
    .fetch_all(pool)
    .await
}

impl ChatRecord {
    fn key(&self) -> TimeCursor {
        TimeCursor { at: self.started_at, id: self.chat_id }
    }
}
