//! The AI SDK's `useChat`, unchanged: UI messages in, the UI message stream out, and all of it on the record.

use harness::upstream::{Gate, Script, Step};
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack, header};

fn events(body: &str) -> Vec<Value> {
    let data = body.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap_or(event));
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
}

fn body(thread: &str, text: &str) -> Value {
    json!({
        "id": thread, "trigger": "submit-message", "messageId": null,
        "messages": [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}]}],
    })
}

#[tokio::test]
async fn gets_a_stream_in_its_own_format_which_is_recorded() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_DEFAULT_MODEL", MODEL)]).await?;
    let ann = stack.user("ann").await?;
    let mut conversations = Vec::new();
    for text in ["hi", "and again"] {
        let request = stack.post("/api/chat").bearer_auth(&ann.token).json(&body("thread-1", text));
        let response = request.send().await?;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "x-vercel-ai-ui-message-stream")?, "v1");
        assert!(header(&response, "content-type")?.starts_with("text/event-stream"));
        conversations.push(header(&response, "x-conversation-id")?);
        let told = events(&response.text().await?);
        let kinds: Vec<_> = told.iter().filter_map(|event| event["type"].as_str()).collect();
        assert_eq!(kinds[..3], ["start", "start-step", "text-start"]);
        assert_eq!(kinds[kinds.len() - 3..], ["text-end", "finish-step", "finish"]);
        let said: String = told.iter().filter_map(|event| event["delta"].as_str()).collect();
        assert_eq!(said, "This is the answer.");
        assert_eq!(told.last().unwrap(), "[DONE]");
        assert_eq!(told[told.len() - 2]["finishReason"], "stop");
    }
    assert_eq!(conversations[0], conversations[1], "the thread's id must lead to the same conversation");
    let sent: Value = serde_json::from_slice(&stack.upstream.chat(1).await.body)?;
    assert_eq!(sent["messages"], json!([{"role": "user", "content": "hi"}]));
    assert_eq!((&sent["model"], &sent["stream"]), (&json!(MODEL), &json!(true)));
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.conversations.len(), 1);
    assert!(oracle.tables.messages.values().any(|message| message.content == "This is the answer."));
    assert!(oracle.tables.messages.values().any(|message| message.role == "user" && message.content == "and again"));
    Ok(())
}

#[tokio::test]
async fn gets_the_end_after_the_record_and_an_error_after_a_break() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_DEFAULT_MODEL", MODEL)]).await?;
    let ann = stack.user("ann").await?;
    let gate = Gate::new();
    let piece = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\n";
    stack.upstream.respond_next(Script::stream([piece]).after(1, Step::Wait(gate.clone())).after(2, Step::Cut));
    let request = stack.post("/api/chat").bearer_auth(&ann.token).json(&body("thread-1", "hi"));
    let mut response = request.send().await?;
    let mut text = String::new();
    while !text.contains("half") {
        text.push_str(std::str::from_utf8(&response.chunk().await?.expect("the stream continues"))?);
    }
    assert!(!text.contains("text-end") && !text.contains("finish"));
    gate.open();
    while let Some(chunk) = response.chunk().await? {
        text.push_str(std::str::from_utf8(&chunk)?);
    }
    let told = events(&text);
    assert_eq!(told.last().unwrap()["type"], "error");
    assert!(told.iter().all(|event| event["type"] != "finish" && *event != json!("[DONE]")));
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.usage_stats.values().next().unwrap().failed_calls, 1);
    assert!(oracle.tables.messages.values().any(|message| message.content == "half"));

    // An error before the first byte has the same form for all clients.
    let wrong = json!({"id": "t", "messages": [{"role": "robot", "parts": []}]});
    let response = stack.post("/api/chat").bearer_auth(&ann.token).json(&wrong).send().await?;
    assert_eq!(response.status(), 400);
    assert_eq!(response.json::<Value>().await?["error"]["param"], "messages");
    Ok(())
}
