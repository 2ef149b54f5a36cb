//! Queries for usage, from the tables `usage_stats` (by UTC day), `usage_slots` (by quarter of an hour), `operation_slots` (calls
//! that are no chats) and `key_slots` (calls with an API key).

use sqlx::PgPool;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::projection::usage_stats::UsageTotals;

/// The grouping of usage within a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageGroup {
    /// No grouping, a single sum.
    None,
    /// By the model that the client requested.
    Model,
    /// By the user, for admins.
    User,
    /// By the kind of the call.
    Operation,
    /// By the API key; usage with session tokens has no key.
    Key,
    /// By the project of the API key.
    Project,
}

/// The calls whose usage is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// The calls of all users.
    All,
    /// The calls of one user.
    User(&'a str),
    /// The calls with the keys of one project. They cannot be grouped by operation.
    Project(Uuid),
}

/// The usage in a bucket of a range, for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The index of the bucket in the range, starting at 0.
    pub bucket: usize,
    /// The model, user, operation, API key or project; `None` without grouping, and for usage that has none.
    pub key: Option<String>,
    /// The sums of calls, tokens, messages and conversations.
    pub counts: UsageTotals,
}

/// The maximum number of keys in a result: the keys with the most tokens, then calls. [`OTHER_KEY`] sums up the
/// remaining keys.
const MAX_KEYS: i64 = 100;

/// The key for the sum of all keys beyond the first 100.
pub const OTHER_KEY: &str = "other";

/// Returns a user's usage by UTC day, starting at `from`. Days without usage are left out. At most 400 days.
pub async fn days(pool: &PgPool, user: &str, from: Date) -> Result<Vec<(Date, UsageTotals)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT date, api_calls, successful_calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
                estimated_prompt_tokens, estimated_completion_tokens, estimated_total_tokens, messages_created,
                conversations_created,
                cost_nanodollars, estimated_cost_nanodollars, provider_cost_nanodollars, unpriced_calls
         FROM usage_stats WHERE user_id = $1 AND date >= $2 ORDER BY date LIMIT 400",
        user,
        from
    );
    let rows = rows.fetch_all(pool).await?.into_iter().map(|row| {
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
        (row.date, counts)
    });
    Ok(rows.collect())
}

