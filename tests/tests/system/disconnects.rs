//! Clients that leave: by policy the upstream is let go of, or read on for the record.

use harness::upstream::{Ending, Gate, Script, Step};
use serde_json::json;
use shared::event::Event;
use tests::stack::{MODEL, Stack, User, streamed_text};

fn piece(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

const FINISH: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\
                      \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n";

/// Starts a chat with this request, reads the first piece, closes the connection, and waits until the gateway has noticed.
async fn begin_and_leave(stack: &Stack, user: &User, on_leave: &str) -> anyhow::Result<()> {
    let request = stack.chat(user, "x").header("x-stenograph-on-leave", on_leave);
    let mut response = request.send().await?;
    assert_eq!(response.status(), 200);
    assert!(response.chunk().await?.is_some());
    drop(response);
    let noticed = async {
        while stack.gateway.metric("stenograph_gateway_connections").await? > 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), noticed).await?
}

/// Waits until the stream has this many events: when the upstream is done, the end is still on its way.
async fn events(stack: &Stack, count: u64) -> anyhow::Result<()> {
    let waiting = async {
        while stack.events().await? < count {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await?
}

#[tokio::test]
async fn a_drained_answer_is_recorded_to_its_end() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let gate = Gate::new();
    let pieces = [piece("heard"), piece(" and not heard"), FINISH.to_owned(), "data: [DONE]\n\n".to_owned()];
    stack.upstream.respond_next(Script::stream(pieces).after(1, Step::Wait(gate.clone())));
    begin_and_leave(&stack, &ann, "drain").await?;
    gate.open();
    assert_eq!(
        stack.upstream.chat(1).await.ended().await,
        Ending::Complete,
        "the gateway must read the upstream's answer to the end"
    );
    assert!(!stack.upstream.chat(1).await.headers.contains_key("x-stenograph-on-leave"));
    events(&stack, 2).await?;
    let oracle = stack.settled().await?;
    let message = oracle.tables.messages.values().find(|message| message.role == "assistant").unwrap();
    assert_eq!(message.content, "heard and not heard");
    assert_eq!(message.finish_reason.as_deref(), Some("client_gone"));
    let day = oracle.tables.usage_stats.values().next().unwrap();
    assert_eq!((day.successful_calls, day.total_tokens), (1, 5));
    let notes = oracle.events.iter().find_map(|event| match event {
        Event::MessageCompleted(event) => Some(event.notes.clone()),
        _ => None,
    });
    assert_eq!(notes.unwrap(), ["drained_to_its_end"]);
    Ok(())
}

#[tokio::test]
async fn a_drain_is_bounded_in_time_and_number() -> anyhow::Result<()> {
    let settings = [("GATEWAY_ON_LEAVE", "drain"), ("GATEWAY_DRAIN_FOR", "1s"), ("GATEWAY_MAX_DRAINING", "1")];
    let stack = Stack::with_gateway(&settings).await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_with(|_| Script::stream([piece("heard")]).after(1, Step::Hang));
    begin_and_leave(&stack, &ann, "drain").await?;
    begin_and_leave(&stack, &ann, "drain").await?;
    begin_and_leave(&stack, &ann, "cancel").await?;
    for number in 1..=3 {
        assert_eq!(stack.upstream.chat(number).await.ended().await, Ending::ClientGone);
    }
    events(&stack, 6).await?;
    let oracle = stack.settled().await?;
    let cut_short = oracle.events.iter().filter(|event| match event {
        Event::MessageCompleted(event) => event.notes.contains(&"drain_cut_short".to_owned()),
        _ => false,
    });
    assert_eq!(
        cut_short.count(),
        1,
        "expected one chat drained until the time limit; the maximum number of drained chats left no place for the second"
    );
    let reasons = oracle.tables.messages.values().filter_map(|message| message.finish_reason.as_deref());
    assert_eq!(reasons.collect::<Vec<_>>(), ["client_gone"; 3]);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_has_not_started_is_drained_too() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let gate = Gate::new();
    let pieces = [piece("unheard"), FINISH.to_owned(), "data: [DONE]\n\n".to_owned()];
    stack.upstream.respond_next(Script::stream(pieces).before(Step::Wait(gate.clone())));
    let request = stack.chat(&ann, "x").header("x-stenograph-on-leave", "drain").send();
    tokio::select! {
        response = request => anyhow::bail!("the chat was answered before the gate was opened: {response:?}"),
        () = gate.reached(1) => {}
    }
    gate.open();
    assert_eq!(stack.upstream.chat(1).await.ended().await, Ending::Complete);
    events(&stack, 2).await?;
    let oracle = stack.settled().await?;
    assert!(oracle.tables.messages.values().any(|message| message.content == "unheard"));
    Ok(())
}

#[tokio::test]
async fn closing_after_the_end_is_no_disconnect() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let pieces = [piece("whole"), FINISH.to_owned(), "data: [DONE]\n\n".to_owned()];
    stack.upstream.respond_next(Script::stream(pieces).after(3, Step::Hang));
    let mut response = stack.chat(&ann, "x").send().await?;
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: [DONE]\n\n") {
        seen.extend_from_slice(&response.chunk().await?.expect("the chat continues to the end"));
    }
    drop(response);
    let oracle = stack.settled().await?;
    let message = oracle.tables.messages.values().find(|message| message.content == "whole").unwrap();
    assert_eq!(message.finish_reason.as_deref(), Some("stop"));
    Ok(())
}

#[tokio::test]
async fn an_invalid_header_is_refused() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let response = stack.chat(&ann, "x").header("x-stenograph-on-leave", "stay").send().await?;
    assert_eq!(response.status(), 400);
    assert!(response.text().await?.contains("x-stenograph-on-leave: expected cancel or drain"));
    assert_eq!(stack.events().await?, 0);
    Ok(())
}

#[tokio::test]
async fn silence_is_filled_with_keep_alive_comments_if_configured() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_KEEP_ALIVE_COMMENTS", "200ms")]).await?;
    let ann = stack.user("ann").await?;
    let gate = Gate::new();
    let half = piece("b");
    let (begin, rest) = half.split_at(10);
    let pieces = [piece("a"), begin.to_owned(), rest.to_owned(), "data: [DONE]\n\n".to_owned()];
    let script = Script::stream(pieces).after(0, Step::Pause(std::time::Duration::from_millis(700)));
    stack.upstream.respond_next(script.after(2, Step::Wait(gate.clone())));
    let body = json!({"messages": [{"role": "user", "content": "x"}], "model": MODEL, "stream": true});
    let request = stack.post("/v1/chat/completions").bearer_auth(&ann.token).json(&body);
    let mut response = request.send().await?;
    let mut text = String::new();
    while text.matches(": keep-alive\n\n").count() < 3 || !text.contains("\"a\"") {
        text.push_str(std::str::from_utf8(&response.chunk().await?.expect("the chat continues"))?);
    }
    gate.open();
    while let Some(chunk) = response.chunk().await? {
        text.push_str(std::str::from_utf8(&chunk)?);
    }
    assert!(text.starts_with(": keep-alive\n\n"), "expected a keep-alive before the first event: {text}");
    let without = text.replace(": keep-alive\n\n", "");
    assert_eq!(without, [piece("a"), piece("b"), "data: [DONE]\n\n".to_owned()].concat());
    assert_eq!(streamed_text(&without), "ab");
    stack.settled().await?;
    Ok(())
}
