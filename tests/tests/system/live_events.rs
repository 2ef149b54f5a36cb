//! Live events: a subscriber is told about changes, and misses none after a reconnection.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use reqwest::{Method, Response};
use serde_json::Value;
use tests::stack::{Stack, User};
use tokio::time::timeout;

struct Watching {
    response: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
    last: Option<String>,
    /// All received events, for the message of a failure.
    told: Vec<String>,
}

impl Watching {
    async fn start(stack: &Stack, user: &User, last: Option<&str>) -> anyhow::Result<Self> {
        let request = stack.request(Method::GET, "/api/events").bearer_auth(&user.token);
        let request = last.iter().fold(request, |request, id| request.header("last-event-id", *id));
        let response: Response = request.send().await?.error_for_status()?;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(Self { response: response.bytes_stream().boxed(), text: String::new(), last: None, told: Vec::new() })
    }

    /// The next event's name and data, in good time; comments are passed over.
    async fn next(&mut self) -> anyhow::Result<(String, Value)> {
        timeout(Duration::from_secs(60), self.read())
            .await
            .with_context(|| format!("nothing more after {:?}", self.told))?
    }

    async fn read(&mut self) -> anyhow::Result<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                        .map(|v| v.trim().to_owned())
                };
                let (name, data, id) = (field("event"), field("data"), field("id"));
                self.text = rest.to_owned();
                if id.is_some() {
                    self.last = id;
                }
                if let (Some(name), Some(data)) = (name, data) {
                    self.told.push(format!("{name} {data}"));
                    return Ok((name, serde_json::from_str(&data)?));
                }
                continue;
            }
            let chunk = self.response.next().await;
            let chunk = chunk.ok_or_else(|| anyhow::anyhow!("the stream ended"))??;
            self.text.push_str(std::str::from_utf8(&chunk)?);
        }
    }

    /// Reads events up to the wanted event.
    async fn until(&mut self, wanted: impl Fn(&str, &Value) -> bool) -> anyhow::Result<Value> {
        loop {
            let (name, data) = self.next().await?;
            if wanted(&name, &data) {
                return Ok(data);
            }
        }
    }
}

#[tokio::test]
async fn reach_subscribers_of_the_user_and_nobody_else() -> anyhow::Result<()> {
    let mut stack = Stack::with_api(&[], &[]).await?;
    stack.add_recorder().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let mut ann_sees = Watching::start(&stack, &ann, None).await?;
    let mut bob_sees = Watching::start(&stack, &bob, None).await?;
    assert_eq!(ann_sees.next().await?.0, "reset");
    assert_eq!(bob_sees.next().await?.0, "reset");

    let (conversation, _) = stack.finished_chat(&ann, "live").await?;
    // Two recorders may project the start and the end of one chat, so the changes may be announced in either order.
    let (mut chat, mut shown, mut usage) = (None, None, None);
    while chat.is_none() || shown.is_none() || usage.is_none() {
        match ann_sees.next().await? {
            (name, data) if name == "chat" && data["status"] == "completed" => chat = Some(data),
            (name, data) if name == "conversation" && data["messageCount"] == 2 => shown = Some(data),
            (name, data) if name == "usage" && data["apiCalls"] == 1 => usage = Some(data),
            _ => {}
        }
    }
    let (chat, shown, usage) = (chat.unwrap(), shown.unwrap(), usage.unwrap());
    assert_eq!(chat["conversationId"], conversation.as_str());
    assert_eq!((&shown["id"], &shown["title"]), (&conversation.as_str().into(), &"live".into()));
    assert_eq!(usage["successfulCalls"], 1);
    stack.settled().await?;
    while let Ok(told) = timeout(Duration::from_secs(3), ann_sees.read()).await {
        told?;
    }
    let last = ann_sees.last.clone().unwrap();
    drop(ann_sees);

    // After a reconnection Ann gets the changes made meanwhile, and no change of the chat whose end she has seen.
    let (second, _) = stack.finished_chat(&ann, "meanwhile").await?;
    stack.settled().await?;
    let mut ann_sees = Watching::start(&stack, &ann, Some(&last)).await?;
    let (name, first) = ann_sees.next().await?;
    assert_ne!(name, "reset");
    assert_ne!(first["conversationId"], conversation.as_str());
    let (mut is_chat_told, mut is_conversation_told) = (false, false);
    let mut told = (name, first);
    loop {
        let (name, data) = &told;
        is_chat_told |= name == "chat" && data["id"] != chat["id"] && data["status"] == "completed";
        is_conversation_told |= name == "conversation" && data["id"] == second.as_str();
        if is_chat_told && is_conversation_told {
            break;
        }
        told = ann_sees.next().await?;
    }
    let path = format!("/api/conversations/{second}");
    stack.request(Method::DELETE, &path).bearer_auth(&ann.token).send().await?;
    ann_sees.until(|name, data| name == "conversation" && data["deleted"] == true).await?;

    // The first event that Bob gets is about his own chat.
    stack.finished_chat(&bob, "mine").await?;
    let (name, data) = bob_sees.next().await?;
    assert_eq!(name, "chat");
    assert_ne!(data["id"], chat["id"]);
    // An invalid Last-Event-ID leads to a reset, because the missed changes are unknown.
    let mut lost = Watching::start(&stack, &ann, Some("7")).await?;
    assert_eq!(lost.next().await?.0, "reset");
    Ok(())
}

/// While other subscribers are connected, changes before a new user's first request are found for the new user, too.
#[tokio::test]
async fn since_a_position_are_sent_after_a_reconnection() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let mut bob_sees = Watching::start(&stack, &bob, None).await?;
    assert_eq!(bob_sees.next().await?.0, "reset");
    let place = bob_sees.last.clone().unwrap();
    let (conversation, _) = stack.finished_chat(&ann, "before").await?;
    stack.settled().await?;
    // An event for Bob shows that the polling has passed Ann's change.
    stack.finished_chat(&bob, "mine").await?;
    bob_sees.until(|name, data| name == "chat" && data["status"] == "completed").await?;

    let mut ann_sees = Watching::start(&stack, &ann, Some(&place)).await?;
    let chat = ann_sees.until(|name, data| name == "chat" && data["status"] == "completed").await?;
    assert_eq!(chat["conversationId"], conversation.as_str());
    Ok(())
}

#[tokio::test]
async fn have_a_bounded_number_of_streams_for_each_user() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(Watching::start(&stack, &ann, None).await?);
    }
    let request = stack.request(Method::GET, "/api/events").bearer_auth(&ann.token);
    let refused = request.send().await?;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    Ok(())
}
