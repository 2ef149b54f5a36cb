//! Statements for the `conversations` table.

use std::collections::{BTreeMap, BTreeSet};

use shared::id::{ChangeId, ChatId, ConversationId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::{UnreadableColumn, user_id, utc};
use super::write::{column, copy_rows};
use crate::projection::conversation::{ArchiveState, Conversation, ConversationSettings, Title, TitleOrigin};
use crate::projection::usage_stats::ConversationTotals;

/// The columns written for each row.
const COLUMNS: &str = "conversation_id, user_id, created_at, last_message_at, title, title_chat_id, model, \
     temperature, settings_chat_id, message_count, total_tokens, estimated_total_tokens, title_change_id, archived, \
     archive_change_id, deleted_at";

/// The values of a row, in the order of [`COLUMNS`], each as a function of the row. The list is passed on to the macro
/// `$then!`.
macro_rules! values {
    ($then:ident $with:tt) => {
        $then! { $with
            |c| c.conversation_id.0,
            |c| c.user_id.as_str(),
            |c| c.created_at,
            |c| c.last_message_at,
            |c| Some(c.title.as_ref()?.text.as_str()),
            |c| c.title.as_ref()?.origin.chat_id(),
            |c| c.settings.as_ref()?.model.as_deref(),
            |c| c.settings.as_ref()?.temperature,
            |c| Some(c.settings.as_ref()?.chat_id?.0),
            |c| c.totals.messages,
            |c| c.totals.total_tokens,
            |c| c.totals.estimated_total_tokens,
            |c| c.title.as_ref()?.origin.change_id(),
            |c| c.archive.is_some_and(|archive| archive.archived),
            |c| Some(c.archive?.change_id.0),
            |c| c.deleted_at,
        }
    };
}

/// A statement over whole rows: a head, the rows as one array parameter for each column, and a tail.
macro_rules! with_rows {
    ($head:tt, $tail:tt, $rows:expr) => {{
        let rows: &[&Conversation] = $rows;
        values!(statement($head, $tail, rows))
    }};
}

macro_rules! statement {
    (($head:tt, $tail:tt, $rows:ident) $($value:expr,)*) => {
        sqlx::query!(
            $head
                + " FROM (SELECT
                     UNNEST($1::uuid[]) AS conversation_id, UNNEST($2::text[]) AS user_id,
                     UNNEST($3::timestamptz[]) AS created_at, UNNEST($4::timestamptz[]) AS last_message_at,
                     UNNEST($5::text[]) AS title, UNNEST($6::uuid[]) AS title_chat_id, UNNEST($7::text[]) AS model,
                     UNNEST($8::double precision[]) AS temperature, UNNEST($9::uuid[]) AS settings_chat_id,
                     UNNEST($10::bigint[]) AS message_count, UNNEST($11::bigint[]) AS total_tokens,
                     UNNEST($12::bigint[]) AS estimated_total_tokens,
                     UNNEST($13::uuid[]) AS title_change_id, UNNEST($14::boolean[]) AS archived,
                     UNNEST($15::uuid[]) AS archive_change_id, UNNEST($16::timestamptz[]) AS deleted_at) AS new "
                + $tail,
            $(&column($rows, $value) as _),*
        )
    };
}

/// A query for whole rows; `$tail` follows the table's name.
macro_rules! rows_where {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            ConversationRow,
            "SELECT conversation_id, user_id, created_at, last_message_at, title, title_chat_id, model, temperature,
                    settings_chat_id, message_count, total_tokens, estimated_total_tokens, title_change_id, archived,
                    archive_change_id, deleted_at
             FROM conversations " + $tail
            $(, $argument)*
        )
    };
}

/// Inserts the rows that do not exist yet and returns the keys of these rows. Waits for another transaction that is
/// inserting the same row.
pub(super) async fn insert(
    tx: &mut PgConnection,
    rows: &[&Conversation],
) -> Result<BTreeSet<ConversationId>, sqlx::Error> {
    let inserted = with_rows!(
        "INSERT INTO conversations (
             conversation_id, user_id, created_at, last_message_at, title, title_chat_id, model, temperature,
             settings_chat_id, message_count, total_tokens, estimated_total_tokens, title_change_id, archived,
             archive_change_id, deleted_at)
         SELECT new.*",
        "ON CONFLICT (conversation_id) DO NOTHING
         RETURNING conversation_id",
        rows
    );
    Ok(inserted.fetch_all(tx).await?.into_iter().map(|row| ConversationId(row.conversation_id)).collect())
}

