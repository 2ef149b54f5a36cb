//! Statements for the `chats` table.

use std::collections::{BTreeMap, BTreeSet};

use shared::event::{ChatError, FailureStage, UpstreamAnswer};
use shared::id::ChatId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::chat_row::ChatRow;
use super::write::{Jsonb, column, copy_rows};
use crate::projection::chat::{Chat, ChatEnding, ChatOutcome, ChatRequest, TokenUsage};
use crate::projection::chat_cost::CostOfChat;
use crate::projection::sql_enum::SqlEnum;

/// The columns written for each row.
const COLUMNS: &str = "chat_id, conversation_id, user_id, gateway, model, started_at, status, request_digest, \
     conversation_origin, client_thread_id, dialect, stream, temperature, has_user_message, ending_digest, finished_at, \
     has_assistant_message, stage, error_status, error_type, error_code, error_message, upstream_name, upstream_model, \
     upstream_response_id, attempts, time_to_first_token_ms, duration_ms, usage_source, prompt_tokens, completion_tokens, \
     total_tokens, uncached_input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, \
     usage_raw, notes, caller_metadata, new_messages, operation, media, key_id, project_id, \
     cost_nanodollars, cost_parts, price_version, priced_as, provider_cost_nanodollars, recording, \
     deferred_at, deferred_upstream, deferred_response_id";

/// The values of a row, in the order of [`COLUMNS`], each as a function of the row. The list is passed on to the macro
/// `$then!`.
macro_rules! values {
    ($then:ident $with:tt) => {
        $then! { $with
            |c| c.chat_id.0,
            |c| c.conversation_id.map(|id| id.0),
            |c| c.user_id.as_str(),
            |c| c.gateway.as_str(),
            |c| c.model.as_str(),
            |c| c.started_at,
            |c| c.status(),
            |c| Some(request(c)?.digest),
            |c| request(c)?.origin.as_ref().map(SqlEnum::as_sql),
            |c| request(c)?.client_thread_id.as_deref(),
            |c| Some(request(c)?.dialect.as_sql()),
            |c| Some(request(c)?.stream),
            |c| request(c)?.temperature,
            |c| request(c).is_some_and(|r| r.new_messages > 0),
            |c| Some(ending(c)?.digest),
            |c| Some(ending(c)?.finished_at),
            |c| ending(c).is_some_and(|e| e.has_message),
            |c| Some(failure(c)?.0.as_sql()),
            |c| failure(c)?.1.status.map(i32::from),
            |c| failure(c)?.1.kind.as_deref(),
            |c| failure(c)?.1.code.as_deref(),
            |c| Some(failure(c)?.1.message.as_str()),
            |c| Some(upstream(c)?.name.as_str()),
            |c| upstream(c)?.model.as_deref(),
            |c| upstream(c)?.response_id.as_deref(),
            |c| Some(Jsonb(&ending(c)?.attempts)),
            |c| ending(c)?.time_to_first_token_ms,
            |c| Some(ending(c)?.duration_ms),
            |c| Some(usage(c)?.source.as_sql()),
            |c| usage(c)?.prompt_tokens,
            |c| usage(c)?.completion_tokens,
            |c| usage(c)?.total_tokens,
            |c| Some(usage(c)?.parts.uncached_input),
            |c| Some(usage(c)?.parts.cache_read),
            |c| Some(usage(c)?.parts.cache_write),
            |c| Some(usage(c)?.parts.output),
            |c| Some(usage(c)?.parts.reasoning),
            |c| usage(c)?.raw.as_ref().map(Jsonb),
            |c| Some(Jsonb(&ending(c)?.notes)),
            |c| request(c)?.caller_metadata.as_ref().map(Jsonb),
            |c| several(request(c)?.new_messages),
            |c| c.operation.as_str(),
            |c| ending(c)?.media.as_ref().map(Jsonb),
            |c| c.key_id.map(|id| id.0),
            |c| c.project_id.map(|id| id.0),
            |c| Some(cost(c)?.nanodollars),
            |c| Some(Jsonb(&cost(c)?.parts)),
            |c| Some(ending(c)?.pricing.as_ref()?.price_version.as_str()),
            |c| Some(cost(c)?.priced_as.as_str()),
            |c| ending(c)?.provider_cost_nanodollars,
            |c| c.recording.as_str(),
            |c| Some(c.deferral.as_ref()?.deferred_at),
            |c| Some(c.deferral.as_ref()?.upstream.as_str()),
            |c| Some(c.deferral.as_ref()?.response_id.as_str()),
        }
    };
}

