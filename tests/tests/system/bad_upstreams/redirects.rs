//! Upstreams that answer with a redirect: nothing follows it, neither the gateway nor the client.

use bytes::Bytes;
use harness::upstream::{RawUpstream, ReceivedRequest, Script, ScriptedUpstream};
use http::StatusCode;
use http::header::LOCATION;
use serde_json::{Value, json};
use shared::event::FailureStage;
use tests::stack::Stack;

use super::{END, PIECE, chat, failure, model_of, read, routed};

#[tokio::test]
async fn a_redirect_is_not_passed_on_to_the_client() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let scripted = ScriptedUpstream::start().await?;
    let away = |status| Script::new(status).header(LOCATION, "http://127.0.0.1:9/v1/away");
    scripted.respond_with(move |request: &ReceivedRequest| match model_of(&request.body).as_str() {
        "moved" => away(StatusCode::PERMANENT_REDIRECT),
        "found" => away(StatusCode::FOUND),
        "made" => Script::stream([PIECE, END]).header(LOCATION, "/v1/made"),
        _ => away(StatusCode::TEMPORARY_REDIRECT),
    });
    let url = scripted.base_url();
    let (gateway, _dir) =
        routed(&stack, &[("moved", &url, ""), ("found", &url, ""), ("made", &url, "")], scripted.key()).await?;
    for model in ["moved", "found"] {
        let response = chat(&gateway, &ann, model).await?;
        assert_eq!((response.status(), response.headers().get(LOCATION)), (StatusCode::BAD_GATEWAY, None));
        assert!(response.headers().contains_key("x-chat-id"));
        assert_eq!(response.json::<Value>().await?["error"]["code"], "upstream_redirected");
    }
    let response = chat(&gateway, &ann, "made").await?;
    assert_eq!((response.status(), response.headers().get(LOCATION)), (StatusCode::OK, None));
    assert!(read(response).await.1);

    // Requests other than chats do not follow redirects either.
    let raw = RawUpstream::start(|_| {
        Bytes::from_static(b"HTTP/1.1 302 Found\r\nlocation: /away\r\ncontent-length: 0\r\n\r\n")
    })
    .await?;
    let dir = tempfile::tempdir()?;
    let provider = stack.another_gateway(|settings| {
        settings.instance = "gateway-3".into();
        settings.data_dir = dir.path().join("data");
        settings.llm_base_url = raw.base_url();
    });
    let (provider, client) = (provider.await?, harness::http::client());
    let question = json!({"model": "moved", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]});
    let counting = client.post(provider.url("/v1/messages/count_tokens")).json(&question);
    for request in [counting, client.get(provider.url("/v1/models"))] {
        let response = request.bearer_auth(&ann.token).send().await?;
        assert_eq!((response.status(), response.headers().get(LOCATION)), (StatusCode::BAD_GATEWAY, None));
    }

    let oracle = stack.settled().await?;
    for (model, status) in [("moved", 308), ("found", 302)] {
        let (stage, _, said, attempts) = failure(&oracle, model);
        assert_eq!((stage, said, attempts), (FailureStage::UpstreamStatus, Some(status), 1), "{model}");
    }
    Ok(())
}