/// Inserts new rows by COPY. The table must have no other writer, because COPY fails on existing rows.
pub(super) async fn copy_in(tx: &mut PgConnection, rows: &[&Conversation]) -> Result<(), sqlx::Error> {
    values!(copy_rows(tx, "conversations", COLUMNS, rows))
}

/// Reads and locks rows for update, in key order. Missing rows are left out.
pub(super) async fn lock(
    tx: &mut PgConnection,
    ids: &[Uuid],
) -> Result<BTreeMap<ConversationId, Conversation>, sqlx::Error> {
    let rows =
        rows_where!("WHERE conversation_id = ANY($1) ORDER BY conversation_id FOR UPDATE", ids).fetch_all(tx).await?;
    rows.into_iter().map(|row| Ok((ConversationId(row.conversation_id), row.read()?))).collect()
}

/// Updates rows; the rows must exist and be locked by this transaction.
pub(super) async fn update(tx: &mut PgConnection, rows: &[&Conversation]) -> Result<(), sqlx::Error> {
    let update = with_rows!(
        "UPDATE conversations SET
             user_id = new.user_id, created_at = new.created_at, last_message_at = new.last_message_at,
             title = new.title, title_chat_id = new.title_chat_id, model = new.model, temperature = new.temperature,
             settings_chat_id = new.settings_chat_id, message_count = new.message_count,
             total_tokens = new.total_tokens, estimated_total_tokens = new.estimated_total_tokens,
             title_change_id = new.title_change_id, archived = new.archived,
             archive_change_id = new.archive_change_id, deleted_at = new.deleted_at",
        "WHERE conversations.conversation_id = new.conversation_id",
        rows
    );
    update.execute(tx).await?;
    Ok(())
}

/// Reads rows without a lock. Missing rows are left out.
pub(super) async fn by_ids(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<BTreeMap<ConversationId, Conversation>, sqlx::Error> {
    let rows = rows_where!("WHERE conversation_id = ANY($1)", ids).fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((ConversationId(row.conversation_id), row.read()?))).collect()
}

/// Reads all rows of the table.
pub(super) async fn read_all(
    connection: &mut PgConnection,
) -> Result<BTreeMap<ConversationId, Conversation>, sqlx::Error> {
    let rows = rows_where!("").fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((ConversationId(row.conversation_id), row.read()?))).collect()
}

/// A row as read by the driver.
struct ConversationRow {
    conversation_id: Uuid,
    user_id: String,
    created_at: OffsetDateTime,
    last_message_at: OffsetDateTime,
    title: Option<String>,
    title_chat_id: Option<Uuid>,
    model: Option<String>,
    temperature: Option<f64>,
    settings_chat_id: Option<Uuid>,
    message_count: i64,
    total_tokens: i64,
    estimated_total_tokens: i64,
    title_change_id: Option<Uuid>,
    archived: bool,
    archive_change_id: Option<Uuid>,
    deleted_at: Option<OffsetDateTime>,
}

impl ConversationRow {
    fn read(self) -> Result<Conversation, UnreadableColumn> {
        let Self { model, temperature, settings_chat_id, .. } = self;
        let any = settings_chat_id.is_some() || model.is_some() || temperature.is_some();
        Ok(Conversation {
            conversation_id: ConversationId(self.conversation_id),
            user_id: user_id(self.user_id)?,
            created_at: utc(self.created_at),
            last_message_at: utc(self.last_message_at),
            title: self.title.map(|text| Title {
                origin: TitleOrigin::from_columns(self.title_chat_id, self.title_change_id),
                text,
            }),
            archive: self.archive_change_id.map(|id| ArchiveState { change_id: ChangeId(id), archived: self.archived }),
            deleted_at: self.deleted_at.map(utc),
            settings: any.then_some(ConversationSettings { chat_id: settings_chat_id.map(ChatId), model, temperature }),
            totals: ConversationTotals {
                messages: self.message_count,
                total_tokens: self.total_tokens,
                estimated_total_tokens: self.estimated_total_tokens,
            },
        })
    }
}
