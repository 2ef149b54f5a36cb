//! Metadata from callers can be searched, through the API and in SQL, with an index.

use harness::servers::Postgres;
use serde_json::{Value, json};
use shared::event::{Event, EventKind};
use sqlx::AssertSqlSafe;
use tests::stack::{MODEL, Stack, User};

use crate::rebuild::dump;

async fn chat(stack: &Stack, user: &User, said: &Value, tags: &str) -> anyhow::Result<String> {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}]});
    for (name, value) in said.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let request = stack.post("/v1/chat/completions").bearer_auth(&user.token).header("x-stenograph-tags", tags);
    let response = request.json(&body).send().await?;
    assert_eq!(response.status(), 200);
    let id = tests::stack::header(&response, "x-chat-id")?;
    response.bytes().await?;
    Ok(id)
}

async fn found(stack: &Stack, user: &User, query: &str) -> anyhow::Result<Vec<String>> {
    let list = stack.read(user, &format!("/api/chats?{query}")).await?;
    let ids = list["data"].as_array().into_iter().flatten().filter_map(|chat| chat["id"].as_str());
    Ok(ids.map(str::to_owned).collect())
}

#[tokio::test]
async fn finds_chats() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let deep: Value = serde_json::from_str(&format!("{{\"a\":{}{}}}", "[".repeat(110), "]".repeat(110)))?;
    let first = chat(&stack, &ann, &json!({"user": "u-1", "metadata": {"run": 7, "x": "a\0b"}}), "red, blue").await?;
    let second = chat(&stack, &ann, &json!({"user": "u\0", "metadata": deep}), "blue").await?;
    let third = chat(&stack, &ann, &json!({}), "").await?;
    let other = chat(&stack, &bob, &json!({}), "blue").await?;
    stack.settled().await?;

    assert_eq!(found(&stack, &ann, "tag=red").await?, std::slice::from_ref(&first));
    assert_eq!(
        found(&stack, &ann, "tag=blue").await?,
        [second.clone(), first.clone()],
        "expected only Ann's own chats"
    );
    assert_eq!(found(&stack, &bob, "tag=blue").await?, std::slice::from_ref(&other));
    assert_eq!(found(&stack, &ann, "tag=blue&callerUser=u-1").await?, std::slice::from_ref(&first));
    assert!(found(&stack, &ann, "tag=re").await?.is_empty());
    let one = stack.read(&ann, &format!("/api/chats/{first}")).await?;
    let expected = json!({"user": "u-1", "metadata": {"run": 7, "x": "a\\u0000b"}, "tags": ["red", "blue"]});
    assert_eq!(one["callerMetadata"], expected);
    let one = stack.read(&ann, &format!("/api/chats/{second}")).await?;
    assert_eq!(
        (&one["callerMetadata"]["user"], &one["callerMetadata"]["tags"]),
        (&json!("u\\u0000"), &json!(["blue"]))
    );
    assert!(
        one["callerMetadata"]["metadata"].is_string(),
        "a value that the tables cannot hold must be stored as text"
    );
    assert!(stack.read(&ann, &format!("/api/chats/{third}")).await?["callerMetadata"].is_null());

    let pool = stack.database().await?;
    let count = "SELECT count(*) FROM chats WHERE caller_metadata @> ";
    for (wanted, expected) in [(r#"{"tags":["blue"]}"#, 3), (r#"{"metadata":{"run":7}}"#, 1), (r#"{"user":"u-2"}"#, 0)]
    {
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!("{count}'{wanted}'"))).fetch_one(&pool).await?;
        assert_eq!(rows, expected, "{wanted}");
    }
    // With few rows the planner prefers a sequential scan; with sequential scans disabled the planner must use the
    // index.
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql("SET enable_seqscan = off").execute(&mut *connection).await?;
    let explain = format!("EXPLAIN {count}'{{\"tags\":[\"blue\"]}}'");
    let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut *connection).await?;
    assert!(plan.concat().contains("chats_by_caller_metadata"), "{plan:?}");

    // Tables rebuilt from the log, and an export, have the same metadata.
    let verified = stack.recorder.run(&["verify"]).await?;
    assert!(!verified.contains("differ") || verified.contains("0 differ"), "{verified}");
    let lines = stack.recorder.run(&["replay", "--kind", "started", "--fields", "data.caller_metadata.tags"]).await?;
    assert_eq!(lines.matches("blue").count(), 3, "{lines}");
    Ok(())
}

/// A start event that is read back from the database, because the end comes later, gives the same row as start and end in one
/// batch.
#[tokio::test]
async fn gives_the_same_numbers_for_any_batching_of_events() -> anyhow::Result<()> {
    let numbers = [
        "1e-999",
        "-1e-997",
        "1e-990",
        "1e308",
        "0.1e-500",
        "0e-999",
        "1e-10",
        "true",
        "1E+2",
        "1.7976931348623157e308",
    ];
    let mut dumps = Vec::new();
    for batch in [1, 2 * numbers.len()] {
        let url = Postgres::shared().await?.database().await?;
        let pool = recorder::store::connect(&url.into(), 1)?;
        recorder::store::migrate(&pool).await?;
        let mut events = Vec::new();
        for (n, number) in numbers.iter().enumerate() {
            let id = format!("01936b6e-2f00-7abc-8def-0000000000{n:02}");
            let ids = format!(
                r#""chat_id":"{id}","operation":"chat","conversation_id":"01936b6e-2f00-8784-a514-c19a14c72d61","user_id":"u","gateway":"g",
                   "model":"m","started_at":"2026-11-22T12:00:00Z""#
            );
            let started = format!(
                r#"{{{ids},"conversation_origin":"minted","dialect":"openai_chat","stream":true,"parameters":{{}},"messages":[],
                   "assistant_message_id":"{id}","caller_metadata":{{"user":"u-1","metadata":{{"x":{number}}}}}}}"#
            );
            let failed = format!(
                r#"{{{ids},"failed_at":"2026-11-22T12:00:01Z","stage":"upstream_stream","error":{{"message":"broke"}},
                   "usage":{{"source":"unknown","prompt_tokens":null,"completion_tokens":null,"total_tokens":null,
                   "parts":{{"uncached_input":0,"cache_read":0,"cache_write":0,"output":0,"reasoning":0}}}},
                   "duration_ms":1000,"attempts":[]}}"#
            );
            events.push(Event::decode(EventKind::ChatStarted, started.as_bytes())?);
            events.push(Event::decode(EventKind::ChatFailed, failed.as_bytes())?);
        }
        for events in events.chunks(batch) {
            recorder::store::apply(
                &pool,
                &mut recorder::projection::pricing::Prices::default(),
                recorder::projection::project(events),
                &[],
            )
            .await?;
        }
        let objects: i64 =
            sqlx::query_scalar("SELECT count(*) FROM chats WHERE caller_metadata @> '{\"user\":\"u-1\"}'")
                .fetch_one(&pool)
                .await?;
        assert_eq!(usize::try_from(objects)?, numbers.len(), "in batches of {batch}");
        dumps.push(dump(&pool, "public").await?);
    }
    assert_eq!(dumps[0], dumps[1]);
    Ok(())
}
