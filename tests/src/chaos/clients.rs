//! The clients, with a log of every observation. The clients do not read the record.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::stack::User;
use harness::openai::DONE;
use harness::upstream::MODEL;

/// Time limit of a client for a whole answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Share of the questions that are large, and the size of a large question in bytes. The question is twice in the event of
/// the start and once in the event of the answer; so the event of the start has its body in the bucket of large bodies.
const LARGE_SHARE: f64 = 0.02;
const LARGE: usize = 430_000;

/// A chat as observed by the client.
#[derive(Clone, Debug)]
pub struct ObservedChat {
    /// The question. Unique within a round.
    pub question: String,
    /// Id of the asking user.
    pub user: String,
    /// Status of the response. None without a response.
    pub status: Option<u16>,
    /// Header `x-chat-id` of the response.
    pub chat: Option<String>,
    /// True if the client asked for a stream.
    pub stream: bool,
    /// URL of the gateway.
    pub gateway: String,
    /// Time of the request.
    pub began: Instant,
    /// Time from the request to the end, whatever the end.
    pub took: Duration,
    /// Received bytes of the body.
    pub body: Vec<u8>,
    /// The end of the chat for the client.
    pub end: ObservedEnd,
}

/// The end of a chat for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedEnd {
    /// The client received the end of the answer.
    Complete,
    /// The connection broke, or the time limit passed.
    Broken,
    /// The client closed the connection on purpose.
    Left,
}

impl ObservedChat {
    /// Returns true if the client received a successful answer to the end.
    pub fn saw_the_end(&self) -> bool {
        self.status == Some(200) && self.end == ObservedEnd::Complete
    }

    /// Received text of the answer.
    pub fn text(&self) -> String {
        if self.stream {
            return crate::stack::streamed_text(&String::from_utf8_lossy(&self.body));
        }
        let document: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        document["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }
}

/// A client: sends chats one after another until told to stop.
#[derive(Debug)]
pub struct Client {
    /// Number of the client in the round.
    pub number: usize,
    /// User of all chats.
    pub user: User,
    /// URLs of the gateways. Each chat goes to a random gateway.
    pub gateways: Vec<String>,
    /// True once the client has to stop.
    pub stop: Arc<AtomicBool>,
    /// Range of the pause between two chats, in milliseconds.
    pub between: Range<u64>,
    /// True if the client closes some connections in the middle of an answer.
    pub leaves: bool,
    /// Text at the end of every question.
    pub padding: String,
}

impl Client {
    /// Sends chats until told to stop, and returns all observations.
    pub async fn run(self, seed: u64) -> Vec<ObservedChat> {
        let mut random = StdRng::seed_from_u64(seed ^ (self.number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let http = harness::http::client();
        let mut seen = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let large = if random.random_bool(LARGE_SHARE) { "x".repeat(LARGE) } else { String::new() };
            let question = format!("{seed}-{}-{} how much wood{}{large}", self.number, seen.len(), self.padding);
            let gateway = &self.gateways[random.random_range(0..self.gateways.len())];
            let leaves_after = (self.leaves && random.random_bool(0.08)).then(|| random.random_range(0..6));
            let stream = random.random_bool(0.85);
            let chat = self.chat(&http, gateway, question, stream, leaves_after).await;
            let refused = chat.status != Some(200);
            seen.push(chat);
            // After a refusal the client waits 50 ms, so that refused requests do not flood the gateway.
            sleep(Duration::from_millis(if refused { 50 } else { random.random_range(self.between.clone()) })).await;
        }
        seen
    }

    async fn chat(
        &self,
        http: &reqwest::Client,
        gateway: &str,
        question: String,
        stream: bool,
        leaves_after: Option<usize>,
    ) -> ObservedChat {
        let mut seen = ObservedChat {
            question,
            user: self.user.id.clone(),
            status: None,
            chat: None,
            stream,
            gateway: gateway.to_owned(),
            began: Instant::now(),
            took: Duration::ZERO,
            body: Vec::new(),
            end: ObservedEnd::Broken,
        };
        // After the time limit the client keeps the bytes received so far.
        let _ = timeout(PATIENCE, self.exchange(http, gateway, leaves_after, &mut seen)).await;
        seen.took = seen.began.elapsed();
        seen
    }

    async fn exchange(
        &self,
        http: &reqwest::Client,
        gateway: &str,
        leaves_after: Option<usize>,
        seen: &mut ObservedChat,
    ) {
        let body = json!({
            "model": MODEL,
            "messages": [{"role": "user", "content": seen.question}],
            "temperature": 0.5,
            "stream": seen.stream,
        });
        let sent = http.post(format!("{gateway}/api/chat")).bearer_auth(&self.user.token).json(&body).send().await;
        let Ok(response) = sent else { return };
        seen.status = Some(response.status().as_u16());
        seen.chat = response.headers().get("x-chat-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let mut chunks = response.bytes_stream();
        let mut count = 0;
        while let Some(chunk) = chunks.next().await {
            let Ok(chunk) = chunk else { return };
            seen.body.extend_from_slice(&chunk);
            count += 1;
            if seen.stream && seen.body.ends_with(DONE) {
                seen.end = ObservedEnd::Complete;
                return;
            }
            if leaves_after.is_some_and(|after| count > after) {
                seen.end = ObservedEnd::Left;
                return;
            }
        }
        // A stream may end cleanly without the last event: like real clients, the client takes the end of the body for the end.
        seen.end = ObservedEnd::Complete;
    }
}