/// Returns the usage of a user, of a project, or of all users, in consecutive buckets. `starts` holds the start of each bucket, and
/// `end` is the end of the last bucket.
pub async fn bucket_totals(
    pool: &PgPool,
    whose: Whose<'_>,
    (starts, end): (&[OffsetDateTime], OffsetDateTime),
    group: UsageGroup,
) -> Result<Vec<UsageRow>, sqlx::Error> {
    let Some(start) = starts.first() else { return Ok(Vec::new()) };
    let group = match group {
        UsageGroup::None => "none",
        UsageGroup::Model => "model",
        UsageGroup::User => "user",
        UsageGroup::Operation => "operation",
        UsageGroup::Key => "key",
        UsageGroup::Project => "project",
    };
    macro_rules! sums_where {
        ($source:tt, $condition:tt, $user:expr) => {
            sqlx::query_as!(
                SumRow,
                r#"WITH cut AS MATERIALIZED (
                       SELECT width_bucket(slot_at, $1::timestamptz[]) - 1 AS piece,
                              CASE $2::text WHEN 'model' THEN model WHEN 'user' THEN user_id
                                                  WHEN 'operation' THEN operation WHEN 'key' THEN key_id
                                                  WHEN 'project' THEN project_id ELSE '' END AS key,
                              sum(api_calls) AS api_calls, sum(successful_calls) AS successful_calls,
                              sum(failed_calls) AS failed_calls, sum(prompt_tokens) AS prompt_tokens,
                              sum(completion_tokens) AS completion_tokens, sum(total_tokens) AS total_tokens,
                              sum(estimated_prompt_tokens) AS estimated_prompt_tokens,
                              sum(estimated_completion_tokens) AS estimated_completion_tokens,
                              sum(estimated_total_tokens) AS estimated_total_tokens,
                              sum(messages_created) AS messages_created,
                              sum(conversations_created) AS conversations_created,
                              sum(cost_nanodollars) AS cost_nanodollars,
                              sum(estimated_cost_nanodollars) AS estimated_cost_nanodollars,
                              sum(provider_cost_nanodollars) AS provider_cost_nanodollars,
                              sum(unpriced_calls) AS unpriced_calls
                       FROM "# + $source + r#"
                       WHERE slot_at >= $3 AND slot_at < $4 AND "# + $condition + r#"
                       GROUP BY 1, 2),
                   top AS (
                       SELECT key FROM cut GROUP BY key
                       ORDER BY sum(total_tokens) + sum(estimated_total_tokens) DESC, sum(api_calls) DESC, key
                       LIMIT $6)
                   SELECT piece AS "piece!", NULLIF(CASE WHEN top.key IS NULL THEN 'other' ELSE top.key END, '') AS key,
                          sum(api_calls)::bigint AS "api_calls!", sum(successful_calls)::bigint AS "successful_calls!",
                          sum(failed_calls)::bigint AS "failed_calls!", sum(prompt_tokens)::bigint AS "prompt_tokens!",
                          sum(completion_tokens)::bigint AS "completion_tokens!",
                          sum(total_tokens)::bigint AS "total_tokens!",
                          sum(estimated_prompt_tokens)::bigint AS "estimated_prompt_tokens!",
                          sum(estimated_completion_tokens)::bigint AS "estimated_completion_tokens!",
                          sum(estimated_total_tokens)::bigint AS "estimated_total_tokens!",
                          sum(messages_created)::bigint AS "messages_created!",
                          sum(conversations_created)::bigint AS "conversations_created!",
                          sum(cost_nanodollars)::bigint AS "cost_nanodollars!",
                          sum(estimated_cost_nanodollars)::bigint AS "estimated_cost_nanodollars!",
                          sum(provider_cost_nanodollars)::bigint AS "provider_cost_nanodollars!",
                          sum(unpriced_calls)::bigint AS "unpriced_calls!"
                   FROM cut LEFT JOIN top USING (key)
                   GROUP BY 1, 2
                   HAVING sum(api_calls) <> 0 OR sum(messages_created) <> 0 OR sum(conversations_created) <> 0
                   ORDER BY 1, 2"#,
                starts,
                group,
                start,
                end,
                $user,
                MAX_KEYS
            )
            .fetch_all(pool)
            .await?
        };
    }
    // `usage_slots` counts all calls, `operation_slots` the calls that are no chats, and `key_slots` the calls with an API key. The
    // other calls are the difference.
    macro_rules! sums {
        ($condition:tt, $user:expr) => {
            match group {
                "operation" => sums_where!(
                    "(SELECT user_id, slot_at, model, 'chat' AS operation, '' AS key_id, '' AS project_id, api_calls, successful_calls, failed_calls,
                             prompt_tokens, completion_tokens, total_tokens, estimated_prompt_tokens,
                             estimated_completion_tokens, estimated_total_tokens, messages_created,
                             conversations_created, cost_nanodollars, estimated_cost_nanodollars,
                             provider_cost_nanodollars, unpriced_calls
                      FROM usage_slots
                      UNION ALL
                      SELECT user_id, slot_at, model, 'chat', '', '', -api_calls, -successful_calls, -failed_calls,
                             -prompt_tokens, -completion_tokens, -total_tokens, -estimated_prompt_tokens,
                             -estimated_completion_tokens, -estimated_total_tokens, -messages_created,
                             -conversations_created, -cost_nanodollars, -estimated_cost_nanodollars,
                             -provider_cost_nanodollars, -unpriced_calls
                      FROM operation_slots
                      UNION ALL
                      SELECT user_id, slot_at, model, operation, '', '', api_calls, successful_calls, failed_calls,
                             prompt_tokens, completion_tokens, total_tokens, estimated_prompt_tokens,
                             estimated_completion_tokens, estimated_total_tokens, messages_created,
                             conversations_created, cost_nanodollars, estimated_cost_nanodollars,
                             provider_cost_nanodollars, unpriced_calls
                      FROM operation_slots) slots",
                    $condition,
                    $user
                ),
                "key" | "project" => sums_where!(
                    "(SELECT user_id, slot_at, model, '' AS operation, '' AS key_id, '' AS project_id, api_calls, successful_calls, failed_calls,
                             prompt_tokens, completion_tokens, total_tokens, estimated_prompt_tokens,
                             estimated_completion_tokens, estimated_total_tokens, messages_created,
                             conversations_created, cost_nanodollars, estimated_cost_nanodollars,
                             provider_cost_nanodollars, unpriced_calls
                      FROM usage_slots
                      UNION ALL
                      SELECT user_id, slot_at, model, '', '', '', -api_calls, -successful_calls, -failed_calls,
                             -prompt_tokens, -completion_tokens, -total_tokens, -estimated_prompt_tokens,
                             -estimated_completion_tokens, -estimated_total_tokens, -messages_created,
                             -conversations_created, -cost_nanodollars, -estimated_cost_nanodollars,
                             -provider_cost_nanodollars, -unpriced_calls
                      FROM key_slots
                      UNION ALL
                      SELECT user_id, slot_at, model, '', key_id::text,
                             COALESCE(NULLIF(project_id, '00000000-0000-0000-0000-000000000000')::text, ''),
                             api_calls, successful_calls, failed_calls,
                             prompt_tokens, completion_tokens, total_tokens, estimated_prompt_tokens,
                             estimated_completion_tokens, estimated_total_tokens, messages_created,
                             conversations_created, cost_nanodollars, estimated_cost_nanodollars,
                             provider_cost_nanodollars, unpriced_calls
                      FROM key_slots) slots",
                    $condition,
                    $user
                ),
                _ => sums_where!(
                    "(SELECT *, '' AS operation, '' AS key_id, '' AS project_id FROM usage_slots) slots",
                    $condition,
                    $user
                ),
            }
        };
    }
    let rows = match whose {
        Whose::User(user) => sums!("user_id = $5", user),
        // The statement has to contain `$5`. The condition is true for every user.
        Whose::All => sums!("$5::text IS NULL", None::<&str>),
        Whose::Project(project) => sums_where!(
            "(SELECT user_id, slot_at, model, '' AS operation, key_id::text AS key_id, project_id AS project,
                     '' AS project_id, api_calls, successful_calls, failed_calls,
                     prompt_tokens, completion_tokens, total_tokens, estimated_prompt_tokens,
                     estimated_completion_tokens, estimated_total_tokens, messages_created,
                     conversations_created, cost_nanodollars, estimated_cost_nanodollars,
                     provider_cost_nanodollars, unpriced_calls
              FROM key_slots) slots",
            "project = $5",
            project
        ),
    };
    Ok(rows.into_iter().map(SumRow::read).collect())
}

