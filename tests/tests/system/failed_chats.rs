//! Failed chats are recorded as failed, and the client gets the part of the error that concerns the client.

use harness::upstream::{Script, Step};
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack};

#[tokio::test]
async fn an_upstream_that_refuses_the_gateways_key_is_a_recorded_502() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let (conversation, _) = stack.finished_chat(&ann, "fine").await?;
    let other = stack.another_gateway(|settings| settings.llm_api_key = Some("sk-wrong-0123456789".into())).await?;
    for conversation in [None, Some(conversation)] {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}], "model": MODEL});
        if let Some(id) = conversation {
            body["conversationId"] = id.into();
        }
        let response =
            harness::http::client().post(other.url("/api/chat")).bearer_auth(&ann.token).json(&body).send().await?;
        assert_eq!(response.status(), 502);
        let text = response.text().await?;
        assert!(!text.contains("sk-wrong") && text.contains("upstream_refused_credentials"), "{text}");
    }
    let oracle = stack.settled().await?;
    let day = oracle.tables.usage_stats.values().next().unwrap();
    assert_eq!((day.api_calls, day.successful_calls, day.failed_calls), (3, 1, 2));
    Ok(())
}

#[tokio::test]
async fn an_unknown_model_gets_the_upstreams_own_error() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let body = json!({"messages": [{"role": "user", "content": "x"}], "model": "no-such-model"});
    let refusal = harness::openai::ApiError::unknown_model("no-such-model");
    stack.upstream.respond_next(Script::error(&refusal));
    let response = stack.post("/v1/chat/completions").bearer_auth(&ann.token).json(&body).send().await?;
    assert_eq!(response.status(), 404);
    assert_eq!(response.bytes().await?, refusal.body(), "the bytes received differ from the bytes sent");
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.usage_stats.values().next().unwrap().failed_calls, 1);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_and_is_recorded() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let piece = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\n";
    stack.upstream.respond_next(Script::stream([piece]).after(1, Step::Cut));
    let response = stack.chat(&ann, "x").send().await?;
    assert_eq!(response.status(), 200);
    assert!(
        response.bytes().await.is_err(),
        "a broken response must not end cleanly, as a clean end looks like success"
    );
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.usage_stats.values().next().unwrap().failed_calls, 1);
    assert!(oracle.tables.messages.values().any(|message| message.content == "half"));
    Ok(())
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_recorded_502() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let other = stack.another_gateway(|settings| settings.llm_base_url = "http://127.0.0.1:9/v1".into()).await?;
    let body = json!({"messages": [{"role": "user", "content": "x"}], "model": MODEL});
    let response =
        harness::http::client().post(other.url("/api/chat")).bearer_auth(&ann.token).json(&body).send().await?;
    assert_eq!(response.status(), 502);
    assert_eq!(response.json::<Value>().await?["error"]["code"], "upstream_unreachable");
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.usage_stats.values().next().unwrap().failed_calls, 1);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_the_client_leaves_is_recorded_up_to_there() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let piece = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"heard\"}}]}\n\n";
    stack.upstream.respond_next(Script::stream([piece]).after(1, Step::Hang));
    let mut response = stack.chat(&ann, "x").send().await?;
    assert!(response.chunk().await?.is_some());
    drop(response);
    stack.upstream.chat(1).await.ended().await;
    // The upstream connection is closed before the end event reaches the stream, so the test waits for the event.
    while stack.events().await? < 2 {
        tokio::task::yield_now().await;
    }
    let oracle = stack.settled().await?;
    let message = oracle.tables.messages.values().find(|message| message.content == "heard").unwrap();
    assert_eq!(message.finish_reason.as_deref(), Some("client_gone"));
    Ok(())
}
