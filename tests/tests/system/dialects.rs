//! The dialects beside chat completions, through the running gateway: bytes as they came, the end only when it is on the
//! record, errors in the shape that each dialect's clients read.

use std::time::Duration;

use harness::upstream::{Gate, Script, Step};
use http::StatusCode;
use serde_json::{Value, json};
use shared::event::{DialectName, Event, MessageCompleted};
use shared::usage::UsageSource;
use sqlx::Row as _;
use tests::stack::{Stack, header};

/// Long enough on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

const MESSAGE: [&str; 5] = [
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude\",\"content\":[],\"usage\":{\"input_tokens\":3,\"cache_read_input_tokens\":20,\"output_tokens\":1}}}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Grüß Gott\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
];

const RESPONSE: [&str; 4] = [
    "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"model\":\"gpt\",\"status\":\"in_progress\",\"output\":[]}}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,\"delta\":\"Servus\"}\n\n",
    "event: response.output_item.done\ndata: {\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"Servus\"}]}}\n\n",
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"model\":\"gpt\",\"status\":\"completed\",\"output\":[],\"usage\":{\"input_tokens\":5,\"output_tokens\":2,\"total_tokens\":7}}}\n\n",
];

async fn completed(stack: &Stack) -> anyhow::Result<MessageCompleted> {
    let events = stack.settled().await?.events;
    let completed = events.into_iter().find_map(|event| match event {
        Event::MessageCompleted(completed) => Some(*completed),
        _ => None,
    });
    completed.ok_or_else(|| anyhow::anyhow!("no chat was completed"))
}

#[tokio::test]
async fn anthropic_messages_stream_and_are_recorded() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_next(Script::stream(MESSAGE));
    let body = json!({"model": "claude", "max_tokens": 100, "stream": true, "system": "be brief",
                      "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]});
    let response = stack
        .post("/v1/messages")
        .header("x-api-key", &ann.token)
        .header("anthropic-version", "2023-06-01")
        .header("anthropic-beta", "tools-1")
        .json(&body)
        .send()
        .await?;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "request-id")?, header(&response, "x-request-id")?);
    assert_eq!(response.text().await?, MESSAGE.concat());

    let sent = stack.upstream.chat(1).await;
    assert_eq!(sent.path, "/v1/messages");
    assert_eq!(sent.body, serde_json::to_vec(&body)?, "the bytes received differ from the bytes sent");
    assert_eq!(sent.headers["anthropic-version"], "2023-06-01");
    assert_eq!(sent.headers["anthropic-beta"], "tools-1");
    assert_eq!(
        sent.headers["x-api-key"],
        stack.upstream.key(),
        "the upstream gets the gateway's key and not the caller's key"
    );
    assert!(!sent.headers.contains_key("authorization"));

    let completed = completed(&stack).await?;
    let message = completed.message.ok_or_else(|| anyhow::anyhow!("no answer is recorded"))?;
    assert_eq!(message.text, "Grüß Gott");
    assert_eq!(message.finish_reason.as_deref(), Some("end_turn"));
    assert_eq!(completed.upstream.response_id.as_deref(), Some("msg_1"));
    assert_eq!((completed.usage.prompt_tokens, completed.usage.completion_tokens), (Some(23), Some(9)));
    assert_eq!(completed.usage.parts.cache_read, 20);
    let row = sqlx::query("SELECT dialect, content FROM chats JOIN messages USING (chat_id) WHERE position = 0");
    let row = row.fetch_one(&stack.database().await?).await?;
    assert_eq!(row.get::<String, _>("dialect"), DialectName::AnthropicMessages.as_str());
    assert_eq!(row.get::<String, _>("content"), "hello");
    Ok(())
}

#[tokio::test]
async fn responses_stream_and_are_recorded() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_next(Script::stream(RESPONSE));
    let body = json!({"model": "gpt", "input": "hello", "stream": true, "previous_response_id": "resp_0"});
    let response = stack.post("/v1/responses").bearer_auth(&ann.token).json(&body).send().await?;
    assert_eq!(response.text().await?, RESPONSE.concat());
    let sent = stack.upstream.chat(1).await;
    assert_eq!((sent.path.as_str(), &sent.body[..]), ("/v1/responses", &serde_json::to_vec(&body)?[..]));

    let document = r#"{"id":"resp_2","object":"response","model":"gpt","status":"completed","output":[{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}],"usage":{"input_tokens":5,"output_tokens":2,"total_tokens":7}}"#;
    stack.upstream.respond_next(Script::json(StatusCode::OK, document));
    let body = json!({"model": "gpt", "input": [{"type": "function_call_output", "call_id": "b", "output": "42"}]});
    let response = stack.post("/v1/responses").bearer_auth(&ann.token).json(&body).send().await?;
    assert_eq!(response.text().await?, document);

    let oracle = stack.settled().await?;
    let mut contents: Vec<_> = oracle.tables.messages.values().map(|m| (m.role.as_str(), m.content.as_str())).collect();
    contents.sort_unstable();
    assert_eq!(contents, [("assistant", ""), ("assistant", "Servus"), ("tool", "42"), ("user", "hello")]);
    let totals: i64 = oracle.tables.usage_stats.values().map(|counts| counts.total_tokens).sum();
    assert_eq!(totals, 14);
    Ok(())
}

