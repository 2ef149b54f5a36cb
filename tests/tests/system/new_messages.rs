//! The new messages of a request: parallel tool results, each with the id of its call and a row of its own, and the text beside
//! them, in each dialect.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack, header};

/// A row of `messages` as expected: position, role, content, and the id of the tool call.
type Row = (i16, String, String, Option<String>);

const RESPONSE: &str = r#"{"id":"resp_1","object":"response","model":"m","status":"completed","output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"mild"}]}],"usage":{"input_tokens":5,"output_tokens":2,"total_tokens":7}}"#;
const COMPLETION: &str = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"mild"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#;
const MESSAGE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"mild"}],"stop_reason":"end_turn","usage":{"input_tokens":5,"output_tokens":2}}"#;

/// The path, the body and the answer of a request with two tool results and a question, for each dialect.
fn requests() -> [(&'static str, Value, &'static str); 4] {
    let function = json!({"name": "weather", "arguments": "{}"});
    let calls = ["c0", "c1"].map(|id| json!({"id": id, "type": "function", "function": function}));
    let uses = ["c0", "c1"].map(|id| json!({"type": "tool_use", "id": id, "name": "weather", "input": {}}));
    let [first, second] =
        ["c0", "c1"].map(|id| json!({"type": "function_call", "call_id": id, "name": "weather", "arguments": "{}"}));
    let parts = [("c0", "20 degrees"), ("c1", "no wind")].map(|(id, output)| {
        json!({"type": "tool-weather", "toolCallId": id, "state": "output-available", "input": {}, "output": output})
    });
    [
        (
            "/v1/chat/completions",
            json!({"model": "m", "messages": [{"role": "user", "content": "how is it?"}, {"role": "assistant", "tool_calls": calls},
                {"role": "tool", "tool_call_id": "c0", "content": "20 degrees"},
                {"role": "tool", "tool_call_id": "c1", "content": "no wind"}, {"role": "user", "content": "and so?"}]}),
            COMPLETION,
        ),
        (
            "/v1/responses",
            json!({"model": "m", "input": [{"role": "user", "content": "how is it?"}, first, second,
                {"type": "function_call_output", "call_id": "c0", "output": "20 degrees"},
                {"type": "function_call_output", "call_id": "c1", "output": "no wind"},
                {"role": "user", "content": "and so?"}]}),
            RESPONSE,
        ),
        (
            "/v1/messages",
            json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "how is it?"},
                {"role": "assistant", "content": uses},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c0", "content": "20 degrees"},
                    {"type": "tool_result", "tool_use_id": "c1", "content": "no wind"}, {"type": "text", "text": "and so?"}]}]}),
            MESSAGE,
        ),
        (
            "/api/chat",
            json!({"id": "thread-1", "trigger": "submit-message", "messages": [
                {"id": "u", "role": "user", "parts": [{"type": "text", "text": "how is it?"}]},
                {"id": "a", "role": "assistant", "parts": parts},
                {"id": "v", "role": "user", "parts": [{"type": "text", "text": "and so?"}]}]}),
            "",
        ),
    ]
}

#[tokio::test]
async fn of_parallel_tool_calls_are_apart_in_every_dialect() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[("GATEWAY_DEFAULT_MODEL", MODEL)], &[]).await?;
    let ann = stack.user("ann").await?;
    let pool = stack.database().await?;
    for (path, body, answer) in requests() {
        if !answer.is_empty() {
            stack.upstream.respond_next(harness::upstream::Script::json(StatusCode::OK, answer));
        }
        let response = stack.post(path).bearer_auth(&ann.token).json(&body).send().await?;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let chat: uuid::Uuid = header(&response, "x-chat-id")?.parse()?;
        let conversation = header(&response, "x-conversation-id")?;
        response.text().await?;
        stack.settled().await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT position, role, content, tool_call_id FROM messages WHERE chat_id = $1 AND position < 1 ORDER BY position",
        )
        .bind(chat)
        .fetch_all(&pool)
        .await?;
        let row = |position, role: &str, content: &str, call: Option<&str>| -> Row {
            (position, role.to_owned(), content.to_owned(), call.map(str::to_owned))
        };
        let expected = [
            row(-2, "tool", "20 degrees", Some("c0")),
            row(-1, "tool", "no wind", Some("c1")),
            row(0, "user", "and so?", None),
        ];
        assert_eq!(rows, expected, "{path}");
        let counted: (Option<i16>, bool, i64) = sqlx::query_as(
            "SELECT new_messages, has_user_message, message_count FROM chats JOIN conversations USING (conversation_id)
             WHERE chat_id = $1",
        )
        .bind(chat)
        .fetch_one(&pool)
        .await?;
        assert_eq!(counted, (Some(3), true, 4), "{path}");

        // A page of one message at a time shows each message once, in both orders.
        for order in ["asc", "desc"] {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = format!("/api/conversations/{conversation}/messages?limit=1&order={order}{cursor}");
                let page = stack.read(&ann, &page).await?;
                seen.push((page["data"][0]["content"].clone(), page["data"][0]["toolCallId"].clone()));
                let Some(next) = page["nextCursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
                anyhow::ensure!(seen.len() < 9, "the pages do not end: {seen:?}");
            }
            if order == "desc" {
                seen.reverse();
            }
            assert_eq!(seen.len(), 4, "{path} {order}: {seen:?}");
            assert_eq!((&seen[0].0, &seen[0].1), (&json!("20 degrees"), &json!("c0")), "{path} {order}");
            assert_eq!((&seen[2].0, &seen[2].1), (&json!("and so?"), &Value::Null), "{path} {order}");
        }
    }
    let oracle = stack.settled().await?;
    let created: i64 = oracle.tables.usage_stats.values().map(|counts| counts.messages_created).sum();
    assert_eq!(created, 16);
    Ok(())
}
