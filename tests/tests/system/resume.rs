//! Answers that are resumed: from any gateway, after any cut, with the gateway of the chat alive, killed, or done with the chat. The client
//! ends with the recorded answer, and has nothing twice.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::services::Gateway;
use harness::upstream::{Gate, Script, Step};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use shared::event::Event;
use tests::stack::{MODEL, Stack, User, header};
use tokio::time::{sleep, timeout};

/// The number of random tries.
const TRIES: u64 = 500;
/// The number of tries at the same time.
const TOGETHER: u64 = 20;
/// In each of so many rounds, the gateway of the chats is killed.
const KILLS_EVERY: u64 = 5;

fn piece(text: &str) -> String {
    let chunk = json!({"id": "c1", "choices": [{"index": 0, "delta": {"content": text}}]});
    format!("data: {chunk}\n\n")
}

fn finish() -> [String; 2] {
    let chunk = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}});
    [format!("data: {chunk}\n\n"), "data: [DONE]\n\n".to_owned()]
}

/// A client that keeps what the events of a chat say, over any number of connections.
#[derive(Debug, Default)]
struct Client {
    /// The conversation of the chat, if the client knows it from the response to the chat: every stream must name the same.
    conversation: Option<String>,
    text: String,
    last_id: Option<String>,
    end: Option<Value>,
    resets: usize,
}

