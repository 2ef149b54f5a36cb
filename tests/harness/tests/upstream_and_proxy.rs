//! The scripted upstream follows scripts, and the proxy makes the faults of a test.

use std::time::Duration;

use futures_util::StreamExt as _;
use harness::fault_proxy::FaultProxy;
use harness::http::client;
use harness::openai::DONE;
use harness::upstream::{Ending, Gate, Script, ScriptedUpstream, ServedTotals, Step};
use tokio::time::timeout;

fn chat(upstream: &ScriptedUpstream, body: &'static str) -> reqwest::RequestBuilder {
    let url = format!("{}/chat/completions", upstream.base_url());
    client().post(url).bearer_auth(upstream.key()).body(body)
}

const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"a b"}],"stream":true}"#;

#[tokio::test]
async fn a_gate_holds_the_stream_where_it_stands() -> anyhow::Result<()> {
    let upstream = ScriptedUpstream::start().await?;
    let gate = Gate::new();
    upstream.respond_next(Script::stream([&b"data: {}\n\n"[..], DONE]).after(1, Step::Wait(gate.clone())));
    let mut body = chat(&upstream, BODY).send().await?.bytes_stream();
    assert_eq!(body.next().await.transpose()?.as_deref(), Some(&b"data: {}\n\n"[..]));
    gate.reached(1).await;
    gate.open();
    assert_eq!(body.next().await.transpose()?.as_deref(), Some(DONE));
    assert!(body.next().await.is_none());
    assert_eq!(upstream.chat(1).await.ended().await, Ending::Complete);
    Ok(())
}

#[tokio::test]
async fn the_account_tells_what_was_served_refused_and_broken() -> anyhow::Result<()> {
    let upstream = ScriptedUpstream::start().await?;
    assert!(chat(&upstream, BODY).send().await?.text().await?.ends_with("data: [DONE]\n\n"));
    assert_eq!(chat(&upstream, r#"{"model":"m","messages":[]}"#).send().await?.status(), 400);
    let url = format!("{}/chat/completions", upstream.base_url());
    assert_eq!(client().post(url).bearer_auth("wrong").body(BODY).send().await?.status(), 401);

    let whole = r#"{"model":"m","messages":[{"role":"user","content":"a b"}]}"#;
    assert_eq!(chat(&upstream, whole).send().await?.json::<serde_json::Value>().await?["usage"]["total_tokens"], 10);

    upstream.respond_next(Script::stream(["data: {}\n\n"]).after(1, Step::Cut));
    assert!(chat(&upstream, BODY).send().await?.bytes().await.is_err());
    upstream.respond_next(Script::stream(["never"]).before(Step::Cut));
    assert!(chat(&upstream, BODY).send().await.is_err());
    upstream.respond_next(Script::stream(["data: {}\n\n"]).after(1, Step::Hang));
    drop(chat(&upstream, BODY).send().await?);
    assert_eq!(upstream.chat(6).await.ended().await, Ending::ClientGone);
    let ServedTotals { completed, refused, broken, usage } = upstream.served();
    assert_eq!((completed, refused, broken, usage.total_tokens()), (2, 2, 3, 2 * (6 + 4)));
    Ok(())
}

#[tokio::test]
async fn a_proxy_cuts_stalls_and_restores() -> anyhow::Result<()> {
    let upstream = ScriptedUpstream::start().await?;
    let proxy = FaultProxy::start(upstream.address()).await?;
    let models = format!("http://{}/v1/models", proxy.address());
    let client = client();
    let ask = || client.get(&models).bearer_auth(upstream.key()).send();
    assert!(ask().await?.status().is_success());
    proxy.stall();
    assert!(timeout(Duration::from_millis(100), ask()).await.is_err());
    proxy.restore();
    assert!(ask().await?.status().is_success());
    proxy.cut();
    assert!(ask().await.is_err());
    proxy.restore();
    assert!(ask().await?.status().is_success());
    Ok(())
}