/// A statement over whole rows: a head, the rows as one array parameter for each column, and a tail.
macro_rules! with_rows {
    ($head:tt, $tail:tt, $rows:expr) => {{
        let rows: &[&Chat] = $rows;
        values!(statement($head, $tail, rows))
    }};
}

macro_rules! statement {
    (($head:tt, $tail:tt, $rows:ident) $($value:expr,)*) => {
        sqlx::query!(
            $head
                + " FROM (SELECT
                     UNNEST($1::uuid[]) AS chat_id, UNNEST($2::uuid[]) AS conversation_id,
                     UNNEST($3::text[]) AS user_id, UNNEST($4::text[]) AS gateway, UNNEST($5::text[]) AS model,
                     UNNEST($6::timestamptz[]) AS started_at, UNNEST($7::text[]) AS status,
                     UNNEST($8::bigint[]) AS request_digest, UNNEST($9::text[]) AS conversation_origin,
                     UNNEST($10::text[]) AS client_thread_id, UNNEST($11::text[]) AS dialect,
                     UNNEST($12::boolean[]) AS stream, UNNEST($13::double precision[]) AS temperature,
                     UNNEST($14::boolean[]) AS has_user_message, UNNEST($15::bigint[]) AS ending_digest,
                     UNNEST($16::timestamptz[]) AS finished_at, UNNEST($17::boolean[]) AS has_assistant_message,
                     UNNEST($18::text[]) AS stage, UNNEST($19::integer[]) AS error_status,
                     UNNEST($20::text[]) AS error_type, UNNEST($21::text[]) AS error_code,
                     UNNEST($22::text[]) AS error_message, UNNEST($23::text[]) AS upstream_name,
                     UNNEST($24::text[]) AS upstream_model, UNNEST($25::text[]) AS upstream_response_id,
                     UNNEST($26::jsonb[]) AS attempts, UNNEST($27::bigint[]) AS time_to_first_token_ms,
                     UNNEST($28::bigint[]) AS duration_ms, UNNEST($29::text[]) AS usage_source,
                     UNNEST($30::bigint[]) AS prompt_tokens, UNNEST($31::bigint[]) AS completion_tokens,
                     UNNEST($32::bigint[]) AS total_tokens, UNNEST($33::bigint[]) AS uncached_input_tokens,
                     UNNEST($34::bigint[]) AS cache_read_tokens, UNNEST($35::bigint[]) AS cache_write_tokens,
                     UNNEST($36::bigint[]) AS output_tokens, UNNEST($37::bigint[]) AS reasoning_tokens,
                     UNNEST($38::jsonb[]) AS usage_raw, UNNEST($39::jsonb[]) AS notes,
                     UNNEST($40::jsonb[]) AS caller_metadata, UNNEST($41::smallint[]) AS new_messages,
                     UNNEST($42::text[]) AS operation, UNNEST($43::jsonb[]) AS media,
                     UNNEST($44::uuid[]) AS key_id, UNNEST($45::uuid[]) AS project_id,
                     UNNEST($46::bigint[]) AS cost_nanodollars, UNNEST($47::jsonb[]) AS cost_parts,
                     UNNEST($48::text[]) AS price_version, UNNEST($49::text[]) AS priced_as,
                     UNNEST($50::bigint[]) AS provider_cost_nanodollars, UNNEST($51::text[]) AS recording,
                     UNNEST($52::timestamptz[]) AS deferred_at, UNNEST($53::text[]) AS deferred_upstream,
                     UNNEST($54::text[]) AS deferred_response_id) AS new "
                + $tail,
            $(&column($rows, $value) as _),*
        )
    };
}