impl Client {
    /// Connects, and reads until the end or until `bytes` bytes have arrived. Events that are not complete are lost.
    async fn read(&mut self, gateway: &str, token: &str, chat: &str, bytes: usize) -> anyhow::Result<()> {
        let request = harness::http::client().get(format!("{gateway}/api/chats/{chat}/stream")).bearer_auth(token);
        let request = self.last_id.iter().fold(request, |request, id| request.header("last-event-id", id));
        let mut response = request.send().await?;
        ensure!(response.status() == 200, "{}: {}", response.status(), response.text().await?);
        let (mut pending, mut read) = (Vec::new(), 0);
        while let Some(chunk) = response.chunk().await? {
            let chunk = &chunk[..chunk.len().min(bytes - read)];
            read += chunk.len();
            pending.extend_from_slice(chunk);
            while let Some(end) = pending.windows(2).position(|window| window == b"\n\n") {
                let event: Vec<u8> = pending.drain(..end + 2).collect();
                self.apply(std::str::from_utf8(&event)?)?;
            }
            if read == bytes {
                break;
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: &str) -> anyhow::Result<()> {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let Some(data) = field("data") else { return Ok(()) };
        let data: Value = serde_json::from_str(data)?;
        match field("event") {
            Some("start") => {
                let expected = self.conversation.as_deref();
                ensure!(expected.is_none_or(|id| data["conversationId"] == id), "{data}, expected {expected:?}");
            }
            Some("reset") => {
                self.text.clear();
                self.resets += 1;
            }
            Some("delta") => self.text.push_str(data["text"].as_str().unwrap_or_default()),
            Some("end") => self.end = Some(data),
            other => anyhow::bail!("an unknown event {other:?}"),
        }
        self.last_id = field("id").map(str::to_owned).or(self.last_id.take());
        Ok(())
    }
}

/// The recorded answer of a chat, and its status.
async fn recorded(stack: &Stack, api: &str, user: &User, chat: &str) -> anyhow::Result<(String, String)> {
    let url = format!("{api}/api/chats/{chat}/answer");
    let response = harness::http::client().get(url).bearer_auth(&user.token).send().await?;
    ensure!(response.status() == 200, "{} in\n{}", response.status(), stack.gateway_log()?);
    let answer: Value = response.json().await?;
    let text = answer["message"]["content"].as_str().unwrap_or_default().to_owned();
    Ok((text, answer["status"].as_str().unwrap_or_default().to_owned()))
}

/// One try: a chat that begins at `owner`, whose client breaks off at a random place and resumes at random gateways.
async fn one_try(
    gateways: &[String],
    owner: &str,
    token: &str,
    seed: u64,
    comes_late: bool,
) -> anyhow::Result<(String, Client)> {
    let mut random = StdRng::seed_from_u64(seed);
    let body = json!({"messages": [{"role": "user", "content": format!("try {seed}")}], "model": MODEL});
    let request = harness::http::client().post(format!("{owner}/api/chat")).bearer_auth(token).json(&body);
    let mut response = request.header("x-stenograph-on-leave", "drain").send().await?;
    ensure!(response.status() == 200, "{}", response.status());
    let (chat, conversation) = (header(&response, "x-chat-id")?, header(&response, "x-conversation-id")?);
    for _ in 0..random.random_range(0..12) {
        if !matches!(response.chunk().await, Ok(Some(_))) {
            break;
        }
    }
    drop(response);
    if comes_late {
        sleep(Duration::from_millis(random.random_range(300..1200))).await;
    }
    let mut client = Client { conversation: Some(conversation), ..Client::default() };
    let started = Instant::now();
    let mut cuts = random.random_range(0..6);
    while client.end.is_none() {
        ensure!(started.elapsed() < Duration::from_secs(90), "no end of chat {chat}: {client:?}");
        let bytes = if cuts > 0 { random.random_range(1..4000) } else { usize::MAX };
        let gateway = &gateways[random.random_range(0..gateways.len())];
        if client.read(gateway, token, &chat, bytes).await.is_err() {
            // The gateway was killed.
            sleep(Duration::from_millis(100)).await;
        }
        cuts -= i32::from(cuts > 0);
    }
    Ok((chat, client))
}

#[tokio::test]
async fn in_500_random_tries_the_client_ends_with_the_recorded_answer() -> anyhow::Result<()> {
    let mut stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let second = stack.another_gateway(|_| {}).await?;
    let third = stack
        .another_gateway(|settings| {
            settings.instance = "gateway-3".into();
            settings.data_dir = stack.directory().join("gateway-3");
        })
        .await?;
    let api = stack.api.as_ref().context("no API")?.url("");
    stack.upstream.respond_with(|_| {
        let mut random = rand::rng();
        let texts = (0..random.random_range(5..60)).map(|number| {
            let word = ["é", "字", "\n", "word ", "\"", "🦀", "x"][random.random_range(0..7)];
            piece(&format!("{number}{word}"))
        });
        let pieces: Vec<_> = texts.chain(finish()).collect();
        Script::stream(pieces).paced(Duration::from_millis(random.random_range(1..12)))
    });
    let seed = rand::random::<u32>();
    let (mut resets, mut statuses) = (0, std::collections::BTreeMap::new());
    for round in 0..TRIES / TOGETHER {
        // The gateway that is killed comes back on the same port.
        let gateways = vec![stack.gateway.url(""), second.url(""), third.url("")];
        let is_killed = round % KILLS_EVERY == 0;
        let mut trying = tokio::task::JoinSet::new();
        for number in 0..TOGETHER {
            let (gateways, token) = (gateways.clone(), ann.token.clone());
            let seed = u64::from(seed) + round * TOGETHER + number;
            let owner = if is_killed { 0 } else { usize::try_from(number % 3)? };
            let comes_late = number % 3 == 2;
            trying.spawn(async move { one_try(&gateways, &gateways[owner], &token, seed, comes_late).await });
        }
        if is_killed {
            sleep(Duration::from_millis(150)).await;
            stack.gateway.kill9().await;
            stack.restart_gateway().await?;
        }
        while let Some(tried) = trying.join_next().await {
            let (chat, client) = match tried? {
                Ok(tried) => tried,
                // The chat itself was refused, because its gateway was killed.
                Err(error) if is_killed && !error.to_string().contains("no end") => continue,
                Err(error) => return Err(error.context(format!("seed {seed}"))),
            };
            let (answer, status) = recorded(&stack, &api, &ann, &chat).await?;
            ensure!(client.text == answer, "seed {seed}, {status}: {client:?}, recorded {answer:?}");
            ensure!(client.end.as_ref().is_some_and(|end| end["status"] == status.as_str()));
            resets += client.resets;
            *statuses.entry(status).or_insert(0) += 1;
        }
    }
    ensure!(statuses.get("completed") > Some(&300), "{statuses:?}");
    ensure!(statuses.len() > 1 && resets > 0, "no gateway was killed in the middle of an answer: {statuses:?}");
    stack.settled().await?;
    Ok(())
}

/// Starts a chat whose upstream waits after the first piece, reads this piece, and leaves. Returns the chat's id.
async fn begin_and_leave(stack: &Stack, user: &User, gate: &Gate) -> anyhow::Result<String> {
    let pieces = [vec![piece("heard"), piece(" and resumed")], finish().to_vec()].concat();
    // The rest is there before the end.
    let rest = Step::Pause(Duration::from_millis(400));
    stack.upstream.respond_next(Script::stream(pieces).after(1, Step::Wait(gate.clone())).after(2, rest));
    let mut response = stack.chat(user, "x").header("x-stenograph-on-leave", "drain").send().await?;
    ensure!(response.chunk().await?.is_some());
    header(&response, "x-chat-id")
}

async fn status_of(gateway: &Gateway, user: Option<&User>, path: &str) -> anyhow::Result<u16> {
    let request = harness::http::client().get(gateway.url(path));
    let request = user.into_iter().fold(request, |request, user| request.bearer_auth(&user.token));
    Ok(request.send().await?.status().as_u16())
}

#[tokio::test]
async fn nobody_sees_the_end_before_the_record_and_a_followed_answer_is_complete() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let other = stack.another_gateway(|_| {}).await?;
    let gate = Gate::new();
    let chat = begin_and_leave(&stack, &ann, &gate).await?;
    let path = format!("/api/chats/{chat}/stream");
    for gateway in [&stack.gateway, &other] {
        assert_eq!(status_of(gateway, None, &path).await?, 401);
        assert_eq!(status_of(gateway, Some(&bob), &path).await?, 404, "another user's chat");
        assert_eq!(
            status_of(gateway, Some(&ann), "/api/chats/0193f000-0000-7000-8000-000000000000/stream").await?,
            404
        );
        assert_eq!(status_of(gateway, Some(&ann), "/api/chats/no-id/stream").await?, 404);
    }
    stack.recorders[0].process().pause();
    let mut client = Client::default();
    let url = other.url("");
    let reading = timeout(Duration::from_secs(3), client.read(&url, &ann.token, &chat, usize::MAX));
    let (read, ()) = tokio::join!(reading, async {
        sleep(Duration::from_millis(300)).await;
        gate.open();
    });
    assert!(read.is_err(), "the stream ended before the record had the end");
    assert_eq!((client.text.as_str(), &client.end), ("heard and resumed", &None));
    stack.recorders[0].process().resume();
    client.read(&url, &ann.token, &chat, usize::MAX).await?;
    assert_eq!(client.text, "heard and resumed");
    assert_eq!(
        client.end.unwrap_or_default(),
        json!({"status": "completed", "finishReason": "stop", "stage": null, "error": null})
    );
    assert_eq!(client.last_id.as_deref(), Some("end"));
    let request = harness::http::client().get(other.url(&path)).bearer_auth(&ann.token).header("last-event-id", "end");
    assert_eq!(request.send().await?.status(), 204, "an EventSource must not come back");
    let oracle = stack.settled().await?;
    let notes = oracle.events.iter().find_map(|event| match event {
        Event::MessageCompleted(event) => Some(event.notes.clone()),
        _ => None,
    });
    assert_eq!(notes.unwrap_or_default(), ["resumed"]);
    Ok(())
}

#[tokio::test]
async fn a_followed_answer_goes_on_after_the_time_of_its_drain() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[("GATEWAY_DRAIN_FOR", "1s")], &[]).await?;
    let ann = stack.user("ann").await?;
    let gate = Gate::new();
    let chat = begin_and_leave(&stack, &ann, &gate).await?;
    let (mut client, url) = (Client::default(), stack.gateway.url(""));
    let (read, ()) = tokio::join!(client.read(&url, &ann.token, &chat, usize::MAX), async {
        sleep(Duration::from_secs(4)).await;
        gate.open();
    });
    read?;
    assert_eq!(client.text, "heard and resumed");
    // Nobody follows the next one.
    let gate = Gate::new();
    let chat = begin_and_leave(&stack, &ann, &gate).await?;
    sleep(Duration::from_secs(2)).await;
    let mut client = Client::default();
    client.read(&url, &ann.token, &chat, usize::MAX).await?;
    assert_eq!(client.text, "heard");
    assert_eq!(client.end.unwrap_or_default()["finishReason"], "client_gone");
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn a_chat_without_recorded_texts_is_followed_while_it_runs() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let gate = Gate::new();
    let pieces = [vec![piece("not"), piece(" kept")], finish().to_vec()].concat();
    let rest = Step::Pause(Duration::from_millis(400));
    stack.upstream.respond_next(Script::stream(pieces).after(1, Step::Wait(gate.clone())).after(2, rest));
    let request = stack.chat(&ann, "x").header("x-stenograph-recording", "none");
    let mut response = request.header("x-stenograph-on-leave", "drain").send().await?;
    ensure!(response.chunk().await?.is_some());
    let chat = header(&response, "x-chat-id")?;
    drop(response);
    let (mut client, url) = (Client::default(), stack.gateway.url(""));
    gate.open();
    client.read(&url, &ann.token, &chat, usize::MAX).await?;
    assert_eq!((client.text.as_str(), client.resets), ("not kept", 0));
    let end = client.end.take().unwrap_or_default();
    assert_eq!((&end["status"], &end["finishReason"]), (&json!("completed"), &json!("stop")));
    // After the end there is no text any more.
    let mut late = Client::default();
    late.read(&url, &ann.token, &chat, usize::MAX).await?;
    assert_eq!((late.text.as_str(), late.resets), ("", 0));
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn use_chat_gets_the_whole_stream_again() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[("GATEWAY_DEFAULT_MODEL", MODEL)], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let other = stack.another_gateway(|_| {}).await?;
    let gate = Gate::new();
    let pieces = [vec![piece("heard"), piece(" and resumed")], finish().to_vec()].concat();
    stack.upstream.respond_next(Script::stream(pieces).after(1, Step::Wait(gate.clone())));
    let ui = json!([{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "x"}]}]);
    let request = stack.post("/api/chat").bearer_auth(&ann.token).json(&json!({"id": "thread/1", "messages": ui}));
    let mut response = request.header("x-stenograph-on-leave", "drain").send().await?;
    let first = String::from_utf8(response.chunk().await?.context("no chunk")?.to_vec())?;
    let chat = header(&response, "x-chat-id")?;
    drop(response);
    assert_eq!(status_of(&other, Some(&bob), "/api/chat/thread%2F1/stream").await?, 204, "another user's thread");
    assert_eq!(status_of(&other, Some(&ann), "/api/chat/thread-2/stream").await?, 204);
    assert_eq!(status_of(&other, None, "/api/chat/thread%2F1/stream").await?, 401);
    let request = harness::http::client().get(other.url("/api/chat/thread%2F1/stream")).bearer_auth(&ann.token);
    let resumed = request.send().await?;
    assert_eq!(resumed.status(), 200);
    assert_eq!(header(&resumed, "x-vercel-ai-ui-message-stream")?, "v1");
    assert_eq!(header(&resumed, "x-chat-id")?, chat);
    gate.open();
    let text = resumed.text().await?;
    let parts: Vec<Value> =
        text.split("\n\n").filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok()).collect();
    let start: Value = serde_json::from_str(
        first.split("\n\n").next().and_then(|event| event.strip_prefix("data: ")).unwrap_or("null"),
    )?;
    assert_eq!(parts[0], start, "the same message, from its start");
    let kinds: Vec<_> = parts.iter().filter_map(|part| part["type"].as_str()).collect();
    assert_eq!(
        (&kinds[..3], &kinds[kinds.len() - 3..]),
        (&["start", "start-step", "text-start"][..], &["text-end", "finish-step", "finish"][..])
    );
    let said: String = parts.iter().filter_map(|part| part["delta"].as_str()).collect();
    assert_eq!(said, "heard and resumed");
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert_eq!(status_of(&other, Some(&ann), "/api/chat/thread%2F1/stream").await?, 204, "nothing is running");
    stack.settled().await?;
    Ok(())
}
