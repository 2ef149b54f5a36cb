//! Faulty upstreams: the client's view and the record, for each of the outcomes in docs/RELIABILITY.md.

mod redirects;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harness::openai::ApiError;
use harness::services::Gateway;
use harness::upstream::{Gate, RawUpstream, ReceivedRequest, Script, ScriptedUpstream, Step};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use recorder::projection::chat::{Chat, ChatOutcome};
use serde_json::{Value, json};
use shared::event::FailureStage;
use tests::oracle::Oracle;
use tests::stack::{Stack, User, streamed_text};

const PIECE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\n";
const END: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Starts a gateway with a route and an upstream for each of these models, given as the upstream's URL and settings.
async fn routed(
    stack: &Stack,
    models: &[(&str, &str, &str)],
    key: &str,
) -> anyhow::Result<(Gateway, tempfile::TempDir)> {
    let mut routes = String::new();
    for (model, url, settings) in models {
        write!(routes, "[upstreams.{model}]\nbase_url = \"{url}\"\nkey_from = \"KEY\"\n{settings}\n")?;
        write!(routes, "[[routes]]\nmodels = [\"{model}\"]\nupstreams = [\"{model}\"]\n\n")?;
    }
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("routes.toml");
    std::fs::write(&file, routes)?;
    let gateway = stack.another_gateway(|settings| {
        settings.more.push(("GATEWAY_ROUTES_FILE".into(), file.display().to_string()));
        settings.more.push(("KEY".into(), key.into()));
    });
    Ok((gateway.await?, dir))
}

async fn chat(gateway: &Gateway, user: &User, model: &str) -> anyhow::Result<reqwest::Response> {
    let body = json!({"messages": [{"role": "user", "content": "x"}], "model": model, "stream": true});
    let request = harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(&user.token);
    Ok(request.json(&body).send().await?)
}

/// Bytes of the body before the end, and whether the end was clean.
async fn read(mut response: reqwest::Response) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return (body, true),
            Err(_) => return (body, false),
        }
    }
}

fn model_of(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["model"].as_str().unwrap_or_default().to_owned()
}

fn row<'a>(oracle: &'a Oracle, model: &str) -> &'a Chat {
    let mut rows = oracle.tables.chats.values().filter(|chat| chat.model == model);
    let row = rows.next().expect("the chat is in the tables");
    assert!(rows.next().is_none(), "{model}: expected one row for one chat");
    row
}

/// The stage, the type of the error, the status, and the number of attempts of a chat that failed.
fn failure(oracle: &Oracle, model: &str) -> (FailureStage, Option<String>, Option<u16>, usize) {
    let ending = row(oracle, model).ending.as_ref().expect("the chat has ended");
    let ChatOutcome::Failed { stage, error } = &ending.outcome else { panic!("{model}: {:?}", ending.outcome) };
    let attempts: Vec<Value> = serde_json::from_str(ending.attempts.as_str()).expect("a list");
    (*stage, error.kind.clone(), error.status, attempts.len())
}

fn answer(oracle: &Oracle, model: &str) -> Option<String> {
    let chat = row(oracle, model);
    let message = chat.chat_id.assistant_message();
    oracle.tables.messages.get(&message).map(|message| message.content.clone())
}

fn is_completed(oracle: &Oracle, model: &str) -> bool {
    matches!(row(oracle, model).ending.as_ref().expect("the chat has ended").outcome, ChatOutcome::Completed)
}

