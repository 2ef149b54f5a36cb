//! One chat with the request body of a web frontend: streamed, and completely recorded.

use sqlx::Row as _;
use tests::stack::{Stack, header, streamed_text};

#[tokio::test]
async fn is_streamed_and_completely_recorded() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let before = time::OffsetDateTime::now_utc().date();
    let response = stack.chat(&ann, "Wie geht's? \u{1f600}").send().await?;
    assert_eq!(response.status(), 200);
    assert!(header(&response, "content-type")?.starts_with("text/event-stream"));
    assert_eq!(header(&response, "x-accel-buffering")?, "no");
    let (chat, conversation) = (header(&response, "x-chat-id")?, header(&response, "x-conversation-id")?);
    header(&response, "x-request-id")?;
    let body = response.text().await?;
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    assert!(!body.contains("prompt_tokens"), "the client did not ask for usage and must not get it: {body}");
    let sent = stack.upstream.chat(1).await;
    let sent: serde_json::Value = serde_json::from_slice(&sent.body)?;
    assert_eq!(sent["stream_options"]["include_usage"], true);

    stack.settled().await?;
    let served = stack.upstream.served().usage;
    let pool = stack.database().await?;
    let usage = sqlx::query("SELECT * FROM usage_stats").fetch_one(&pool).await?;
    let day: time::Date = usage.get("date");
    assert!(day == before || day == time::OffsetDateTime::now_utc().date());
    assert_eq!(usage.get::<String, _>("user_id"), ann.id);
    let number = |name: &str| usage.get::<i64, _>(name);
    assert_eq!((number("api_calls"), number("successful_calls"), number("failed_calls")), (1, 1, 0));
    assert_eq!(number("total_tokens"), i64::try_from(served.total_tokens())?);
    assert_eq!(number("messages_created"), 2);
    assert_eq!(number("conversations_created"), 1);

    let row = sqlx::query("SELECT *, conversation_id::text AS id FROM conversations").fetch_one(&pool).await?;
    assert_eq!(row.get::<String, _>("id"), conversation);
    assert_eq!(row.get::<i64, _>("message_count"), 2);
    assert_eq!(row.get::<i64, _>("total_tokens"), i64::try_from(served.total_tokens())?);
    assert_eq!(row.get::<f64, _>("temperature"), 0.5);

    let sql = "SELECT role, content, chat_id::text FROM messages ORDER BY position";
    let messages: Vec<(String, String, String)> = sqlx::query_as(sql).fetch_all(&pool).await?;
    let expected = [
        ("user".to_owned(), "Wie geht's? \u{1f600}".to_owned(), chat.clone()),
        ("assistant".to_owned(), streamed_text(&body), chat),
    ];
    assert_eq!(messages, expected);
    assert!(!expected[1].1.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_recorded_too() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let body = serde_json::json!({"model": "scripted-1", "messages": [{"role": "user", "content": "hi"}]});
    let response = stack.post("/v1/chat/completions").bearer_auth(&ann.token).json(&body).send().await?;
    let answer: serde_json::Value = response.json().await?;
    let oracle = stack.settled().await?;
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(oracle.tables.messages.values().any(|message| message.content == text));
    Ok(())
}

#[tokio::test]
async fn without_recording_request_and_answer_pass_unchanged() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_RECORDING", "off")]).await?;
    let ann = stack.user("ann").await?;
    let response = stack.chat(&ann, "hi").send().await?;
    assert_eq!(response.status(), 200);
    let body = response.text().await?;
    assert!(body.ends_with("data: [DONE]\n\n") && !streamed_text(&body).is_empty(), "{body}");
    assert!(!body.contains("prompt_tokens"), "the client did not ask for usage and must not get it: {body}");
    let sent = stack.upstream.chat(1).await;
    assert!(!String::from_utf8_lossy(&sent.body).contains("stream_options"));
    assert_eq!(stack.events().await?, 0);
    Ok(())
}
