//! Names of threads, as clients send them, lead to one conversation; a response leads to its own.

use harness::upstream::Script;
use http::StatusCode;
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack, User, header};

async fn conversation(
    stack: &Stack,
    user: &User,
    path: &str,
    names: &[(&str, &str)],
    more: &Value,
) -> anyhow::Result<String> {
    let mut body = json!({"model": MODEL, "stream": false, "max_tokens": 5});
    let said = if path == "/v1/responses" { "input" } else { "messages" };
    body[said] = json!([{"role": "user", "content": "x"}]);
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let mut request = stack.post(path).bearer_auth(&user.token).json(&body);
    for (name, value) in names {
        request = request.header(*name, *value);
    }
    let response = request.send().await?;
    let id = header(&response, "x-conversation-id")?;
    anyhow::ensure!(response.status() == 200, "{path}: {} {}", response.status(), response.text().await?);
    response.bytes().await?;
    Ok(id)
}

fn answer(path: &str, number: usize) -> Script {
    let body = match path {
        "/v1/responses" => {
            json!({"id": format!("resp_{number}"), "object": "response", "status": "completed", "model": "m",
            "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]}]})
        }
        "/v1/messages" => json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "text", "text": "done"}], "stop_reason": "end_turn"}),
        _ => json!({"id": "c1", "object": "chat.completion", "model": "m", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "done"}, "finish_reason": "stop"}]}),
    };
    Script::json(StatusCode::OK, body.to_string())
}

fn respond(stack: &Stack) {
    let number = std::sync::atomic::AtomicUsize::new(0);
    stack.upstream.respond_with(move |request| {
        answer(&request.path, number.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1)
    });
}

const PATHS: [&str; 4] = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"];

#[tokio::test]
async fn of_known_clients_lead_to_one_conversation() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_THREAD_HEADER", "X-Acme-Case")]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    respond(&stack);
    let headers = [
        "helicone-session-id",
        "x-task-id",
        "x-openclaw-session-key",
        "x-opencode-session",
        "x-grok-conv-id",
        "x-session-affinity",
        "x-acme-case",
        "x-vendor-session-id",
    ];
    let session = r#"{"device_id":"d","account_uuid":"","session_id":"0b6c5d6e-2b0a-4c83-9f5e-1a2b3c4d5e6f"}"#;
    let old_session = "user_d_account__session_1b6c5d6e-2b0a-4c83-9f5e-1a2b3c4d5e6f";
    let bodies = [
        json!({"session_id": "in-body-1"}),
        json!({"litellm_session_id": "in-body-2"}),
        json!({"metadata": {"session_id": "in-body-3"}}),
        json!({"prompt_cache_key": "in-body-4"}),
        json!({"chat_id": "in-body-5"}),
        json!({"langfuse_session_id": "in-body-6"}),
        json!({"metadata": {"chat_id": "in-body-7"}}),
        json!({"metadata": {"langfuse_session_id": "in-body-8"}}),
    ];
    for path in PATHS {
        let fresh = conversation(&stack, &ann, path, &[], &json!({})).await?;
        let mut seen = vec![fresh];
        for name in headers {
            let names = [(name, "the thread")];
            let first = conversation(&stack, &ann, path, &names, &json!({})).await?;
            assert_eq!(first, conversation(&stack, &ann, path, &names, &json!({})).await?, "{path} {name}");
            assert_ne!(first, conversation(&stack, &bob, path, &names, &json!({})).await?, "{path} {name}");
        }
        for body in &bodies {
            let first = conversation(&stack, &ann, path, &[], body).await?;
            assert_eq!(first, conversation(&stack, &ann, path, &[], body).await?, "{path} {body}");
            assert!(!seen.contains(&first), "{path} {body}");
            seen.push(first);
        }
        let names = [("x-conversation-id", "second"), ("x-acme-case", "first")];
        let own = conversation(&stack, &ann, path, &names, &bodies[0]).await?;
        assert_eq!(own, conversation(&stack, &ann, path, &[("x-acme-case", "first")], &json!({})).await?, "{path}");
    }
    for user_id in [session, old_session] {
        let body = json!({"metadata": {"user_id": user_id}});
        let first = conversation(&stack, &ann, "/v1/messages", &[], &body).await?;
        assert_eq!(first, conversation(&stack, &ann, "/v1/messages", &[], &body).await?, "{user_id}");
    }
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn of_responses_lead_to_the_conversation_of_the_response() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_THREAD_FROM_CACHE_KEY", "off")]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    respond(&stack);
    let path = "/v1/responses";
    let first = conversation(&stack, &ann, path, &[], &json!({"prompt_cache_key": "shared"})).await?;
    let continues = |id: &str| json!({"previous_response_id": id, "prompt_cache_key": "shared"});
    let second = conversation(&stack, &ann, path, &[], &continues("resp_1")).await?;
    assert_eq!(second, first);
    assert_eq!(conversation(&stack, &ann, path, &[], &continues("resp_2")).await?, first, "the third turn");
    let other = conversation(&stack, &bob, path, &[], &continues("resp_1")).await?;
    assert_ne!(other, first, "another user's response leads nowhere");
    assert_ne!(conversation(&stack, &ann, path, &[], &continues("resp_4")).await?, other);
    let unknown = conversation(&stack, &ann, path, &[], &continues("resp_999")).await?;
    assert_ne!(unknown, first);
    let shared = conversation(&stack, &ann, path, &[], &json!({"prompt_cache_key": "shared"})).await?;
    assert_ne!(shared, first, "the setting is off");
    let named = conversation(&stack, &ann, path, &[("x-thread-id", "named")], &continues("resp_1")).await?;
    assert_ne!(named, first, "a name of a thread precedes");
    let oracle = stack.settled().await?;
    let origins =
        oracle.tables.chats.values().filter(|chat| chat.conversation_id.is_some_and(|id| id.to_string() == first));
    assert_eq!(origins.count(), 3);
    Ok(())
}