struct SumRow {
    piece: i32,
    key: Option<String>,
    api_calls: i64,
    successful_calls: i64,
    failed_calls: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
    estimated_prompt_tokens: i64,
    estimated_completion_tokens: i64,
    estimated_total_tokens: i64,
    messages_created: i64,
    conversations_created: i64,
    cost_nanodollars: i64,
    estimated_cost_nanodollars: i64,
    provider_cost_nanodollars: i64,
    unpriced_calls: i64,
}

impl SumRow {
    fn read(self) -> UsageRow {
        let counts = UsageTotals {
            api_calls: self.api_calls,
            successful_calls: self.successful_calls,
            failed_calls: self.failed_calls,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: self.total_tokens,
            estimated_prompt_tokens: self.estimated_prompt_tokens,
            estimated_completion_tokens: self.estimated_completion_tokens,
            estimated_total_tokens: self.estimated_total_tokens,
            messages_created: self.messages_created,
            conversations_created: self.conversations_created,
            cost_nanodollars: self.cost_nanodollars,
            estimated_cost_nanodollars: self.estimated_cost_nanodollars,
            provider_cost_nanodollars: self.provider_cost_nanodollars,
            unpriced_calls: self.unpriced_calls,
        };
        UsageRow { bucket: usize::try_from(self.piece).unwrap_or(0), key: self.key, counts }
    }
}
