//! Clients at the level of TCP: a client that never reads, a client that writes the whole request before reading, and a client
//! of HTTP/1.0.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use harness::upstream::{Script, Step};
use serde_json::json;
use tests::stack::{MODEL, Stack, User};

const PIECE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\n";

/// Opens a connection with a time limit on reads and writes.
fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// A request for a chat.
fn chat(version: &str, token: &str, text: &str) -> Vec<u8> {
    let body = json!({"messages": [{"role": "user", "content": text}], "model": MODEL, "stream": true}).to_string();
    let length = body.len();
    let head = format!(
        "POST /v1/chat/completions {version}\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// More than all the buffers between the upstream and a client hold.
fn without_end() -> Script {
    let large = PIECE.replace("half", &"x".repeat(64 << 10));
    Script::stream(std::iter::repeat_n(large, 1000)).after(1000, Step::Hang)
}

async fn until_none_is_open(stack: &Stack) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    while stack.gateway.metric("stenograph_gateway_chats_open").await? > 0.0 {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(120), "the chat is still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(begun.elapsed())
}

async fn began(stack: &Stack) -> anyhow::Result<()> {
    while stack.gateway.metric("stenograph_gateway_chats_started_total").await? < 1.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn asks(stack: &Stack, ann: &User) -> anyhow::Result<TcpStream> {
    let mut client = connect(stack.gateway.address())?;
    client.write_all(&chat("HTTP/1.1", &ann.token, "x"))?;
    began(stack).await?;
    Ok(client)
}

#[tokio::test]
async fn that_never_read_are_disconnected() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_IDLE_TIMEOUT", "1s")]).await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_with(|_| without_end());
    let client = asks(&stack, &ann).await?;
    until_none_is_open(&stack).await?;
    let oracle = stack.settled().await?;
    let message = oracle.tables.messages.values().find(|message| message.role == "assistant").unwrap();
    assert_eq!(message.finish_reason.as_deref(), Some("client_gone"));
    // Metrics have a listener of their own, so the request for the metric is not among the connections.
    let begun = Instant::now();
    while stack.gateway.metric("stenograph_gateway_connections").await? > 0.0 {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "the client is still connected");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(client);
    Ok(())
}

#[tokio::test]
async fn that_read_slowly_are_served_up_to_the_time_limit_of_an_answer() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_IDLE_TIMEOUT", "2s"), ("GATEWAY_TOTAL_TIMEOUT", "5s")]).await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_with(|_| without_end());
    let begun = Instant::now();
    let mut client = asks(&stack, &ann).await?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut some = vec![0; 256 << 10];
        loop {
            match client.read(&mut some) {
                Ok(0) => break None,
                Ok(_) => std::thread::sleep(Duration::from_millis(100)),
                Err(error) => break Some(error.kind()),
            }
        }
    });
    until_none_is_open(&stack).await?;
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(
        reading.await?,
        Some(std::io::ErrorKind::ConnectionReset),
        "a clean close leaves the unread bytes in the kernel for as long as the client likes"
    );
    let oracle = stack.settled().await?;
    let failure = oracle.events.iter().find_map(|event| match event {
        shared::event::Event::ChatFailed(event) => event.error.kind.clone(),
        _ => None,
    });
    assert_eq!(failure.as_deref(), Some("upstream_total_timeout"));
    Ok(())
}

#[tokio::test]
async fn that_write_the_whole_request_first_can_read_the_refusal() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[("GATEWAY_MAX_BODY_BYTES", "3145728")], &[]).await?;
    let ann = stack.user("ann").await?;
    let expired = stack.recorder.token("ann", "-1h").await?;
    let address = stack.gateway.address();
    let refused = tokio::task::spawn_blocking(move || {
        let status = |request: &[u8]| -> anyhow::Result<String> {
            let mut client = connect(address)?;
            client.write_all(request)?;
            let mut answer = [0; 12];
            client.read_exact(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let large = "x".repeat(5 << 20);
        for time in 0..20 {
            let answer = status(&chat("HTTP/1.1", &expired, &large)).map_err(|error| error.context(time))?;
            assert_eq!(answer, "HTTP/1.1 401");
        }
        for time in 0..5 {
            let answer = status(&chat("HTTP/1.1", &ann.token, &large)).map_err(|error| error.context(time))?;
            assert_eq!(answer, "HTTP/1.1 413");
        }
        // Forwarded requests have a size limit of their own.
        let body = "x".repeat(2 << 20);
        let login =
            format!("POST /api/auth/login HTTP/1.1\r\nhost: gateway\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(status(login.as_bytes())?, "HTTP/1.1 413");
        // A client that sends Expect: 100-continue gets the refusal at once, without 100 Continue.
        let mut client = connect(address)?;
        client.write_all(
            b"POST /api/chat HTTP/1.1\r\nhost: gateway\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n",
        )?;
        let mut answer = [0; 12];
        client.read_exact(&mut answer)?;
        assert_eq!(&answer, b"HTTP/1.1 401");
        anyhow::Ok(())
    });
    refused.await??;
    assert_eq!(stack.events().await?, 0);
    Ok(())
}

#[tokio::test]
async fn over_http_1_0_see_an_answer_that_breaks_off_break_off() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    for is_cut in [false, true] {
        let script =
            Script::stream([PIECE, "data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\",\"delta\":{}}]}\n\n"]);
        stack.upstream.respond_next(if is_cut { script.after(1, Step::Cut) } else { script });
        let (address, token) = (stack.gateway.address(), ann.token.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut client = connect(address)?;
            client.write_all(&chat("HTTP/1.0", &token, "x"))?;
            let mut body = Vec::new();
            let end = client.read_to_end(&mut body);
            std::io::Result::Ok((String::from_utf8_lossy(&body).into_owned(), end.is_ok()))
        });
        let (answer, is_clean) = read.await??;
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        assert_eq!(is_clean, !is_cut, "{answer}");
        assert!(is_cut || answer.contains("half"), "{answer}");
    }
    stack.settled().await?;
    Ok(())
}
