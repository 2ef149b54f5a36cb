//! The losses of a rebuild: rows and facts of the live tables that a shadow lacks. One join by key for each table, in
//! PostgreSQL, so that memory use does not depend on the number of rows.

use std::fmt::{Display, Formatter};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::shadow::ShadowSchema;
use crate::projection::tables::Table;

/// The rows of one table that a replacement of the live table by its shadow would change for the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLosses {
    /// The table.
    pub table: Table,
    /// The number of rows of the live table that the shadow does not have.
    pub dropped: i64,
    /// The number of rows that the shadow has in an earlier state, such as a chat without its end, or a revoked API key
    /// without the revocation.
    pub set_back: i64,
}

/// The losses in all tables. A table without losses is not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(Vec<TableLosses>);

/// Counts the rows of the live tables that the shadow lacks, or has in an earlier state.
///
/// The tables of sums are left out. A sum follows from the rows of `chats` and `conversations`, so a sum that changes
/// although no such row is lost was wrong.
pub async fn count(connection: &mut PgConnection, shadow: &ShadowSchema) -> Result<Losses, sqlx::Error> {
    let mut losses = Losses::default();
    for (table, key, is_earlier) in TABLES {
        let (live, own) = (shadow.live_table(table), shadow.shadow_table(table));
        let sql = format!(
            "SELECT count(*) FILTER (WHERE s.{key} IS NULL), count(*) FILTER (WHERE s.{key} IS NOT NULL)
             FROM {live} l LEFT JOIN {own} s ON s.{key} = l.{key}
             WHERE s.{key} IS NULL OR {is_earlier}"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?;
        let found = TableLosses { table, dropped: row.try_get(0)?, set_back: row.try_get(1)? };
        if (found.dropped, found.set_back) != (0, 0) {
            losses.0.push(found);
        }
    }
    Ok(losses)
}

/// A row of a live table that the shadow lacks, or has in an earlier state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRow {
    /// The key of the row.
    pub key: String,
    /// The size of the row's texts in bytes, for a caller that bounds the rows in memory.
    pub bytes: i64,
}

/// Reads up to `limit` lost rows of a table after the key `after`, in the order of keys.
pub async fn page(
    connection: &mut PgConnection,
    shadow: &ShadowSchema,
    table: Table,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<LostRow>, sqlx::Error> {
    let Some((_, key, is_earlier)) = TABLES.into_iter().find(|(compared, ..)| *compared == table) else {
        return Ok(Vec::new());
    };
    let (live, own) = (shadow.live_table(table), shadow.shadow_table(table));
    let key_type = if table == Table::Limits { "text" } else { "uuid" };
    let bytes = match table {
        Table::Chats => texts_of_chat(shadow),
        Table::PriceLists => "octet_length(l.list)::bigint".to_owned(),
        _ => "0::bigint".to_owned(),
    };
    let sql = format!(
        "SELECT l.{key}::text, {bytes} FROM {live} l LEFT JOIN {own} s ON s.{key} = l.{key}
         WHERE ($1::text IS NULL OR l.{key} > $1::{key_type}) AND (s.{key} IS NULL OR {is_earlier})
         ORDER BY l.{key} LIMIT $2"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(after).bind(limit).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(LostRow { key: row.try_get(0)?, bytes: row.try_get(1)? })).collect()
}

/// The size of the texts in the messages of the chat `l`. One of the two sums has no rows; each is read with the index of conversations.
fn texts_of_chat(shadow: &ShadowSchema) -> String {
    let sum = |condition: &str| {
        format!(
            "COALESCE((SELECT sum(octet_length(m.content) + COALESCE(octet_length(m.reasoning), 0)
                                  + COALESCE(pg_column_size(m.tool_calls), 0))
                       FROM {} m WHERE {condition} AND m.chat_id = l.chat_id), 0)::bigint",
            shadow.live_table(Table::Messages)
        )
    };
    let within = sum("m.conversation_id = l.conversation_id");
    format!("{within} + {}", sum("m.conversation_id IS NULL AND l.conversation_id IS NULL"))
}

/// The tables that are compared: the key, and the condition under which the row `s` of the shadow lacks facts of the
/// live row `l`. The facts of a message are those of its chat, so no message is set back without its chat.
const TABLES: [(Table, &str, &str); 9] = [
    // The states of a chat rise in the order of the array. Of two ends with the same state, the earlier one counts.
    (
        Table::Chats,
        "chat_id",
        "l.request_digest IS NOT NULL AND s.request_digest IS NULL
         OR (array_position('{started,orphaned,failed,completed}', l.status), s.finished_at)
            > (array_position('{started,orphaned,failed,completed}', s.status), l.finished_at)",
    ),
    (Table::Messages, "message_id", "false"),
    (
        Table::Conversations,
        "conversation_id",
        "l.created_at < s.created_at
         OR l.deleted_at IS NOT NULL AND s.deleted_at IS NULL
         OR COALESCE(l.archive_change_id > s.archive_change_id, l.archive_change_id IS NOT NULL)
         OR COALESCE(l.title_change_id > s.title_change_id, l.title_change_id IS NOT NULL)
         OR l.title IS NOT NULL AND s.title IS NULL
         OR l.title IS NOT NULL AND num_nulls(l.title_chat_id, l.title_change_id) = 2 AND s.title_chat_id IS NOT NULL
         OR l.model IS NOT NULL AND s.model IS NULL
         OR l.temperature IS NOT NULL AND s.temperature IS NULL AND num_nulls(l.settings_chat_id, s.settings_chat_id) = 2",
    ),
    (
        Table::ApiKeys,
        "key_id",
        "l.issued_at IS NOT NULL AND s.issued_at IS NULL
         OR l.revoked_at IS NOT NULL AND s.revoked_at IS NULL
         OR COALESCE(l.change_id > s.change_id, l.change_id IS NOT NULL)",
    ),
    (Table::Limits, "scope", "l.change_id > s.change_id"),
    (Table::Projects, "project_id", "l.change_id > s.change_id"),
    (Table::PriceLists, "change_id", "false"),
    (Table::Repricings, "change_id", "false"),
    (Table::AuditLog, "audit_id", "false"),
];

// === impl Losses ===

impl Losses {
    /// True if the shadow has all rows and facts of the live tables.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Display for Losses {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let list = |number: fn(&TableLosses) -> i64| {
            let rows = self.0.iter().filter(|losses| number(losses) > 0);
            rows.map(|losses| format!("{} {}", number(losses), losses.table.row_label())).collect::<Vec<_>>().join(", ")
        };
        let (dropped, set_back) = (list(|losses| losses.dropped), list(|losses| losses.set_back));
        let parts = [(dropped, "dropped"), (set_back, "set back to an earlier state")];
        let parts = parts.iter().filter(|(rows, _)| !rows.is_empty()).map(|(rows, what)| format!("{rows} {what}"));
        f.write_str(&parts.collect::<Vec<_>>().join("; "))
    }
}