/// A query for whole rows; `$tail` follows the table's name.
macro_rules! rows_where {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            ChatRow,
            "SELECT
             chat_id, conversation_id, user_id, gateway, model, started_at, request_digest, conversation_origin,
             client_thread_id, dialect, stream, temperature, has_user_message, ending_digest, finished_at,
             has_assistant_message, stage, error_status, error_type, error_code, error_message, upstream_name,
             upstream_model, upstream_response_id, attempts::text AS attempts, time_to_first_token_ms,
             duration_ms, usage_source, prompt_tokens, completion_tokens, total_tokens, uncached_input_tokens,
             cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
             usage_raw::text AS usage_raw, notes::text AS notes,
             caller_metadata::text AS caller_metadata, new_messages, operation, media::text AS media,
             key_id, project_id, cost_nanodollars, cost_parts::text AS cost_parts, price_version, priced_as,
             provider_cost_nanodollars, recording, deferred_at, deferred_upstream, deferred_response_id
             FROM chats " + $tail
            $(, $argument)*
        )
    };
}

/// Inserts the rows that do not exist yet and returns the keys of these rows. Waits for another transaction that is
/// inserting the same row.
pub(super) async fn insert(tx: &mut PgConnection, rows: &[&Chat]) -> Result<BTreeSet<ChatId>, sqlx::Error> {
    let inserted = with_rows!(
        "INSERT INTO chats (
             chat_id, conversation_id, user_id, gateway, model, started_at, status, request_digest,
             conversation_origin, client_thread_id, dialect, stream, temperature, has_user_message,
             ending_digest, finished_at, has_assistant_message, stage, error_status, error_type, error_code,
             error_message, upstream_name, upstream_model, upstream_response_id, attempts,
             time_to_first_token_ms, duration_ms, usage_source, prompt_tokens, completion_tokens, total_tokens,
             uncached_input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
             usage_raw, notes, caller_metadata, new_messages, operation, media, key_id, project_id,
             cost_nanodollars, cost_parts, price_version, priced_as, provider_cost_nanodollars,
             recording, deferred_at, deferred_upstream, deferred_response_id)
         SELECT
             chat_id, conversation_id, user_id, gateway, model, started_at, status, request_digest,
             conversation_origin, client_thread_id, dialect, stream, temperature, has_user_message,
             ending_digest, finished_at, has_assistant_message, stage, error_status, error_type, error_code,
             error_message, upstream_name, upstream_model, upstream_response_id, attempts,
             time_to_first_token_ms, duration_ms, usage_source, prompt_tokens, completion_tokens, total_tokens,
             uncached_input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
             usage_raw, notes, caller_metadata, new_messages, operation, media, key_id, project_id,
             cost_nanodollars, cost_parts, price_version, priced_as, provider_cost_nanodollars,
             recording, deferred_at, deferred_upstream, deferred_response_id",
        "ON CONFLICT (chat_id) DO NOTHING
         RETURNING chat_id",
        rows
    );
    Ok(inserted.fetch_all(tx).await?.into_iter().map(|row| ChatId(row.chat_id)).collect())
}

/// Inserts new rows by COPY. The table must have no other writer, because COPY fails on existing rows.
pub(super) async fn copy_in(tx: &mut PgConnection, rows: &[&Chat]) -> Result<(), sqlx::Error> {
    values!(copy_rows(tx, "chats", COLUMNS, rows))
}

/// Reads and locks rows for update, in key order. Missing rows are left out.
pub(super) async fn lock(tx: &mut PgConnection, ids: &[Uuid]) -> Result<BTreeMap<ChatId, Chat>, sqlx::Error> {
    let rows = rows_where!("WHERE chat_id = ANY($1) ORDER BY chat_id FOR UPDATE", ids).fetch_all(tx).await?;
    rows.into_iter().map(|row| Ok((ChatId(row.chat_id), row.read()?))).collect()
}

