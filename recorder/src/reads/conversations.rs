//! Queries for conversations, from the `conversations` table.

use shared::id::{ChangeId, ConversationId, UserId};
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::deleted::Deleted;
use super::page::Page;
use crate::cursor::TimeCursor;
use crate::store::column;

/// The maximum number of a user's conversations to examine for a page of a list.
const SCAN_WINDOW: i64 = 500;
/// The maximum number of a user's conversations to examine for a page of a search.
const SEARCH_WINDOW: i64 = 200;

/// The number of messages after which a page of a search examines no further conversation. At least one conversation is
/// examined, whatever its length.
const MAX_SEARCHED_MESSAGES: i64 = 1_000;

/// The number of characters of a message that a search reads, from its beginning. PostgreSQL reads no more of a long text than that.
const MAX_SEARCHED_CHARACTERS: i32 = 65_536;

/// A conversation, with the columns that the API shows.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the columns, which have comments")]
pub struct ConversationRecord {
    pub conversation_id: Uuid,
    pub user_id: String,
    pub title: Option<String>,
    pub model: Option<String>,
    pub temperature: Option<f64>,
    pub created_at: OffsetDateTime,
    pub last_message_at: OffsetDateTime,
    pub message_count: i64,
    pub total_tokens: i64,
    pub estimated_total_tokens: i64,
    pub archived: bool,
}

/// The filters and the bounds of a page of conversations. A filter of `None` matches every conversation.
#[derive(Clone, Copy, Debug)]
pub struct ConversationQuery<'a> {
    /// The owner of the conversations.
    pub user: &'a UserId,
    /// True for archived conversations only, false for conversations that are not archived.
    pub archived: Option<bool>,
    /// Text to find in titles and messages, ignoring case.
    pub words: Option<&'a str>,
    /// The upper bound of the page, exclusive: the last conversation of the previous page.
    pub before: TimeCursor,
    /// The maximum number of conversations on the page.
    pub limit: i64,
}

/// A change of a conversation, as far as needed to recognize the change in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedChange {
    /// A new title, a new archived state, or both.
    Changed {
        /// The id of the change. A later change has a greater id.
        change_id: ChangeId,
        /// True if the change has set the title.
        title: bool,
        /// True if the change has archived or restored the conversation.
        archived: bool,
    },
    /// The deletion of the conversation.
    Deleted,
}

/// A change that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitedChange {
    /// The conversation that changes.
    pub conversation: ConversationId,
    /// The user who waits, and has to own the conversation.
    pub user: UserId,
    /// The change.
    pub change: ExpectedChange,
}

/// Returns a page of a user's conversations, the most recently used first.
pub async fn page(pool: &PgPool, query: ConversationQuery<'_>) -> Result<Page<ConversationRecord>, sqlx::Error> {
    let pattern = query.words.map(pattern);
    let window = if pattern.is_some() { SEARCH_WINDOW } else { SCAN_WINDOW };
    // The LIMIT in the lateral subquery makes PostgreSQL read a few messages by index, instead of reading all messages
    // once.
    let rows = sqlx::query!(
        r#"WITH at_hand AS MATERIALIZED (
               SELECT *, deleted_at IS NULL AND ($5::boolean IS NULL OR archived = $5) AS wanted,
                      $6::text IS NULL OR COALESCE(title, '') ILIKE $6 AS named
               FROM conversations
               WHERE user_id = $1 AND (last_message_at, conversation_id) < ($2, $3)
               ORDER BY last_message_at DESC, conversation_id DESC LIMIT $4),
           counted AS (
               SELECT *, sum(CASE WHEN wanted AND NOT named THEN message_count ELSE 0 END) OVER (
                   ORDER BY last_message_at DESC, conversation_id DESC
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS messages_before
               FROM at_hand),
           looked_at AS MATERIALIZED (
               SELECT * FROM counted WHERE COALESCE(messages_before, 0) < $7::bigint),
           hits AS (
               SELECT c.* FROM looked_at c
               LEFT JOIN LATERAL (
                   SELECT true AS found FROM messages m
                   WHERE NOT c.named AND m.conversation_id = c.conversation_id AND m.user_id = $1
                       AND left(m.content, $9) ILIKE $6 LIMIT 1
               ) m ON true
               WHERE c.wanted AND (c.named OR m.found)
               ORDER BY c.last_message_at DESC, c.conversation_id DESC LIMIT $8)
           SELECT w.at_hand AS "at_hand!", w.looked_at AS "looked_at!", w.stopped_at, w.stopped_id,
                  h.conversation_id AS "conversation_id?", h.user_id AS "user_id?", h.title, h.model, h.temperature,
                  h.created_at AS "created_at?", h.last_message_at AS "last_message_at?",
                  h.message_count AS "message_count?", h.total_tokens AS "total_tokens?",
                  h.estimated_total_tokens AS "estimated_total_tokens?", h.archived AS "archived?"
           FROM (SELECT (SELECT count(*) FROM at_hand) AS at_hand, count(*) AS looked_at, min(last_message_at) AS stopped_at,
                        (array_agg(conversation_id ORDER BY last_message_at, conversation_id))[1] AS stopped_id
                 FROM looked_at) w
           LEFT JOIN hits h ON true
           ORDER BY h.last_message_at DESC, h.conversation_id DESC"#,
        query.user.as_str(),
        query.before.at,
        query.before.id,
        window,
        query.archived,
        pattern,
        MAX_SEARCHED_MESSAGES,
        query.limit + 1,
        MAX_SEARCHED_CHARACTERS
    );
    let rows = rows.fetch_all(pool).await?;
    let scan_end = rows
        .first()
        .filter(|row| row.at_hand == window || row.looked_at < row.at_hand)
        .and_then(|row| Some(TimeCursor { at: row.stopped_at?, id: row.stopped_id? }));
    let conversations = rows.into_iter().filter_map(|row| {
        Some(ConversationRecord {
            conversation_id: row.conversation_id?,
            user_id: row.user_id?,
            title: row.title,
            model: row.model,
            temperature: row.temperature,
            created_at: row.created_at?,
            last_message_at: row.last_message_at?,
            message_count: row.message_count?,
            total_tokens: row.total_tokens?,
            estimated_total_tokens: row.estimated_total_tokens?,
            archived: row.archived?,
        })
    });
    let key = |row: &ConversationRecord| TimeCursor { at: row.last_message_at, id: row.conversation_id };
    Ok(Page::from_rows(conversations.collect(), query.limit, scan_end, key))
}

