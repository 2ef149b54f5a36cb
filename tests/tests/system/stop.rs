//! The stop of a chat by its user: from any gateway, the upstream is let go of, and the record says who ended the chat.

use std::time::{Duration, Instant};

use harness::services::Gateway;
use harness::upstream::{Ending, Gate, Script, Step};
use serde_json::json;
use shared::event::Event;
use tests::oracle::Oracle;
use tests::stack::{MODEL, Stack, User, header, streamed_text};

fn piece(text: &str) -> String {
    format!("data: {{\"id\":\"c1\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

/// Asks a gateway to stop a chat. Returns the status.
async fn stop(gateway: &Gateway, token: Option<&str>, chat: &str) -> anyhow::Result<u16> {
    let request = harness::http::client().post(gateway.url(&format!("/api/chats/{chat}/stop")));
    let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
    Ok(request.send().await?.status().as_u16())
}

/// Starts a streaming chat, and reads the first piece. Returns the response and the chat's id.
async fn begin(stack: &Stack, user: &User, on_leave: &str) -> anyhow::Result<(reqwest::Response, String)> {
    let request = stack.chat(user, "x").header("x-stenograph-on-leave", on_leave);
    let mut response = request.send().await?;
    assert_eq!(response.status(), 200);
    assert!(response.chunk().await?.is_some());
    let chat = header(&response, "x-chat-id")?;
    Ok((response, chat))
}

/// Waits until the stream has this many events: while the usage is estimated, the end is still on its way.
async fn events(stack: &Stack, count: u64) -> anyhow::Result<()> {
    let waiting = async {
        while stack.events().await? < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await?
}

/// The finish reason or the stage of the only chat of the record.
fn reason(oracle: &Oracle) -> Option<String> {
    oracle.events.iter().find_map(|event| match event {
        Event::MessageCompleted(event) => event.message.as_ref()?.finish_reason.clone(),
        Event::ChatFailed(event) => Some(event.stage.as_str().to_owned()),
        _ => None,
    })
}

#[tokio::test]
async fn another_gateway_stops_a_chat_within_a_second() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let other = stack.another_gateway(|_| {}).await?;
    stack.upstream.respond_next(Script::stream([piece("heard")]).after(1, Step::Hang));
    let (mut response, chat) = begin(&stack, &ann, "cancel").await?;

    assert_eq!(stop(&other, None, &chat).await?, 401);
    assert_eq!(stop(&other, Some(&bob.token), &chat).await?, 404, "another user's chat");
    assert_eq!(stop(&other, Some(&ann.token), "0193f000-0000-7000-8000-000000000000").await?, 404);
    assert_eq!(stop(&other, Some(&ann.token), "no-id").await?, 404);

    let asked = Instant::now();
    let (status, ending) = tokio::try_join!(stop(&other, Some(&ann.token), &chat), async {
        Ok(stack.upstream.chat(1).await.ended().await)
    })?;
    assert_eq!((status, ending), (204, Ending::ClientGone));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    let mut rest = String::new();
    while let Some(chunk) = response.chunk().await? {
        rest.push_str(std::str::from_utf8(&chunk)?);
    }
    assert!(rest.contains("\"finish_reason\":\"stop\"") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert_eq!(streamed_text(&rest), "", "nothing twice");

    for gateway in [&stack.gateway, &other] {
        assert_eq!(stop(gateway, Some(&ann.token), &chat).await?, 204, "stopped before");
        assert_eq!(stop(gateway, Some(&bob.token), &chat).await?, 404);
    }
    let oracle = stack.settled().await?;
    assert_eq!(reason(&oracle).as_deref(), Some("stopped_by_user"));
    let read = stack.read(&ann, &format!("/api/chats/{chat}")).await?;
    assert_eq!(read["status"], "completed");
    let conversation = read["conversationId"].as_str().unwrap_or_default().to_owned();
    let messages = stack.read(&ann, &format!("/api/conversations/{conversation}/messages")).await?;
    assert_eq!((&messages["data"][1]["content"], &messages["data"][1]["status"]), (&json!("heard"), &json!("partial")));
    // A gateway that never knew the chat reads the record.
    let late = stack
        .another_gateway(|settings| {
            settings.instance = "gateway-3".into();
            settings.data_dir = stack.directory().join("gateway-3");
        })
        .await?;
    stack.gateway.terminate(Duration::from_secs(20)).await?;
    assert_eq!(stop(&late, Some(&ann.token), &chat).await?, 204);
    assert_eq!(stop(&late, Some(&bob.token), &chat).await?, 404);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_drained_is_stopped() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_next(Script::stream([piece("heard")]).after(1, Step::Hang));
    let (response, chat) = begin(&stack, &ann, "drain").await?;
    drop(response);
    // The gateway notices the disconnect, and reads on.
    tokio::time::sleep(Duration::from_millis(200)).await;
    events(&stack, 1).await?;
    assert_eq!(stop(&stack.gateway, Some(&ann.token), &chat).await?, 204);
    assert_eq!(stack.upstream.chat(1).await.ended().await, Ending::ClientGone);
    events(&stack, 2).await?;
    let oracle = stack.settled().await?;
    assert_eq!(reason(&oracle).as_deref(), Some("stopped_by_user"));
    assert!(oracle.tables.messages.values().any(|message| message.content == "heard"));
    Ok(())
}

#[tokio::test]
async fn a_chat_without_an_answer_is_stopped() -> anyhow::Result<()> {
    for on_leave in ["cancel", "drain"] {
        let stack = Stack::start().await?;
        let ann = stack.user("ann").await?;
        let gate = Gate::new();
        stack.upstream.respond_next(Script::stream([piece("unheard")]).before(Step::Wait(gate.clone())));
        let request = stack.chat(&ann, "x").header("x-stenograph-on-leave", on_leave);
        let waiting = tokio::spawn(request.send());
        gate.reached(1).await;
        // Without a response head, the client does not know the id. The record has it.
        events(&stack, 1).await?;
        stack.drained().await?;
        let database = stack.database().await?;
        let chat: String = sqlx::query_scalar("SELECT chat_id::text FROM chats").fetch_one(&database).await?;
        assert_eq!(stop(&stack.gateway, Some(&ann.token), &chat).await?, 204);
        assert_eq!(stack.upstream.chat(1).await.ended().await, Ending::ClientGone);
        let refused = waiting.await??;
        assert_eq!((refused.status().as_u16(), header(&refused, "x-should-retry")?), (409, "false".to_owned()));
        assert!(refused.text().await?.contains("\"chat_stopped\""));
        let oracle = stack.settled().await?;
        assert_eq!(reason(&oracle).as_deref(), Some("stopped_by_user"), "{on_leave}");
        let day = oracle.tables.usage_stats.values().next();
        assert_eq!(day.map(|day| (day.successful_calls, day.failed_calls)), Some((0, 1)));
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_accepts_no_bytes_does_not_delay_a_stop() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    // More than the buffers of both sides hold.
    let long = piece(&"x".repeat(60_000));
    stack.upstream.respond_next(Script::stream(vec![long; 400]).after(400, Step::Hang));
    let (response, chat) = begin(&stack, &ann, "cancel").await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = Instant::now();
    assert_eq!(stop(&stack.gateway, Some(&ann.token), &chat).await?, 204);
    assert_eq!(stack.upstream.chat(1).await.ended().await, Ending::ClientGone);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    drop(response);
    events(&stack, 2).await?;
    assert_eq!(reason(&stack.settled().await?).as_deref(), Some("stopped_by_user"));
    Ok(())
}

#[tokio::test]
async fn each_dialect_ends_as_its_clients_expect() -> anyhow::Result<()> {
    let responses = [
        "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r1\"}}\n\n",
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\
         \"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"half\"}\n\n",
    ];
    let messages = [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m1\",\"type\":\"message\",\
         \"role\":\"assistant\",\"content\":[],\"model\":\"m\",\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\
         \"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: \
         {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"half\"}}\n\n",
    ];
    let question = json!([{"role": "user", "content": "x"}]);
    let ui = json!([{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "x"}]}]);
    let chat = [piece(""), piece("half")];
    let cases = [
        (
            "/v1/responses",
            json!({"model": MODEL, "input": "x", "stream": true}),
            responses.map(str::to_owned),
            "event: response.incomplete\n",
        ),
        (
            "/v1/messages",
            json!({"model": MODEL, "messages": question, "max_tokens": 9, "stream": true}),
            messages.map(str::to_owned),
            "event: message_stop\n",
        ),
        ("/api/chat", json!({"id": "t", "model": MODEL, "messages": ui}), chat, "data: {\"type\":\"abort\"}\n"),
    ];
    for (path, body, pieces, end) in cases {
        let stack = Stack::start().await?;
        let ann = stack.user("ann").await?;
        stack.upstream.respond_next(Script::stream(pieces).after(2, Step::Hang));
        let mut response = stack.post(path).bearer_auth(&ann.token).json(&body).send().await?;
        assert_eq!(response.status(), 200, "{path}");
        let mut text = String::new();
        while !text.contains("half") {
            let chunk = response.chunk().await?;
            text.push_str(std::str::from_utf8(&chunk.expect("the stream continues"))?);
        }
        assert_eq!(stop(&stack.gateway, Some(&ann.token), &header(&response, "x-chat-id")?).await?, 204, "{path}");
        while let Some(chunk) = response.chunk().await? {
            text.push_str(std::str::from_utf8(&chunk)?);
        }
        assert!(text.contains(end), "{path}: {text}");
        let oracle = stack.settled().await?;
        assert_eq!(reason(&oracle).as_deref(), Some("stopped_by_user"), "{path}");
        assert!(oracle.tables.messages.values().any(|message| message.content == "half"), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_chat_of_a_lost_gateway_cannot_be_stopped() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let other = stack.another_gateway(|_| {}).await?;
    stack.upstream.respond_next(Script::stream([piece("heard")]).after(1, Step::Hang));
    let (response, chat) = begin(&stack, &ann, "cancel").await?;
    events(&stack, 1).await?;
    stack.drained().await?;
    stack.gateway.kill9().await;
    assert_eq!(stop(&other, Some(&ann.token), &chat).await?, 503);
    drop(response);
    Ok(())
}
