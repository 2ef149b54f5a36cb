//! Statements for the `usage_stats` table.

use std::collections::BTreeMap;

use shared::id::UserId;
use sqlx::PgConnection;
use time::Date;

use super::read::user_id;
use super::write::column;
use crate::projection::usage_stats::{UsageChanges, UsageTotals};

/// The key of a row and the change of the row.
type ChangedDay<'a> = (&'a (UserId, Date), &'a UsageTotals);

/// Adds the changes to the rows, in key order, each row once. Rows left with only zeros are deleted.
pub(super) async fn add(tx: &mut PgConnection, changes: &UsageChanges) -> Result<(), sqlx::Error> {
    let changes: Vec<ChangedDay<'_>> = changes.days().collect();
    if changes.is_empty() {
        return Ok(());
    }
    let rows = &changes.iter().collect::<Vec<&ChangedDay<'_>>>()[..];
    sqlx::query!(
        "INSERT INTO usage_stats (
             user_id, date,
             api_calls, successful_calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
             estimated_prompt_tokens, estimated_completion_tokens, estimated_total_tokens, messages_created,
             conversations_created,
             cost_nanodollars, estimated_cost_nanodollars, provider_cost_nanodollars, unpriced_calls)
         SELECT
                     UNNEST($1::text[]) AS user_id, UNNEST($2::date[]) AS date, UNNEST($3::bigint[]) AS api_calls,
                     UNNEST($4::bigint[]) AS successful_calls, UNNEST($5::bigint[]) AS failed_calls,
                     UNNEST($6::bigint[]) AS prompt_tokens, UNNEST($7::bigint[]) AS completion_tokens,
                     UNNEST($8::bigint[]) AS total_tokens, UNNEST($9::bigint[]) AS estimated_prompt_tokens,
                     UNNEST($10::bigint[]) AS estimated_completion_tokens,
                     UNNEST($11::bigint[]) AS estimated_total_tokens, UNNEST($12::bigint[]) AS messages_created,
                     UNNEST($13::bigint[]) AS conversations_created,
             UNNEST($14::bigint[]) AS cost_nanodollars, UNNEST($15::bigint[]) AS estimated_cost_nanodollars,
             UNNEST($16::bigint[]) AS provider_cost_nanodollars, UNNEST($17::bigint[]) AS unpriced_calls
         ON CONFLICT (user_id, date) DO UPDATE SET
             api_calls = usage_stats.api_calls + EXCLUDED.api_calls,
             successful_calls = usage_stats.successful_calls + EXCLUDED.successful_calls,
             failed_calls = usage_stats.failed_calls + EXCLUDED.failed_calls,
             prompt_tokens = usage_stats.prompt_tokens + EXCLUDED.prompt_tokens,
             completion_tokens = usage_stats.completion_tokens + EXCLUDED.completion_tokens,
             total_tokens = usage_stats.total_tokens + EXCLUDED.total_tokens,
             estimated_prompt_tokens = usage_stats.estimated_prompt_tokens + EXCLUDED.estimated_prompt_tokens,
             estimated_completion_tokens = usage_stats.estimated_completion_tokens + EXCLUDED.estimated_completion_tokens,
             estimated_total_tokens = usage_stats.estimated_total_tokens + EXCLUDED.estimated_total_tokens,
             messages_created = usage_stats.messages_created + EXCLUDED.messages_created,
             conversations_created = usage_stats.conversations_created + EXCLUDED.conversations_created,
             cost_nanodollars = usage_stats.cost_nanodollars + EXCLUDED.cost_nanodollars,
             estimated_cost_nanodollars = usage_stats.estimated_cost_nanodollars + EXCLUDED.estimated_cost_nanodollars,
             provider_cost_nanodollars = usage_stats.provider_cost_nanodollars + EXCLUDED.provider_cost_nanodollars,
             unpriced_calls = usage_stats.unpriced_calls + EXCLUDED.unpriced_calls",
        &column(rows, |((user, _), _)| user.as_str()) as _,
        &column(rows, |((_, date), _)| *date) as _,
        &column(rows, |(_, c)| c.api_calls) as _,
        &column(rows, |(_, c)| c.successful_calls) as _,
        &column(rows, |(_, c)| c.failed_calls) as _,
        &column(rows, |(_, c)| c.prompt_tokens) as _,
        &column(rows, |(_, c)| c.completion_tokens) as _,
        &column(rows, |(_, c)| c.total_tokens) as _,
        &column(rows, |(_, c)| c.estimated_prompt_tokens) as _,
        &column(rows, |(_, c)| c.estimated_completion_tokens) as _,
        &column(rows, |(_, c)| c.estimated_total_tokens) as _,
        &column(rows, |(_, c)| c.messages_created) as _,
        &column(rows, |(_, c)| c.conversations_created) as _,
        &column(rows, |(_, c)| c.cost_nanodollars) as _,
        &column(rows, |(_, c)| c.estimated_cost_nanodollars) as _,
        &column(rows, |(_, c)| c.provider_cost_nanodollars) as _,
        &column(rows, |(_, c)| c.unpriced_calls) as _
    )
    .execute(&mut *tx)
    .await?;

    let decreased: Vec<&ChangedDay<'_>> = rows.iter().copied().filter(|(_, counts)| counts.has_negative()).collect();
    if decreased.is_empty() {
        return Ok(());
    }
    // A row with only zeros would depend on the order of events: in another order, the row would never have been
    // inserted.
    sqlx::query!(
        "DELETE FROM usage_stats
         WHERE (user_id, date) IN (SELECT * FROM UNNEST($1::text[], $2::date[]))
           AND api_calls = 0
           AND successful_calls = 0
           AND failed_calls = 0
           AND prompt_tokens = 0
           AND completion_tokens = 0
           AND total_tokens = 0
           AND estimated_prompt_tokens = 0
           AND estimated_completion_tokens = 0
           AND estimated_total_tokens = 0
           AND messages_created = 0
           AND conversations_created = 0
           AND cost_nanodollars = 0
           AND estimated_cost_nanodollars = 0
           AND provider_cost_nanodollars = 0
           AND unpriced_calls = 0",
        &column(&decreased, |((user, _), _)| user.as_str()) as _,
        &column(&decreased, |((_, date), _)| *date) as _
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Reads all rows of the table.
pub(super) async fn read_all(
    connection: &mut PgConnection,
) -> Result<BTreeMap<(UserId, Date), UsageTotals>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT
             user_id, date,
             api_calls, successful_calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
             estimated_prompt_tokens, estimated_completion_tokens, estimated_total_tokens, messages_created,
             conversations_created,
             cost_nanodollars, estimated_cost_nanodollars, provider_cost_nanodollars, unpriced_calls
         FROM usage_stats"
    );
    let rows = rows.fetch_all(connection).await?;
    rows.into_iter()
        .map(|row| {
            let counts = UsageTotals {
                api_calls: row.api_calls,
                successful_calls: row.successful_calls,
                failed_calls: row.failed_calls,
                prompt_tokens: row.prompt_tokens,
                completion_tokens: row.completion_tokens,
                total_tokens: row.total_tokens,
                estimated_prompt_tokens: row.estimated_prompt_tokens,
                estimated_completion_tokens: row.estimated_completion_tokens,
                estimated_total_tokens: row.estimated_total_tokens,
                messages_created: row.messages_created,
                conversations_created: row.conversations_created,
                cost_nanodollars: row.cost_nanodollars,
                estimated_cost_nanodollars: row.estimated_cost_nanodollars,
                provider_cost_nanodollars: row.provider_cost_nanodollars,
                unpriced_calls: row.unpriced_calls,
            };
            Ok(((user_id(row.user_id)?, row.date), counts))
        })
        .collect()
}
