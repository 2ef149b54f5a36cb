//! The clients, and their own account of what they saw. Nothing here knows what the record says.

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

/// How long a client waits for the whole of an answer before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// One chat as its client saw it.
#[derive(Clone, Debug)]
pub struct ObservedChat {
    /// What was asked: no two chats of a round ask the same.
    pub question: String,
    /// Who asked.
    pub user: String,
    /// The status, where an answer began.
    pub status: Option<u16>,
    /// `x-chat-id`, where an answer began.
    pub chat: Option<String>,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Which gateway was asked.
    pub gateway: String,
    /// When.
    pub began: Instant,
    /// How long it took, to whatever end.
    pub took: Duration,
    /// Every byte of the body that came.
    pub body: Vec<u8>,
    /// How it ended.
    pub end: ObservedEnd,
}

/// How a chat ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedEnd {
    /// The client saw the end of the answer.
    Complete,
    /// The connection broke, or nothing came in time.
    Broken,
    /// The client left on purpose.
    Left,
}

impl ObservedChat {
    /// Whether it saw an answer to its end.
    pub fn saw_the_end(&self) -> bool {
        self.status == Some(200) && self.end == ObservedEnd::Complete
    }

    /// The text of the answer as far as it came.
    pub fn text(&self) -> String {
        if self.stream {
            return crate::stack::streamed_text(&String::from_utf8_lossy(&self.body));
        }
        let document: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        document["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }
}

/// One client: asks, reads, and asks again until it is told to stop.
#[derive(Debug)]
pub struct Client {
    /// Its number in the round.
    pub number: usize,
    /// Who it asks as.
    pub user: User,
    /// The gateways; it asks one of them, by chance.
    pub gateways: Vec<String>,
    /// Set when it has to stop.
    pub stop: Arc<AtomicBool>,
    /// How long it pauses from one chat to the next, in milliseconds.
    pub between: Range<u64>,
    /// Whether it leaves in the middle now and then.
    pub leaves: bool,
    /// What its questions end with.
    pub padding: String,
}

impl Client {
    /// Asks until told to stop, and returns what it saw.
    pub async fn run(self, seed: u64) -> Vec<ObservedChat> {
        let mut random = StdRng::seed_from_u64(seed ^ (self.number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let http = harness::http::client();
        let mut seen = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let question = format!("{seed}-{}-{} how much wood{}", self.number, seen.len(), self.padding);
            let gateway = &self.gateways[random.random_range(0..self.gateways.len())];
            let leaves_after = (self.leaves && random.random_bool(0.08)).then(|| random.random_range(0..6));
            let stream = random.random_bool(0.85);
            let chat = self.chat(&http, gateway, question, stream, leaves_after).await;
            let refused = chat.status != Some(200);
            seen.push(chat);
            // One that is refused does not hammer at the door.
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
        // Past its patience the client lets go, with what it has.
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
        // A stream without its last event ended cleanly all the same: the client takes it for the end, as real ones do.
        seen.end = ObservedEnd::Complete;
    }
}
