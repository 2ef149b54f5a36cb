//! Request bodies: compressed ones are decoded, and bodies that are large, slow or unfinished keep no other caller out.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use harness::upstream::Script;
use http::StatusCode;
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack, User};

const CHAT_ANSWER: &str = r#"{"id":"c1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"done"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
const RESPONSES_ANSWER: &str = r#"{"id":"resp_1","object":"response","status":"completed","model":"m","output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"done"}]}],"usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}}"#;
const MESSAGES_ANSWER: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"done"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;

fn answer(path: &str) -> Script {
    let body = match path {
        "/v1/responses" => RESPONSES_ANSWER,
        "/v1/messages" => MESSAGES_ANSWER,
        "/v1/messages/count_tokens" => r#"{"input_tokens":1}"#,
        _ => CHAT_ANSWER,
    };
    Script::json(StatusCode::OK, body)
}

fn encode(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut encoded = body.to_vec();
    for name in encoding.split(',').map(str::trim) {
        encoded = match name {
            "gzip" | "x-gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(&encoded).and_then(|()| encoder.finish()).expect("writing to a vector")
            }
            "deflate" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(&encoded).and_then(|()| encoder.finish()).expect("writing to a vector")
            }
            "zstd" => zstd::stream::encode_all(&encoded[..], 3).expect("reading from a slice"),
            _ => encoded,
        };
    }
    encoded
}

async fn post(stack: &Stack, user: &User, path: &str, encoding: &str, body: Vec<u8>) -> anyhow::Result<(u16, Value)> {
    let request = stack.post(path).bearer_auth(&user.token).header("content-type", "application/json");
    let response = request.header("content-encoding", encoding).body(body).send().await?;
    let status = response.status().as_u16();
    Ok((status, serde_json::from_str(&response.text().await?).unwrap_or_default()))
}

#[tokio::test]
async fn that_are_compressed_reach_the_upstream_decoded() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_with(|request| answer(&request.path));
    let routes = [
        ("/api/chat", json!({"model": MODEL, "stream": false, "messages": [{"role": "user", "content": "hé"}]})),
        ("/v1/chat/completions", json!({"model": MODEL, "messages": [{"role": "user", "content": "hé"}]})),
        ("/v1/responses", json!({"model": MODEL, "input": "hé"})),
        ("/v1/messages", json!({"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "hé"}]})),
        ("/v1/messages/count_tokens", json!({"model": MODEL, "messages": [{"role": "user", "content": "hé"}]})),
    ];
    let encodings = ["gzip", "x-gzip", "deflate", "zstd", "gzip, zstd", "deflate,identity,gzip", "identity"];
    let mut sent = 0;
    for (path, body) in &routes {
        for encoding in encodings {
            let body = body.to_string();
            let (status, answered) = post(&stack, &ann, path, encoding, encode(encoding, body.as_bytes())).await?;
            assert_eq!(status, 200, "{path} {encoding}: {answered}");
            if *path == "/v1/messages/count_tokens" {
                continue;
            }
            sent += 1;
            let received = stack.upstream.chat(sent).await;
            assert_eq!(received.body, body.as_bytes(), "{path} {encoding}");
            assert_eq!(received.headers["content-length"], body.len().to_string(), "{path} {encoding}");
            assert!(!received.headers.contains_key("content-encoding"), "{path} {encoding}");
        }
        let (status, refused) = post(&stack, &ann, path, "gzip, lzma", b"{}".to_vec()).await?;
        assert_eq!(status, 415, "{path}: {refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("\"lzma\""), "{refused}");
        let mut cut_off = encode("gzip", body.to_string().as_bytes());
        cut_off.truncate(cut_off.len() - 4);
        let (status, refused) = post(&stack, &ann, path, "gzip", cut_off).await?;
        assert_eq!(status, 400, "{path}: {refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("not valid gzip"), "{refused}");
    }
    let title = encode("zstd", br#"{"title":"packed"}"#);
    let (status, created) = post(&stack, &ann, "/api/conversations", "zstd", title).await?;
    assert_eq!(status, 201, "{created}");
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 4 * encodings.len(), "one chat for each body that was whole");
    let said = oracle.tables.messages.values().filter(|message| message.role == "user");
    assert!(said.into_iter().all(|message| message.content == "hé"));
    Ok(())
}

#[tokio::test]
async fn that_decode_to_too_much_are_refused() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_MAX_BODY_BYTES", "1000000")]).await?;
    let ann = stack.user("ann").await?;
    let bomb =
        format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"{}"}}]}}"#, " ".repeat(50_000_000));
    for encoding in ["gzip", "deflate", "zstd", "zstd, gzip"] {
        let encoded = encode(encoding, bomb.as_bytes());
        assert!(encoded.len() < 100_000, "{encoding}: {} bytes", encoded.len());
        let (status, refused) = post(&stack, &ann, "/v1/chat/completions", encoding, encoded).await?;
        assert_eq!(status, 413, "{encoding}: {refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("1000000 bytes"), "{refused}");
    }
    assert_eq!(stack.gateway.metric("stenograph_gateway_body_bytes").await?, 0.0);
    assert_eq!(stack.events().await?, 0);
    stack.finished_chat(&ann, "still serving").await?;
    Ok(())
}

/// Sends the head of a chat's request and a part of the body. Returns the connection.
fn begin(stack: &Stack, user: &User, length: usize, part: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(stack.gateway.address())?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{part}",
        user.token
    )?;
    Ok(stream)
}

