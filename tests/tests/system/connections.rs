//! Connections to upstreams: HTTP/2 where the upstream offers HTTP/2, and failed connections in the client's view.

use std::time::Duration;

use futures_util::future::try_join_all;
use harness::services::Gateway;
use harness::upstream::{Gate, Script, ScriptedUpstream, Step};
use http::Version;
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack, User, streamed_text};

const PIECE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\n";

/// Starts an upstream over TLS as `localhost`, with HTTP/2, and returns the certificate in PEM.
async fn start_tls() -> anyhow::Result<(ScriptedUpstream, String)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let upstream = ScriptedUpstream::start_tls(made.cert.der().clone(), key.into()).await?;
    Ok((upstream, made.cert.pem()))
}

/// Starts a gateway with a provider over TLS.
async fn over_tls(stack: &Stack) -> anyhow::Result<(Gateway, ScriptedUpstream, tempfile::TempDir)> {
    let (upstream, certificate) = start_tls().await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, certificate)?;
    let gateway = stack
        .another_gateway(|settings| {
            settings.llm_base_url = upstream.base_url();
            settings.llm_api_key = Some(upstream.key().to_owned());
            settings.more.push(("SSL_CERT_FILE".into(), file.display().to_string()));
        })
        .await?;
    Ok((gateway, upstream, dir))
}

async fn chat(gateway: &Gateway, user: &User) -> anyhow::Result<reqwest::Response> {
    let body = json!({"messages": [{"role": "user", "content": "x"}], "model": MODEL});
    let request = harness::http::client().post(gateway.url("/api/chat")).bearer_auth(&user.token);
    Ok(request.json(&body).send().await?)
}

#[tokio::test]
async fn use_http_2_where_the_upstream_offers_it_and_are_shared_by_many_chats() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let (gateway, upstream, _dir) = over_tls(&stack).await?;
    let gate = Gate::new();
    let script = Script::stream([PIECE, "data: [DONE]\n\n"]).after(1, Step::Wait(gate.clone()));
    upstream.respond_with(move |_| script.clone());
    let answers = try_join_all((0..20).map(|_| chat(&gateway, &ann))).await?;
    gate.reached(20).await;
    assert_eq!(upstream.connections(), 1, "all open chats must share one connection");
    gate.open();
    for answer in answers {
        assert_eq!(answer.status(), 200);
        let text = answer.text().await?;
        assert!(text.ends_with("[DONE]\n\n"));
        assert_eq!(streamed_text(&text), "half");
    }
    assert!(upstream.chats().iter().all(|chat| chat.version == Version::HTTP_2));
    assert_eq!(stack.settled().await?.tables.chats.len(), 20);
    Ok(())
}

#[tokio::test]
async fn an_answer_over_http_2_that_breaks_off_breaks_off_for_the_client() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let (gateway, upstream, _dir) = over_tls(&stack).await?;
    upstream.respond_next(Script::stream([PIECE]).after(1, Step::Cut));
    let response = chat(&gateway, &ann).await?;
    assert_eq!(response.status(), 200);
    assert!(
        response.bytes().await.is_err(),
        "a broken response must not end cleanly, as a clean end looks like success"
    );
    // A client that disconnects ends its own upstream exchange and no other exchange.
    upstream.respond_next(Script::stream([PIECE]).after(1, Step::Hang));
    let mut left = chat(&gateway, &ann).await?;
    assert!(left.chunk().await?.is_some());
    drop(left);
    upstream.chat(2).await.ended().await;
    assert_eq!(chat(&gateway, &ann).await?.text().await?.matches("[DONE]").count(), 1);
    assert_eq!(upstream.connections(), 1);
    let oracle = stack.settled().await?;
    let day = oracle.tables.usage_stats.values().next().unwrap();
    assert_eq!((day.successful_calls, day.failed_calls), (2, 1));
    assert_eq!(oracle.tables.messages.values().filter(|message| message.content == "half").count(), 2);
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_an_error_of_its_own() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let (_, upstream, _dir) = over_tls(&stack).await?;
    let (_, other) = start_tls().await?;
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("ca.pem"), other)?;
    let gateway = stack
        .another_gateway(|settings| {
            settings.instance = "gateway-3".into();
            settings.data_dir = dir.path().join("data");
            settings.llm_base_url = upstream.base_url();
            settings.more.push(("SSL_CERT_FILE".into(), dir.path().join("ca.pem").display().to_string()));
        })
        .await?;
    let response = chat(&gateway, &ann).await?;
    assert_eq!(response.status(), 502);
    assert_eq!(response.json::<Value>().await?["error"]["code"], "upstream_tls");
    Ok(())
}

/// Each timeout has a different error.
#[tokio::test]
async fn to_upstreams_that_hang_are_closed() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[
        ("GATEWAY_HEAD_TIMEOUT", "1s"),
        ("GATEWAY_IDLE_TIMEOUT", "1s"),
        ("GATEWAY_TOTAL_TIMEOUT", "4s"),
    ])
    .await?;
    let ann = stack.user("ann").await?;

    // No response head: the gateway retries, up to its limit.
    stack.upstream.respond_with(|_| Script::new(http::StatusCode::OK).before(Step::Hang));
    let response = stack.chat(&ann, "x").send().await?;
    assert_eq!(response.status(), 504);
    assert_eq!(response.json::<Value>().await?["error"]["code"], "upstream_head_timeout");

    // The upstream stops in the middle of the stream.
    stack.upstream.respond_with(|_| Script::stream([PIECE]).after(1, Step::Hang));
    let response = stack.chat(&ann, "x").send().await?;
    assert!(response.bytes().await.is_err());

    // The upstream sends a chunk every 300 ms and exceeds the time limit of the whole response.
    stack.upstream.respond_with(|_| Script::stream([PIECE; 1000]).paced(Duration::from_millis(300)));
    let response = stack.chat(&ann, "x").send().await?;
    assert!(response.bytes().await.is_err());

    let oracle = stack.settled().await?;
    let mut failures: Vec<_> = oracle
        .events
        .iter()
        .filter_map(|event| match event {
            shared::event::Event::ChatFailed(event) => {
                Some((event.stage.as_str(), event.error.kind.clone().unwrap_or_default(), event.message.is_some()))
            }
            _ => None,
        })
        .collect();
    failures.sort();
    let expected = [
        ("upstream_connect", "upstream_head_timeout".to_owned(), false),
        ("upstream_stream", "upstream_idle_timeout".to_owned(), true),
        ("upstream_stream", "upstream_total_timeout".to_owned(), true),
    ];
    assert_eq!(failures, expected);
    Ok(())
}