#[tokio::test]
async fn each_failure_before_the_head_has_an_error_of_its_own() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let scripted = ScriptedUpstream::start().await?;
    let limited = ApiError::rate_limited();
    let unwell = r#"{"error":{"message":"unwell","type":"server_error"}}"#;
    let refusal = limited.clone();
    scripted.respond_with(move |request: &ReceivedRequest| match model_of(&request.body).as_str() {
        "limited" => Script::error(&refusal).header(RETRY_AFTER, "3600"),
        "unwell" => Script::json(StatusCode::INTERNAL_SERVER_ERROR, unwell),
        "closes" => Script::new(StatusCode::OK).before(Step::Cut),
        _ => Script::new(StatusCode::OK).before(Step::Hang),
    });
    let raw = RawUpstream::start(|body| match model_of(body).as_str() {
        "closes-in-headers" => Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-type: text/eve"),
        "no-http" => Bytes::from_static(b"220 smtp.example.com ESMTP ready\r\n"),
        _ => Bytes::from((0..4096_u32).map(|n| (n * 7919 % 251) as u8).collect::<Vec<_>>()),
    })
    .await?;
    let (url, raw_url) = (scripted.base_url(), raw.base_url());
    let models = [
        ("limited", url.as_str(), ""),
        ("unwell", &url, ""),
        ("closes", &url, ""),
        ("hangs", &url, "head_timeout = \"300ms\""),
        ("closes-in-headers", &raw_url, ""),
        ("no-http", &raw_url, ""),
        ("binary", &raw_url, ""),
    ];
    let (gateway, _dir) = routed(&stack, &models, scripted.key()).await?;

    let response = chat(&gateway, &ann, "limited").await?;
    assert_eq!(
        (response.status(), &response.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"3600".parse()?)
    );
    assert_eq!(response.bytes().await?, limited.body(), "the bytes received differ from the bytes sent");
    let response = chat(&gateway, &ann, "unwell").await?;
    assert_eq!((response.status(), response.text().await?), (StatusCode::INTERNAL_SERVER_ERROR, unwell.to_owned()));
    let ours = [
        ("closes", StatusCode::BAD_GATEWAY, "upstream_broken"),
        ("hangs", StatusCode::GATEWAY_TIMEOUT, "upstream_head_timeout"),
        ("closes-in-headers", StatusCode::BAD_GATEWAY, "upstream_broken"),
        ("no-http", StatusCode::BAD_GATEWAY, "upstream_broken"),
        ("binary", StatusCode::BAD_GATEWAY, "upstream_broken"),
    ];
    for (model, status, code) in ours {
        let response = chat(&gateway, &ann, model).await?;
        assert_eq!(response.status(), status, "{model}");
        assert_eq!(response.json::<Value>().await?["error"]["code"], code, "{model}");
    }

    let oracle = stack.settled().await?;
    let kind = |kind: &str| Some(kind.to_owned());
    // The gateway does not wait an hour for a retry, and sends no request again that has reached the upstream, so one attempt
    // was made in both cases; the other failures have two attempts.
    assert_eq!(failure(&oracle, "limited"), (FailureStage::UpstreamStatus, kind("requests"), Some(429), 1));
    assert_eq!(failure(&oracle, "unwell"), (FailureStage::UpstreamStatus, kind("server_error"), Some(500), 2));
    for (model, _, code) in ours {
        let attempts = if model == "hangs" { 1 } else { 2 };
        assert_eq!(failure(&oracle, model), (FailureStage::UpstreamConnect, kind(code), None, attempts), "{model}");
        assert_eq!(answer(&oracle, model), None, "{model}");
    }
    let day = oracle.tables.usage_stats.values().next().unwrap();
    assert_eq!((day.api_calls, day.failed_calls), (7, 7));
    Ok(())
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_and_its_part_is_recorded() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let scripted = ScriptedUpstream::start().await?;
    let gate = Gate::new();
    let silent = gate.clone();
    scripted.respond_with(move |_| Script::stream([PIECE]).after(1, Step::Wait(silent.clone())).after(1, Step::Hang));
    let raw = RawUpstream::start(|body| {
        let chunk = format!("{HEAD}{:x}\r\n{PIECE}\r\n", PIECE.len());
        match model_of(body).as_str() {
            "no-last-chunk" => chunk.into(),
            "no-chunk-size" => format!("{chunk}this is no size\r\n{PIECE}").into(),
            // The size of the last chunk is larger than the bytes sent.
            _ => format!("{chunk}{:x}\r\n{}", PIECE.len(), &PIECE[..20]).into(),
        }
    })
    .await?;
    let (url, raw_url) = (scripted.base_url(), raw.base_url());
    let models = [
        ("hangs", url.as_str(), "idle_timeout = \"500ms\""),
        ("no-last-chunk", &raw_url, ""),
        ("no-chunk-size", &raw_url, ""),
        ("half-a-chunk", &raw_url, ""),
    ];
    let (gateway, _dir) = routed(&stack, &models, scripted.key()).await?;
    for (model, _, _) in &models {
        let response = chat(&gateway, &ann, model).await?;
        assert_eq!(response.status(), 200, "{model}");
        let (body, is_clean) = read(response).await;
        assert!(!is_clean, "{model}: a broken response must not end cleanly, as a clean end looks like success");
        assert!(body.starts_with(PIECE.as_bytes()), "{model}: {}", String::from_utf8_lossy(&body));
    }
    let oracle = stack.settled().await?;
    for (model, _, _) in &models {
        let code = if *model == "hangs" { "upstream_idle_timeout" } else { "upstream_broken" };
        assert_eq!(failure(&oracle, model), (FailureStage::UpstreamStream, Some(code.into()), None, 1), "{model}");
        assert_eq!(answer(&oracle, model).as_deref(), Some("half"), "{model}");
    }
    Ok(())
}