/// Begins a body of 100,000 bytes until the gateway holds its first part, so that all bodies hold `bytes` bytes. The place of
/// a chat that has ended is free a moment after the client has seen the end; until then the gateway refuses the body.
async fn begin_until_held(stack: &Stack, user: &User, part: &str, bytes: f64) -> anyhow::Result<TcpStream> {
    let mut refused = String::new();
    for _ in 0..20 {
        let stream = begin(stack, user, 100_000, part)?;
        if let Ok(held) = tokio::time::timeout(Duration::from_secs(5), until_body_bytes(stack, bytes)).await {
            return held.map(|()| stream);
        }
        refused = answered(stream).await?;
    }
    anyhow::bail!("the gateway never held {bytes} bytes of bodies, but said {refused}")
}

async fn answered(mut stream: TcpStream) -> anyhow::Result<String> {
    let read = move || {
        let mut response = String::new();
        stream.read_to_string(&mut response).map(|_| response)
    };
    Ok(tokio::task::spawn_blocking(read).await??)
}

async fn until_body_bytes(stack: &Stack, bytes: f64) -> anyhow::Result<()> {
    let held = async {
        while stack.gateway.metric("stenograph_gateway_body_bytes").await? != bytes {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(60), held).await?
}

/// The text of a chat's request whose body has `bytes` bytes.
fn body_of(bytes: usize) -> String {
    let frame = |text: &str| format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    frame(&"x".repeat(bytes - frame("").len()))
}

#[tokio::test]
async fn that_are_unfinished_take_no_more_than_a_share_of_places_and_memory() -> anyhow::Result<()> {
    let settings = [
        ("GATEWAY_MAX_CHATS", "4"),
        ("GATEWAY_CHATS_USER_SHARE", "100"),
        ("GATEWAY_MAX_BODY_BYTES", "100000"),
        ("GATEWAY_MAX_BODY_MEMORY", "400000"),
        ("GATEWAY_BODY_USER_SHARE", "50"),
        ("GATEWAY_READ_TIMEOUT", "120s"),
    ];
    let stack = Stack::with_gateway(&settings).await?;
    let (ann, bob, eve) = (stack.user("ann").await?, stack.user("bob").await?, stack.user("eve").await?);
    let body = body_of(100_000);
    let half = &body[..90_000];
    let (first, second) = (begin(&stack, &ann, 100_000, half)?, begin(&stack, &ann, 100_000, half)?);
    until_body_bytes(&stack, 180_000.0).await?;
    let refused = answered(begin(&stack, &ann, 100_000, &body[..1_000])?).await?;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n") && refused.contains("too_many_bodies"), "{refused}");
    stack.finished_chat(&bob, "another user has a place").await?;

    let third = begin(&stack, &bob, 100_000, half)?;
    until_body_bytes(&stack, 270_000.0).await?;
    let fourth = begin_until_held(&stack, &eve, half, 360_000.0).await?;
    let refused = stack.chat(&eve, "no place is left").send().await?;
    assert_eq!(
        (refused.status().as_u16(), &refused.json::<Value>().await?["error"]["code"]),
        (503, &"overloaded".into())
    );
    // The request takes no place of a chat, but memory.
    let request = stack.post("/v1/messages/count_tokens").bearer_auth(&eve.token);
    let refused = request.header("content-type", "application/json").body(body_of(50_000)).send().await?;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    let refused: Value = refused.json().await?;
    assert_eq!((&refused["type"], &refused["error"]["type"]), (&"error".into(), &"overloaded_error".into()));

    for mut stream in [first, second, third, fourth] {
        stream.write_all(&body.as_bytes()[90_000..])?;
        let response = answered(stream).await?;
        assert!(response.starts_with("HTTP/1.1 200"), "{response:.200}");
    }
    until_body_bytes(&stack, 0.0).await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 5);
    Ok(())
}

#[tokio::test]
async fn that_arrive_slowly_are_read_while_they_keep_the_minimum_rate() -> anyhow::Result<()> {
    let settings = [("GATEWAY_READ_TIMEOUT", "1s"), ("GATEWAY_MIN_BODY_RATE", "1000")];
    let stack = Stack::with_gateway(&settings).await?;
    let ann = stack.user("ann").await?;
    let body = body_of(120_000);
    // The first 60,000 bytes allow for a minute.
    let mut slow = begin(&stack, &ann, body.len(), &body[..60_000])?;
    let stalled = answered(begin(&stack, &ann, body.len(), &body[..100])?).await?;
    assert!(stalled.starts_with("HTTP/1.1 408"), "{stalled:.200}");
    slow.write_all(&body.as_bytes()[60_000..])?;
    let response = answered(slow).await?;
    assert!(response.starts_with("HTTP/1.1 200"), "{response:.200}");
    // A client that announces more than it sends and leaves.
    drop(begin(&stack, &ann, body.len(), &body[..100])?);
    until_body_bytes(&stack, 0.0).await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 1);
    Ok(())
}

#[tokio::test]
async fn of_fifty_megabytes_reach_the_upstream_and_the_record() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_with(|request| answer(&request.path));
    let picture = format!("data:image/png;base64,{}", "iVBORw0K".repeat(50_000_000 / 8));
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": picture}},
    ]}]})
    .to_string();
    let (status, answered) = post(&stack, &ann, "/v1/chat/completions", "identity", body.clone().into_bytes()).await?;
    assert_eq!(status, 200, "{answered}");
    assert!(stack.upstream.chat(1).await.body == body.as_bytes(), "the upstream must get the body as sent");
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 1);
    let contents: Vec<&str> = oracle.tables.messages.values().map(|message| message.content.as_str()).collect();
    assert!(contents.contains(&"what is this?") && contents.contains(&"done"), "{contents:?}");
    let recorded = oracle.events.iter().find_map(|event| match event {
        shared::event::Event::ChatStarted(event) => event.messages.as_ref().map(|messages| messages.get()),
        _ => None,
    });
    assert!(recorded.is_some_and(|messages| messages.contains(&picture)), "the event must have the whole picture");
    Ok(())
}
