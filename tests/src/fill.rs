//! Fills the tables with as many rows as a deployment has after some weeks, for tests and measurements of reads. The rows stem
//! from no events; only shape and size are realistic.

use sqlx::{AssertSqlSafe, PgPool};

/// Inserts rows for `users` users with `chats` chats each: two messages for each chat, ten chats for each conversation, spread
/// over the last 60 days.
pub async fn fill(pool: &PgPool, users: u32, chats: u32) -> anyhow::Result<()> {
    let each = "FROM generate_series(1, $USERS) AS u, generate_series(1, $CHATS) AS n";
    // The ids ascend with time, like the ids that gateways create.
    let id = |salt: &str, number: &str| {
        format!(
            "(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' ||
              substr(md5({salt} || u || '-' || {number}), 1, 3) || '8' || substr(md5({salt} || u || '/' || {number}), 1, 15))::uuid"
        )
    };
    let at = "now() - interval '60 days' * (1 - n::double precision / ($CHATS + 1)) + interval '1 second' * (u % 600)";
    let chat = id("'chat'", "n");
    let conversation = "(substr(md5('conversation' || u || '-' || n / 10), 1, 12) || '8' || substr(md5('c' || u || '-' || n / 10), 1, 3)
              || '8' || substr(md5('d' || u || '-' || n / 10), 1, 15))::uuid";
    let model = "'model-' || n % 3";
    let statements = [
        format!(
            "INSERT INTO conversations (conversation_id, user_id, created_at, last_message_at, title, model, message_count,
                 total_tokens, estimated_total_tokens)
             SELECT {conversation}, 'user ' || u, min({at}), max({at}), 'conversation ' || n / 10, 'model-0', 20, 100, 0
             {each} GROUP BY u, n / 10"
        ),
        format!(
            "INSERT INTO chats (chat_id, conversation_id, user_id, gateway, model, started_at, status, request_digest,
                 conversation_origin, dialect, stream, has_user_message, ending_digest, finished_at, has_assistant_message,
                 stage, error_message, attempts, duration_ms, usage_source, prompt_tokens, completion_tokens, total_tokens,
                 uncached_input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, notes)
             SELECT {chat}, {conversation}, 'user ' || u, 'gateway', {model}, at,
                    CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END, 1, 'minted', 'openai_chat', true, true, 1,
                    at + interval '2 seconds', true, CASE WHEN n % 50 = 0 THEN 'upstream_stream' END,
                    CASE WHEN n % 50 = 0 THEN 'broke' END, '[]', 2000, 'reported', 5, 5, 10, 5, 0, 0, 5, 0, '[]'
             FROM (SELECT u, n, {at} AS at {each}) rows"
        ),
        format!(
            "INSERT INTO messages (message_id, conversation_id, chat_id, position, user_id, role, status, content, model, created_at)
             SELECT md5('message' || u || '-' || n || '-' || position)::uuid, {conversation}, {chat}, position, 'user ' || u,
                    CASE position WHEN 0 THEN 'user' ELSE 'assistant' END, 'complete',
                    'message ' || n || ' ' || repeat('some words of an answer ', 12), {model}, at
             FROM (SELECT u, n, {at} AS at, position::smallint {each}, generate_series(0, 1) AS position) rows"
        ),
        "INSERT INTO usage_slots
         SELECT user_id, date_bin('15 minutes', started_at, '2000-01-01 00:00+00'), model, count(*),
                count(*) FILTER (WHERE stage IS NULL), count(*) FILTER (WHERE stage IS NOT NULL), 5 * count(*), 5 * count(*),
                10 * count(*), 0, 0, 0, 2 * count(*), 0
         FROM chats GROUP BY 1, 2, 3"
            .to_owned(),
        "INSERT INTO usage_stats
         SELECT user_id, (slot_at AT TIME ZONE 'UTC')::date, sum(api_calls), sum(successful_calls), sum(failed_calls),
                sum(prompt_tokens), sum(completion_tokens), sum(total_tokens), 0, 0, 0, sum(messages_created), 0
         FROM usage_slots GROUP BY 1, 2"
            .to_owned(),
        "INSERT INTO users (user_id, name, created_at) SELECT 'user ' || u, 'name ' || u, now() FROM generate_series(1, $USERS) AS u"
            .to_owned(),
    ];
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql("SET statement_timeout = 0").execute(&mut *connection).await?;
    // All statements run in one transaction, so that now(), from which the ids are made, is the same in each.
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    for statement in statements {
        let statement = statement.replace("$USERS", &users.to_string()).replace("$CHATS", &chats.to_string());
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
    // Index-only scans need the visibility map, and the planner needs the statistics.
    sqlx::raw_sql("VACUUM ANALYZE").execute(&mut *connection).await?;
    connection.close().await?;
    Ok(())
}
