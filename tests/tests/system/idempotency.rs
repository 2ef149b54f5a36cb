//! `Idempotency-Key`: a retry is the same chat on any gateway, and chats continue while keys cannot be checked.

use harness::upstream::{Gate, Script, Step};
use serde_json::{Value, json};
use shared::event::Event;
use tests::stack::{MODEL, Stack, User, header};

fn chat(stack: &Stack, user: &User, text: &str, key: &str) -> reqwest::RequestBuilder {
    stack.chat(user, text).header("idempotency-key", key)
}

async fn refusal(response: reqwest::Response) -> anyhow::Result<(u16, String, String)> {
    let (status, id) = (response.status().as_u16(), header(&response, "x-chat-id")?);
    assert_eq!(header(&response, "x-should-retry")?, "false");
    let body: Value = response.json().await?;
    Ok((status, id, body["error"]["code"].as_str().unwrap_or_default().to_owned()))
}

#[tokio::test]
async fn a_retry_is_the_same_chat_on_any_gateway() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let other = stack.another_gateway(|_| {}).await?;
    let elsewhere = |user: &User, text: &str, key: &str| {
        let body = json!({"messages": [{"role": "user", "content": text}], "model": MODEL, "temperature": 0.5});
        let request = harness::http::client().post(other.url("/api/chat")).bearer_auth(&user.token).json(&body);
        request.header("idempotency-key", key).send()
    };
    let gate = Gate::new();
    let piece = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    stack.upstream.respond_next(Script::stream([piece, "data: [DONE]\n\n"]).after(1, Step::Wait(gate.clone())));
    let mut first = chat(&stack, &ann, "x", "k-1").send().await?;
    assert_eq!(first.status(), 200);
    let id = header(&first, "x-chat-id")?;
    assert!(first.chunk().await?.is_some());

    let under_way = (409, id.clone(), "idempotency_chat_under_way".to_owned());
    assert_eq!(refusal(chat(&stack, &ann, "x", "k-1").send().await?).await?, under_way);
    assert_eq!(refusal(elsewhere(&ann, "x", "k-1").await?).await?, under_way);

    gate.open();
    first.bytes().await?;
    let done = (409, id.clone(), "idempotency_chat_done".to_owned());
    assert_eq!(refusal(chat(&stack, &ann, "x", "k-1").send().await?).await?, done);
    // The other gateway learns of the end of the chat after a short delay.
    let mut heard = refusal(elsewhere(&ann, "x", "k-1").await?).await?;
    for _ in 0..600 {
        if heard == done {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        heard = refusal(elsewhere(&ann, "x", "k-1").await?).await?;
    }
    assert_eq!(heard, done);
    let reused = (422, id, "idempotency_key_reused".to_owned());
    assert_eq!(refusal(elsewhere(&ann, "something else", "k-1").await?).await?, reused);
    assert_eq!(elsewhere(&bob, "x", "k-1").await?.status(), 200, "an equal key of another user is a different key");
    assert_eq!(stack.chat(&ann, "x").header("idempotency-key", "").send().await?.status(), 400);

    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 2);
    assert_eq!(stack.upstream.chats().len(), 2, "no retry reached the upstream");
    assert!(!stack.upstream.chats()[0].headers.contains_key("idempotency-key"));
    Ok(())
}

#[tokio::test]
async fn a_chat_that_was_refused_releases_its_key() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_next(Script::json(http::StatusCode::BAD_REQUEST, r#"{"error":{"message":"no"}}"#));
    assert_eq!(chat(&stack, &ann, "x", "k-1").send().await?.status(), 400);
    let again = chat(&stack, &ann, "x", "k-1").send().await?;
    assert_eq!(again.status(), 200);
    again.bytes().await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 2);
    Ok(())
}

#[tokio::test]
async fn chats_continue_and_say_so_while_keys_cannot_be_checked() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let jetstream = async_nats::jetstream::new(async_nats::connect(stack.nats.url()).await?);
    jetstream.delete_key_value(shared::stream::IDEMPOTENCY_BUCKET).await?;
    let answer = chat(&stack, &ann, "x", "k-1").send().await?;
    assert_eq!(answer.status(), 200);
    answer.bytes().await?;
    let (status, _, code) = refusal(chat(&stack, &ann, "x", "k-1").send().await?).await?;
    assert_eq!(
        (status, code.as_str()),
        (409, "idempotency_chat_done"),
        "a gateway must know the keys of its own chats without the bucket"
    );
    let oracle = stack.settled().await?;
    let notes = oracle.events.iter().find_map(|event| match event {
        Event::MessageCompleted(event) => Some(event.notes.clone()),
        _ => None,
    });
    assert_eq!(notes.unwrap(), ["idempotency_key_not_checked"]);
    Ok(())
}
