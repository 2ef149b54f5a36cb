//! Quarantine: an event that can never be projected is set aside whole and delays no other event; an event that is refused
//! today can be tried again later. An unavailable database is no reason for quarantine.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::Value;
use tests::stack::Stack;

async fn quarantined(stack: &Stack) -> anyhow::Result<Vec<Value>> {
    let lines = stack.recorder.run(&["quarantine", "list", "--json"]).await?;
    Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[tokio::test]
async fn takes_one_bad_event_out_of_a_batch_of_five_hundred() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.recorders.pop().unwrap().terminate(Duration::from_secs(60)).await?;
    // A check constraint makes PostgreSQL refuse one row because of its content, until the constraint is dropped.
    let pool = stack.database().await?;
    sqlx::raw_sql("ALTER TABLE messages ADD CONSTRAINT no_poison CHECK (content <> 'poison')").execute(&pool).await?;
    let chats = stream::iter(0..249).map(|n| {
        let (stack, ann) = (&stack, &ann);
        async move { stack.finished_chat(ann, &if n == 100 { "poison".to_owned() } else { n.to_string() }).await }
    });
    for result in chats.buffer_unordered(10).collect::<Vec<_>>().await {
        result?;
    }
    // An event of a later version, as a newer gateway would publish it.
    let jetstream = stack.jetstream().await?;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ce-type", "stenograph.ChatStarted.v9");
    headers.insert("ce-id", "future");
    let subject = format!("chats.started.{}", ann.id);
    let place =
        jetstream.publish_with_headers(subject.clone(), headers, "{\"a\":\"\0\"}".into()).await?.await?.sequence;
    assert_eq!(stack.events().await?, 499);

    stack.add_recorder().await?;
    stack.drained().await?;
    let counted: i64 = sqlx::query_scalar("SELECT sum(api_calls)::bigint FROM usage_stats").fetch_one(&pool).await?;
    assert_eq!(counted, 249, "the end of the chat with the bad start must be counted as well");
    let messages: i64 = sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&pool).await?;
    assert_eq!(messages, 2 * 249 - 1);

    let there = quarantined(&stack).await?;
    let reasons: Vec<_> = there.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(there.len(), 2, "{there:?}");
    let refused = &there[reasons.iter().position(|reason| *reason == "refused_by_database").unwrap()];
    let future = &there[reasons.iter().position(|reason| *reason == "undecodable").unwrap()];
    assert!(refused["detail"].as_str().unwrap().contains("no_poison"), "{refused}");
    let shown: Value = serde_json::from_str(&stack.recorder.run(&["quarantine", "show", "--json", id(future)]).await?)?;
    assert_eq!(shown["headers"]["ce-id"][0], "future");
    assert_eq!(shown["subject"], subject);
    assert_eq!(shown["payloadBase64"], "eyJhIjoiACJ9", "the quarantined payload must be complete");
    let shown = stack.recorder.run(&["quarantine", "show", id(refused)]).await?;
    assert!(
        shown.contains("ce-type") && !shown.contains("\"content\""),
        "expected no chat text without the option that shows it: {shown}"
    );
    let page = stack.recorder.run(&["quarantine", "list", "--limit", "1"]).await?;
    assert!(page.contains("1 shown, 2 in quarantine; the next: --after"), "{page}");

    // A retry fails while the constraint exists. After the constraint is dropped, only the event of the later version
    // stays in quarantine.
    assert!(
        stack.recorder.run(&["quarantine", "retry", id(refused)]).await.is_err(),
        "the database must still refuse the event"
    );
    assert_eq!(quarantined(&stack).await?.len(), 2);
    sqlx::raw_sql("ALTER TABLE messages DROP CONSTRAINT no_poison").execute(&pool).await?;
    assert!(stack.recorder.run(&["quarantine", "retry", "--all"]).await.is_err(), "one event must stay in quarantine");
    assert_eq!(quarantined(&stack).await?.len(), 1);
    assert!(
        stack.recorder.run(&["quarantine", "retry", id(refused)]).await.is_err(),
        "the event must not be in quarantine any more"
    );
    stack.recorder.run(&["quarantine", "drop", id(future)]).await?;
    jetstream.get_stream(shared::stream::NAME).await?.delete_message(place).await?;
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.messages.len(), 2 * 249);
    Ok(())
}

#[tokio::test]
async fn is_not_used_while_a_database_is_down_or_read_only() -> anyhow::Result<()> {
    let mut stack = Stack::with_own_postgres().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "before").await?;
    stack.drained().await?;
    stack.postgres.as_mut().unwrap().kill9().await?;
    for n in 0..20 {
        stack.finished_chat(&ann, &n.to_string()).await?;
    }
    stack.recorders[0].process().logged("a batch has to wait").await?;
    stack.postgres.as_mut().unwrap().start().await?;
    stack.drained().await?;

    // The database is read-only, as when a connection pool still leads to the old primary after a failover.
    let pool = stack.database().await?;
    let database: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&pool).await?;
    let read_only =
        |on: &str| sqlx::AssertSqlSafe(format!("ALTER DATABASE {database} SET default_transaction_read_only = {on}"));
    sqlx::raw_sql(read_only("on")).execute(&pool).await?;
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE pid <> pg_backend_pid() AND datname = current_database()";
    sqlx::raw_sql(others).execute(&pool).await?;
    for n in 0..20 {
        stack.finished_chat(&ann, &n.to_string()).await?;
    }
    stack.recorders[0].process().logged("25006").await?;
    let mut writable = pool.begin().await?;
    sqlx::raw_sql("SET TRANSACTION READ WRITE").execute(&mut *writable).await?;
    sqlx::raw_sql(read_only("off")).execute(&mut *writable).await?;
    writable.commit().await?;
    // The existing sessions of the recorder are still read-only, so the recorder has to open new connections.
    let settled = stack.settled().await;
    assert!(settled.is_ok(), "{settled:?}");
    assert_eq!(settled?.tables.chats.len(), 41);
    Ok(())
}

fn id(line: &Value) -> &str {
    line["id"].as_str().unwrap_or_default()
}
