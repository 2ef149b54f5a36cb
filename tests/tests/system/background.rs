//! Responses that a provider makes in the background: followed, and recorded before anybody sees their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use harness::upstream::{Gate, Script, Step};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use shared::event::EventKind;
use tests::oracle::Oracle;
use tests::stack::{MODEL, Stack, User};
use tokio::time::{Instant, sleep};

const QUEUED: &str =
    r#"{"id":"resp_bg1","object":"response","model":"m-1","status":"queued","output":[],"background":true}"#;
const RUNNING: &str =
    r#"{"id":"resp_bg1","object":"response","model":"m-1","status":"in_progress","output":[],"background":true}"#;
const MADE: &str = r#"{"id":"resp_bg1","object":"response","model":"m-1","status":"completed","background":true,"output":[{"type":"message","content":[{"type":"output_text","text":"thought about it"}]}],"usage":{"input_tokens":30,"output_tokens":12,"total_tokens":42}}"#;
const CANCELLED: &str =
    r#"{"id":"resp_bg1","object":"response","model":"m-1","status":"cancelled","output":[],"background":true}"#;

/// A provider that makes one response in the background.
#[derive(Debug, Default)]
struct Provider {
    is_made: AtomicBool,
    is_cancelled: AtomicBool,
    is_deleted: AtomicBool,
    /// The number of requests for the response.
    asked: AtomicUsize,
}

impl Provider {
    fn of(stack: &Stack) -> Arc<Self> {
        let provider = Arc::new(Self::default());
        let this = Arc::clone(&provider);
        stack.upstream.respond_with(move |request| this.respond(&request.method, &request.path));
        provider
    }

    fn respond(&self, method: &Method, path: &str) -> Script {
        let is_made = self.is_made.load(Ordering::SeqCst);
        let document = match (is_made, self.is_cancelled.load(Ordering::SeqCst)) {
            (true, _) => MADE,
            (false, true) => CANCELLED,
            (false, false) => RUNNING,
        };
        match (method, path) {
            (&Method::POST, "/v1/responses") => Script::json(StatusCode::OK, QUEUED),
            _ if self.is_deleted.load(Ordering::SeqCst) => Script::json(
                StatusCode::NOT_FOUND,
                r#"{"error":{"message":"no such response","type":"invalid_request_error"}}"#,
            ),
            (&Method::GET, "/v1/responses/resp_bg1") => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                Script::json(StatusCode::OK, document)
            }
            (&Method::POST, "/v1/responses/resp_bg1/cancel") => {
                self.is_cancelled.store(true, Ordering::SeqCst);
                Script::json(StatusCode::OK, if is_made { MADE } else { CANCELLED })
            }
            (&Method::DELETE, "/v1/responses/resp_bg1") => {
                self.is_deleted.store(true, Ordering::SeqCst);
                Script::json(StatusCode::OK, r#"{"id":"resp_bg1","object":"response","deleted":true}"#)
            }
            _ => Script::json(StatusCode::INTERNAL_SERVER_ERROR, format!("{method} {path}")),
        }
    }

    fn make(&self) {
        self.is_made.store(true, Ordering::SeqCst);
    }