/// Returns the conversations with these ids, of any owner.
pub async fn by_ids(pool: &PgPool, ids: &[Uuid], deleted: Deleted) -> Result<Vec<ConversationRecord>, sqlx::Error> {
    sqlx::query_as!(
        ConversationRecord,
        "SELECT conversation_id, user_id, title, model, temperature, created_at, last_message_at, message_count,
                total_tokens, estimated_total_tokens, archived
         FROM conversations WHERE conversation_id = ANY($1) AND ($2::boolean OR deleted_at IS NULL)",
        ids,
        deleted.is_shown()
    )
    .fetch_all(pool)
    .await
}

/// Returns the conversation with this id, of any owner.
pub async fn by_id(
    pool: &PgPool,
    id: ConversationId,
    deleted: Deleted,
) -> Result<Option<ConversationRecord>, sqlx::Error> {
    Ok(by_ids(pool, &[id.0], deleted).await?.pop())
}

/// Returns the indexes of those changes that have reached the table: the change itself, a later change of the same columns,
/// or the deletion of the conversation. Conversations of other users count as absent.
pub async fn visible_changes(pool: &PgPool, changes: &[AwaitedChange]) -> Result<Vec<usize>, sqlx::Error> {
    let parts = |awaited: &AwaitedChange| match awaited.change {
        ExpectedChange::Changed { change_id, title, archived } => (Some(change_id.0), title, archived),
        ExpectedChange::Deleted => (None, false, false),
    };
    let changes: Vec<&AwaitedChange> = changes.iter().collect();
    let numbers = sqlx::query_scalar!(
        r#"SELECT w.number AS "number!"
           FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::boolean[], $5::boolean[]) WITH ORDINALITY
                AS w (conversation_id, user_id, change_id, title, archived, number)
           JOIN conversations c ON c.conversation_id = w.conversation_id AND c.user_id = w.user_id
           WHERE c.deleted_at IS NOT NULL
              OR (w.change_id IS NOT NULL AND (NOT w.title OR c.title_change_id >= w.change_id)
                  AND (NOT w.archived OR c.archive_change_id >= w.change_id))"#,
        &column(&changes, |awaited| awaited.conversation.0) as _,
        &column(&changes, |awaited| awaited.user.as_str()) as _,
        &column(&changes, |awaited| parts(awaited).0) as _,
        &column(&changes, |awaited| parts(awaited).1) as _,
        &column(&changes, |awaited| parts(awaited).2) as _,
    );
    let numbers = numbers.fetch_all(pool).await?;
    Ok(numbers.into_iter().filter_map(|number| usize::try_from(number - 1).ok()).collect())
}

/// Returns an ILIKE pattern that matches any text containing `words` literally.
fn pattern(words: &str) -> String {
    let mut pattern = String::from("%");
    for letter in words.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_pattern_matches_its_words_literally() {
        assert_eq!(pattern("100%_\\"), "%100\\%\\_\\\\%");
    }
}