/// Events reach the client as they come, and when the last one does, the chat is on the record.
#[tokio::test]
async fn only_the_end_of_a_stream_waits_for_the_record() -> anyhow::Result<()> {
    for (path, body, events, end) in [
        (
            "/v1/messages",
            json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}),
            &MESSAGE[..],
            "message_stop",
        ),
        ("/v1/responses", json!({"model": "m", "input": "x"}), &RESPONSE[..], "response.completed"),
    ] {
        let stack = Stack::start().await?;
        let ann = stack.user("ann").await?;
        let gate = Gate::new();
        let script = Script::stream(events.iter().copied()).after(events.len() - 1, Step::Wait(gate.clone()));
        stack.upstream.respond_next(script);
        let mut response = stack.post(path).bearer_auth(&ann.token).json(&body).send().await?;
        let mut seen = Vec::new();
        let before: usize = events[..events.len() - 1].iter().map(|event| event.len()).sum();
        while seen.len() < before {
            let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await??;
            seen.extend_from_slice(&chunk.unwrap_or_default());
        }
        assert!(!String::from_utf8_lossy(&seen).contains(end));
        gate.open();
        while let Some(chunk) = tokio::time::timeout(PATIENCE, response.chunk()).await?? {
            seen.extend_from_slice(&chunk);
        }
        assert_eq!(String::from_utf8(seen)?, events.concat());
        // The client has received the whole answer, so the end event must be recorded.
        completed(&stack).await?;
    }
    Ok(())
}

#[tokio::test]
async fn errors_have_the_shape_that_anthropics_clients_read() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let post = |token: &str, body: Value| stack.post("/v1/messages").header("x-api-key", token).json(&body).send();
    let good = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    for (response, status, kind) in [
        (post("nonsense", good.clone()).await?, 401, "authentication_error"),
        (post(&ann.token, json!({"model": "m"})).await?, 400, "invalid_request_error"),
    ] {
        assert_eq!(response.status(), status);
        let error: Value = response.json().await?;
        assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!(kind)), "{error}");
        assert!(error["error"]["message"].is_string());
    }
    // The error of the upstream is forwarded unchanged.
    let refusal = r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"},"request_id":"req_1"}"#;
    let refused = Script::json(StatusCode::BAD_REQUEST, refusal);
    stack.upstream.respond_next(refused);
    let response = post(&ann.token, good).await?;
    assert_eq!(response.status(), 400);
    assert_eq!(response.text().await?, refusal);
    let events = stack.settled().await?.events;
    let failed =
        events.iter().find_map(|event| if let Event::ChatFailed(failed) = event { Some(failed) } else { None });
    let error = &failed.unwrap().error;
    assert_eq!(
        (error.status, error.kind.as_deref(), error.message.as_str()),
        (Some(400), Some("overloaded_error"), "busy")
    );
    Ok(())
}

#[tokio::test]
async fn a_request_to_count_tokens_passes_and_is_no_chat() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let path = "/v1/messages/count_tokens";
    let body = json!({"model": "claude", "messages": [{"role": "user", "content": "x"}]});
    let response = stack.post(path).header("x-api-key", &ann.token).json(&body).send().await?;
    assert_eq!((response.status(), response.text().await?.as_str()), (StatusCode::OK, r#"{"input_tokens":14}"#));
    let response = stack.post(path).json(&body).send().await?;
    assert_eq!(response.status(), 401);
    assert_eq!(response.json::<Value>().await?["type"], "error");
    assert_eq!(stack.events().await?, 0);
    Ok(())
}

/// Starts a provider that reports no usage.
#[tokio::test]
async fn unreported_usage_is_estimated_and_kept_apart() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let chunk = r#"{"choices":[{"index":0,"delta":{"content":"Hello there"},"finish_reason":"stop"}]}"#;
    let stream = format!("data: {chunk}\n\ndata: [DONE]\n\n");
    stack.upstream.respond_next(Script::stream([stream.clone()]));
    let response = stack.chat(&ann, "How are you?").send().await?;
    assert_eq!(response.text().await?, stream);
    assert_eq!(stack.upstream.chat(1).await.headers["accept-encoding"], "identity");

    let completed = completed(&stack).await?;
    assert_eq!(completed.usage.source, UsageSource::Estimated);
    assert_eq!((completed.usage.prompt_tokens, completed.usage.completion_tokens), (Some(8), Some(2)));
    let row = sqlx::query("SELECT total_tokens, estimated_total_tokens FROM usage_stats");
    let row = row.fetch_one(&stack.database().await?).await?;
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (0, 10));
    Ok(())
}