#[tokio::test]
async fn very_large_and_very_slow_answers_pass_and_are_recorded() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let scripted = ScriptedUpstream::start().await?;
    let text = "0123456789abcdef".repeat(1 << 16);
    let large = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    // 24,000 chunks, as many as a 20-minute stream with a chunk every 50 ms.
    let tiny: Arc<Vec<String>> = Arc::new((0..24_000).map(|n| PIECE.replace("half", &format!("{n} "))).collect());
    let said: String = (0..24_000).fold(String::new(), |said, n| said + &*format!("{n} "));
    let (one, many) = (large.clone(), Arc::clone(&tiny));
    scripted.respond_with(move |request: &ReceivedRequest| match model_of(&request.body).as_str() {
        "large" => Script::stream([one.clone(), END.to_owned()]),
        _ => Script::stream(many.iter().cloned().chain([END.to_owned()])),
    });
    let url = scripted.base_url();
    let (gateway, _dir) = routed(&stack, &[("large", &url, ""), ("tiny", &url, "")], scripted.key()).await?;
    let (body, is_clean) = read(chat(&gateway, &ann, "large").await?).await;
    assert!(is_clean && body == format!("{large}{END}").into_bytes(), "the bytes received differ from the bytes sent");
    let (body, is_clean) = read(chat(&gateway, &ann, "tiny").await?).await;
    assert!(
        is_clean && body == format!("{}{END}", tiny.concat()).into_bytes(),
        "the bytes received differ from the bytes sent"
    );
    assert_eq!(streamed_text(&String::from_utf8(body)?), said);

    let oracle = stack.settled().await?;
    assert!(is_completed(&oracle, "large") && is_completed(&oracle, "tiny"));
    assert_eq!(answer(&oracle, "large"), Some(text));
    assert_eq!(answer(&oracle, "tiny"), Some(said));
    Ok(())
}