    async fn was_asked(&self, times: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.asked.load(Ordering::SeqCst) < times {
            ensure!(Instant::now() < deadline, "the provider was not asked {times} times");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn request() -> Value {
    json!({"model": MODEL, "input": "think about it", "background": true})
}

async fn begin(stack: &Stack, user: &User) -> anyhow::Result<()> {
    let begun = stack.post("/v1/responses").bearer_auth(&user.token).json(&request()).send().await?;
    let (status, body) = (begun.status(), begun.text().await?);
    ensure!((status, body.as_str()) == (StatusCode::OK, QUEUED), "{status} {body}");
    Ok(())
}

async fn ask(stack: &Stack, user: &User, method: Method, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let response = stack.request(method, path).bearer_auth(&user.token).send().await?;
    Ok((response.status(), response.text().await?))
}

/// Waits for the end of the only chat, and compares it.
async fn recorded(stack: &Stack, status: &str) -> anyhow::Result<Oracle> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let oracle = stack.settled().await?;
        let chats: Vec<_> = oracle.tables.chats.values().map(recorder::projection::chat::Chat::status).collect();
        if chats == [status] {
            return Ok(oracle);
        }
        ensure!(Instant::now() < deadline, "expected {status}, found {chats:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

fn is_the_answer(oracle: &Oracle) -> anyhow::Result<()> {
    let answers: Vec<_> = oracle
        .tables
        .messages
        .values()
        .filter(|message| message.role == "assistant")
        .map(|message| &*message.content)
        .collect();
    ensure!(answers == ["thought about it"], "{answers:?}");
    let usage: Vec<_> = oracle
        .tables
        .chats
        .values()
        .filter_map(|chat| chat.ending.as_ref())
        .map(|end| end.usage.total_tokens)
        .collect();
    ensure!(usage == [Some(42)], "{usage:?}");
    let kinds: Vec<_> = oracle.events.iter().map(shared::event::Event::kind).collect();
    for kind in [EventKind::ChatStarted, EventKind::ChatDeferred, EventKind::MessageCompleted] {
        ensure!(kinds.iter().filter(|known| **known == kind).count() == 1, "{kinds:?}");
    }
    Ok(())
}

#[tokio::test]
async fn are_recorded_before_a_client_sees_the_end() -> anyhow::Result<()> {
    let mut stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let provider = Provider::of(&stack);
    begin(&stack, &ann).await?;
    let path = "/v1/responses/resp_bg1";
    assert_eq!(ask(&stack, &ann, Method::GET, path).await?, (StatusCode::OK, RUNNING.to_owned()));
    assert_eq!(stack.gateway.metric("stenograph_gateway_background_chats").await?, 1.0);
    let streamed = ask(&stack, &ann, Method::GET, &format!("{path}?stream=true")).await?;
    assert_eq!(streamed.0, StatusCode::BAD_REQUEST);
    assert!(streamed.1.contains(r#""param":"stream""#), "{}", streamed.1);
    assert_eq!(ask(&stack, &bob, Method::GET, path).await?.0, StatusCode::NOT_FOUND, "the response is ann's");
    provider.make();
    // The gateway dies as soon as the client has the end.
    assert_eq!(ask(&stack, &ann, Method::GET, path).await?, (StatusCode::OK, MADE.to_owned()));
    stack.gateway.kill9().await;
    stack.restart_gateway().await?;
    is_the_answer(&recorded(&stack, "completed").await?)?;
    // A response that has ended is read as any other.
    assert_eq!(ask(&stack, &ann, Method::GET, path).await?, (StatusCode::OK, MADE.to_owned()));
    stack.recorder.run(&["verify"]).await?;
    Ok(())
}

#[tokio::test]
async fn are_followed_when_nobody_asks() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let provider = Provider::of(&stack);
    begin(&stack, &ann).await?;
    provider.was_asked(1).await?;
    provider.make();
    is_the_answer(&recorded(&stack, "completed").await?)?;
    assert_eq!(stack.gateway.metric("stenograph_gateway_background_chats").await?, 0.0);
    Ok(())
}

#[tokio::test]
async fn are_followed_after_a_kill_and_after_a_stop() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let provider = Provider::of(&stack);
    begin(&stack, &ann).await?;
    stack.gateway.kill9().await;
    stack.restart_gateway().await?;
    assert_eq!(stack.gateway.metric("stenograph_gateway_background_chats").await?, 1.0);
    let status = stack.gateway.terminate(Duration::from_secs(30)).await?;
    ensure!(status.success(), "{status}");
    stack.restart_gateway().await?;
    recorded(&stack, "started").await?;
    provider.make();
    is_the_answer(&recorded(&stack, "completed").await?)
}

#[tokio::test]
async fn are_recorded_by_another_gateway() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let provider = Provider::of(&stack);
    begin(&stack, &ann).await?;
    let other = stack.another_gateway(|_| {}).await?;
    stack.gateway.kill9().await;
    let get = async |other: &harness::services::Gateway| {
        let response =
            harness::http::client().get(other.url("/v1/responses/resp_bg1")).bearer_auth(&ann.token).send().await?;
        anyhow::Ok((response.status(), response.text().await?))
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut got = get(&other).await?;
    while got.0 == StatusCode::NOT_FOUND && Instant::now() < deadline {
        got = get(&other).await?;
    }
    assert_eq!(got, (StatusCode::OK, RUNNING.to_owned()));
    provider.make();
    assert_eq!(get(&other).await?, (StatusCode::OK, MADE.to_owned()));
    other.kill9().await;
    let other = stack.another_gateway(|_| {}).await?;
    other.drained(Duration::from_secs(60)).await?;
    is_the_answer(&recorded(&stack, "completed").await?)
}

#[tokio::test]
async fn are_recorded_when_they_are_cancelled_deleted_or_stopped() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let path = "/v1/responses/resp_bg1";

    Provider::of(&stack);
    begin(&stack, &ann).await?;
    let cancelled = ask(&stack, &ann, Method::POST, &format!("{path}/cancel")).await?;
    assert_eq!(cancelled, (StatusCode::OK, CANCELLED.to_owned()));
    let oracle = recorded(&stack, "failed").await?;
    let [chat] = &oracle.tables.chats.values().collect::<Vec<_>>()[..] else { anyhow::bail!("one chat") };
    ensure!(format!("{:?}", chat.ending).contains("the response was cancelled"), "{:?}", chat.ending);

    // What is there is recorded before it is deleted.
    let provider = Provider::of(&stack);
    begin(&stack, &ann).await?;
    provider.make();
    assert_eq!(ask(&stack, &ann, Method::DELETE, path).await?.0, StatusCode::OK);
    let completed = async |expected: usize| {
        let oracle = stack.settled().await?;
        anyhow::Ok(oracle.tables.chats.values().filter(|chat| chat.status() == "completed").count() == expected)
    };
    ensure!(completed(1).await?, "the answer was lost with the provider's copy");

    // A response that the provider does not know any more has failed.
    let provider = Provider::of(&stack);
    begin(&stack, &ann).await?;
    provider.is_deleted.store(true, Ordering::SeqCst);
    let gone = ask(&stack, &ann, Method::GET, path).await?;
    ensure!(gone.0 == StatusCode::NOT_FOUND && gone.1.contains("no such response"), "{gone:?}");
    let deadline = Instant::now() + Duration::from_secs(60);
    while stack.gateway.metric("stenograph_gateway_background_chats").await? > 0.0 {
        ensure!(Instant::now() < deadline, "a deleted response is followed for ever");
        sleep(Duration::from_millis(100)).await;
    }

    // The user stops the chat: the provider is told.
    let provider = Provider::of(&stack);
    begin(&stack, &ann).await?;
    let oracle = stack.settled().await?;
    let open = oracle.tables.chats.values().find(|chat| chat.status() == "started").map(|chat| chat.chat_id);
    let open = open.ok_or_else(|| anyhow::anyhow!("no open chat"))?;
    let stopped = stack.post(&format!("/api/chats/{open}/stop")).bearer_auth(&ann.token).send().await?;
    ensure!(stopped.status().is_success(), "{}", stopped.status());
    let deadline = Instant::now() + Duration::from_secs(60);
    while !provider.is_cancelled.load(Ordering::SeqCst) {
        ensure!(Instant::now() < deadline, "the provider was not told");
        sleep(Duration::from_millis(20)).await;
    }
    let oracle = stack.settled().await?;
    ensure!(format!("{:?}", oracle.tables.chats[&open].ending).contains("StoppedByUser"), "not stopped by the user");
    Ok(())
}

#[tokio::test]
async fn are_bounded_in_number_and_time() -> anyhow::Result<()> {
    let settings = [("GATEWAY_MAX_BACKGROUND_CHATS", "1"), ("GATEWAY_BACKGROUND_TIMEOUT", "3s")];
    let stack = Stack::with_gateway(&settings).await?;
    let ann = stack.user("ann").await?;
    Provider::of(&stack);
    begin(&stack, &ann).await?;
    let refused = stack.post("/v1/responses").bearer_auth(&ann.token).json(&request()).send().await?;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let oracle = recorded(&stack, "failed").await?;
    ensure!(format!("{:?}", oracle.tables.chats.values().next()).contains("background_timeout"), "no timeout");
    begin(&stack, &ann).await
}

/// An upstream that knows no background answers at once.
#[tokio::test]
async fn that_are_answered_at_once_are_recorded_as_any_other() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_next(Script::json(StatusCode::OK, MADE));
    let made = stack.post("/v1/responses").bearer_auth(&ann.token).json(&request()).send().await?;
    assert_eq!(made.text().await?, MADE);
    let oracle = recorded(&stack, "completed").await?;
    ensure!(!oracle.events.iter().any(|event| event.kind() == EventKind::ChatDeferred), "nothing was deferred");
    Ok(())
}

/// The beginning of a streamed answer.
fn beginning() -> [String; 2] {
    let created =
        json!({"type": "response.created", "response": {"id": "resp_bg1", "model": "m-1", "status": "in_progress"}});
    let delta = json!({"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "delta": "thought"});
    [created, delta].map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()))
}

/// A stream that breaks, and a client that leaves, do not end an answer that the provider goes on making.
#[tokio::test]
async fn that_are_streamed_are_followed_when_the_stream_ends_early() -> anyhow::Result<()> {
    for breaks in [true, false] {
        let stack = Stack::with_api(&[], &[]).await?;
        let ann = stack.user("ann").await?;
        let provider = Provider::of(&stack);
        let (this, gate) = (Arc::clone(&provider), Gate::new());
        let last = if breaks { Step::Cut } else { Step::Wait(gate.clone()) };
        stack.upstream.respond_with(move |request| match &request.method {
            &Method::POST => Script::stream(beginning()).after(2, last.clone()),
            method => this.respond(method, &request.path),
        });
        let request = json!({"model": MODEL, "input": "think about it", "background": true, "stream": true});
        let mut streamed = stack.post("/v1/responses").bearer_auth(&ann.token).json(&request).send().await?;
        assert_eq!(streamed.status(), StatusCode::OK);
        let mut text = String::new();
        while !text.contains("thought") {
            text += &String::from_utf8_lossy(&streamed.chunk().await?.unwrap_or_default());
        }
        if breaks {
            ensure!(streamed.bytes().await.is_err(), "the client's stream has to break too");
        } else {
            drop(streamed);
        }
        provider.was_asked(1).await?;
        recorded(&stack, "started").await?;
        provider.make();
        let path = "/v1/responses/resp_bg1";
        assert_eq!(ask(&stack, &ann, Method::GET, path).await?, (StatusCode::OK, MADE.to_owned()));
        is_the_answer(&recorded(&stack, "completed").await?)?;
        gate.open();
    }
    Ok(())
}