/// Updates rows; the rows must exist and be locked by this transaction.
pub(super) async fn update(tx: &mut PgConnection, rows: &[&Chat]) -> Result<(), sqlx::Error> {
    let update = with_rows!(
        "UPDATE chats SET
             conversation_id = new.conversation_id, user_id = new.user_id, gateway = new.gateway,
             model = new.model, started_at = new.started_at, status = new.status,
             request_digest = new.request_digest, conversation_origin = new.conversation_origin,
             client_thread_id = new.client_thread_id, dialect = new.dialect, stream = new.stream,
             temperature = new.temperature, has_user_message = new.has_user_message,
             ending_digest = new.ending_digest, finished_at = new.finished_at,
             has_assistant_message = new.has_assistant_message, stage = new.stage,
             error_status = new.error_status, error_type = new.error_type, error_code = new.error_code,
             error_message = new.error_message, upstream_name = new.upstream_name,
             upstream_model = new.upstream_model, upstream_response_id = new.upstream_response_id,
             attempts = new.attempts, time_to_first_token_ms = new.time_to_first_token_ms,
             duration_ms = new.duration_ms, usage_source = new.usage_source, prompt_tokens = new.prompt_tokens,
             completion_tokens = new.completion_tokens, total_tokens = new.total_tokens,
             uncached_input_tokens = new.uncached_input_tokens, cache_read_tokens = new.cache_read_tokens,
             cache_write_tokens = new.cache_write_tokens, output_tokens = new.output_tokens,
             reasoning_tokens = new.reasoning_tokens, usage_raw = new.usage_raw, notes = new.notes,
             caller_metadata = new.caller_metadata, new_messages = new.new_messages, operation = new.operation,
             media = new.media, key_id = new.key_id, project_id = new.project_id,
             cost_nanodollars = new.cost_nanodollars, cost_parts = new.cost_parts,
             price_version = new.price_version, priced_as = new.priced_as,
             provider_cost_nanodollars = new.provider_cost_nanodollars, recording = new.recording,
             deferred_at = new.deferred_at, deferred_upstream = new.deferred_upstream,
             deferred_response_id = new.deferred_response_id",
        "WHERE chats.chat_id = new.chat_id",
        rows
    );
    update.execute(tx).await?;
    Ok(())
}

/// Reads rows without a lock. Missing rows are left out.
pub(super) async fn by_ids(connection: &mut PgConnection, ids: &[Uuid]) -> Result<BTreeMap<ChatId, Chat>, sqlx::Error> {
    let rows = rows_where!("WHERE chat_id = ANY($1)", ids).fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((ChatId(row.chat_id), row.read()?))).collect()
}

/// Reads all rows of the table.
pub(super) async fn read_all(connection: &mut PgConnection) -> Result<BTreeMap<ChatId, Chat>, sqlx::Error> {
    let rows = rows_where!("").fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((ChatId(row.chat_id), row.read()?))).collect()
}

/// The value of the column `new_messages`. For none and for one message, `has_user_message` says the number, so that a row is the
/// same as that of a recorder without the column.
fn several(new_messages: u16) -> Option<i16> {
    i16::try_from(new_messages).ok().filter(|number| *number > 1)
}

fn request(chat: &Chat) -> Option<&ChatRequest> {
    chat.request.as_ref()
}

fn ending(chat: &Chat) -> Option<&ChatEnding> {
    chat.ending.as_ref()
}

fn usage(chat: &Chat) -> Option<&TokenUsage> {
    Some(&ending(chat)?.usage)
}

fn cost(chat: &Chat) -> Option<&CostOfChat> {
    ending(chat)?.pricing.as_ref()?.cost.as_ref()
}

fn upstream(chat: &Chat) -> Option<&UpstreamAnswer> {
    ending(chat)?.upstream.as_ref()
}

fn failure(chat: &Chat) -> Option<(&FailureStage, &ChatError)> {
    match &ending(chat)?.outcome {
        ChatOutcome::Failed { stage, error } => Some((stage, error)),
        ChatOutcome::Completed => None,
    }
}