#[tokio::test]
async fn malformed_events_in_a_stream_pass_and_are_noted() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let scripted = ScriptedUpstream::start().await?;
    let noise: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let among = [PIECE.as_bytes(), b"data: ", &noise, b"\n\n", END.as_bytes()].concat();
    let (only, between) = (noise.clone(), among.clone());
    scripted.respond_with(move |request: &ReceivedRequest| match model_of(&request.body).as_str() {
        "only-garbage" => Script::stream([only.clone()]),
        "garbage-between" => Script::stream([between.clone()]),
        _ => Script {
            body: vec![Step::Send("<html>Welcome to this network</html>".into())],
            ..Script::new(StatusCode::OK)
        }
        .header(CONTENT_TYPE, "text/html"),
    });
    let url = scripted.base_url();
    let models = [("only-garbage", url.as_str(), ""), ("garbage-between", &url, ""), ("a-page", &url, "")];
    let (gateway, _dir) = routed(&stack, &models, scripted.key()).await?;
    assert_eq!(read(chat(&gateway, &ann, "only-garbage").await?).await, (noise, true));
    assert_eq!(read(chat(&gateway, &ann, "garbage-between").await?).await, (among, true));
    let (page, is_clean) = read(chat(&gateway, &ann, "a-page").await?).await;
    assert!(is_clean && page == b"<html>Welcome to this network</html>");

    let oracle = stack.settled().await?;
    assert!(is_completed(&oracle, "garbage-between"));
    assert_eq!(answer(&oracle, "garbage-between").as_deref(), Some("half"));
    let notes =
        |model: &str| row(&oracle, model).ending.as_ref().expect("the chat has ended").notes.as_str().to_owned();
    assert!(notes("garbage-between").contains("unreadable_chunk"), "{}", notes("garbage-between"));
    for model in ["only-garbage", "a-page"] {
        let (stage, kind, _, attempts) = failure(&oracle, model);
        assert_eq!((stage, attempts), (FailureStage::UpstreamStream, 1), "{model}");
        assert_eq!((kind.as_deref(), answer(&oracle, model)), (Some("empty_answer"), None), "{model}");
    }
    // After all these responses the gateway still serves chats.
    let again = Duration::from_secs(60);
    tokio::time::timeout(again, stack.finished_chat(&ann, "still there?")).await??;
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn an_answer_without_a_body_is_recorded_by_its_status() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let raw = RawUpstream::start(|body| {
        let model = model_of(body);
        let status = model.trim_start_matches("s");
        let length = if status == "204" { "" } else { "content-length: 0\r\n" };
        // The header x-should-retry: false rules out a retry, so each chat has one attempt.
        format!("HTTP/1.1 {status} Whatever\r\nx-should-retry: false\r\n{length}\r\n").into()
    })
    .await?;
    let url = raw.base_url();
    let statuses = [200, 204, 422, 429, 500, 503];
    let names: Vec<String> = statuses.iter().map(|status| format!("s{status}")).collect();
    let models: Vec<_> = names.iter().map(|name| (name.as_str(), url.as_str(), "")).collect();
    let (gateway, _dir) = routed(&stack, &models, "key").await?;
    for (name, status) in names.iter().zip(statuses) {
        let response = chat(&gateway, &ann, name).await?;
        assert_eq!(response.status().as_u16(), status);
        assert!(response.headers().contains_key("x-chat-id"));
        assert_eq!(read(response).await, (Vec::new(), true), "{name}");
        // The gateway closes the chat before the client has the whole answer, so no chat is open.
        assert_eq!(gateway.metric("stenograph_gateway_chats_open").await?, 0.0, "{name}");
    }
    let oracle = stack.settled().await?;
    for (name, status) in names.iter().zip(statuses) {
        let (stage, kind, said, attempts) = failure(&oracle, name);
        assert_eq!(attempts, 1, "{name}");
        if status < 300 {
            assert_eq!((stage, kind.as_deref()), (FailureStage::UpstreamStream, Some("empty_answer")), "{name}");
        } else {
            assert_eq!((stage, said), (FailureStage::UpstreamStatus, Some(status)), "{name}");
        }
    }
    Ok(())
}

/// A document without a length ends with the connection. The document is whole if it can be parsed to its end.
#[tokio::test]
async fn a_whole_document_may_end_with_the_connection() -> anyhow::Result<()> {
    const WHOLE: &str = r#"{"id":"r","choices":[{"message":{"role":"assistant","content":"half"}}]}"#;
    const ERROR: &str = r#"{"error":{"message":"no credit","code":402}}"#;
    let (cut, _) = WHOLE.split_at(WHOLE.len() - 3);
    let document = |model: &str| match model {
        "whole" => format!("{WHOLE}\n"),
        "error" => ERROR.to_owned(),
        "listed" => format!("[{WHOLE},{{\"choices\":[]}}]"),
        "large" => WHOLE.replace("half", &"half a word ".repeat(40_000)),
        _ => cut.to_owned(),
    };
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let raw = RawUpstream::start(move |body| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
        format!("{head}{}", document(&model_of(body))).into()
    })
    .await?;
    let url = raw.base_url();
    let models = ["whole", "error", "listed", "large", "cut"];
    let (gateway, _dir) = routed(&stack, &models.map(|model| (model, url.as_str(), "")), "key").await?;
    for model in models {
        let (bytes, is_clean) = read(chat(&gateway, &ann, model).await?).await;
        let is_whole = bytes == document(model).as_bytes();
        assert_eq!((is_clean, is_whole || model == "cut"), (model != "cut", true), "{model}: {} bytes", bytes.len());
    }
    let oracle = stack.settled().await?;
    for model in ["whole", "listed", "large"] {
        assert!(is_completed(&oracle, model), "{model}");
        assert!(answer(&oracle, model).is_some_and(|text| text.starts_with("half")), "{model}");
    }
    let error = |model: &str| match &row(&oracle, model).ending.as_ref().expect("the chat has ended").outcome {
        ChatOutcome::Failed { error, .. } => (error.kind.clone(), error.code.clone(), error.message.clone()),
        ChatOutcome::Completed => panic!("{model}: completed"),
    };
    assert_eq!(error("error"), (None, Some("402".to_owned()), "no credit".to_owned()));
    assert_eq!(error("cut").0.as_deref(), Some("upstream_broken"));
    Ok(())
}
