//! What one user can take from another: chats and reads of one user at a fixed rate, alone, and while another user does one thing as fast as
//! possible. Each is timed from the due time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::load::pacer::Pacer;
use crate::load::process_meter::ProcessMeter;
use crate::stack::{MODEL, Stack, User};
use harness::upstream::{Script, Step, answer};

/// Pause between two chunks of a stream.
const PACE: Duration = Duration::from_millis(20);
/// The size of a large body.
const LARGE_BYTES: usize = 2_900_000;
/// The question of a chat whose answer has no end.
const ENDLESS: &str = "tell me everything";
/// The places for chats. Half of them are enough for the busy user to hold many streams.
const PLACES: &str = "400";

/// Settings of the measurement.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Fairness {
    /// Number of chats and of reads started each second.
    #[arg(long, default_value_t = 40)]
    rate: u32,
    /// Duration of each measurement.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    window: Duration,
}

/// What the busy user does, with the number of tasks that do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Abuse {
    Nothing,
    LargeBodies,
    OpenStreams,
    UnfinishedBodies,
    Conversations,
    IdempotencyKeys,
    Searches,
    LiveStreams,
    FailedLogins,
}

/// The results for one abuse.
#[derive(Debug)]
struct Row {
    abuse: Abuse,
    first_bytes: Histogram<u64>,
    reads: Histogram<u64>,
    refused: u64,
    tried: u64,
    resident_kb: u64,
}

/// The results of all abuses.
#[derive(Debug)]
pub struct Report(Vec<Row>);

impl Abuse {
    const fn tasks(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::LargeBodies | Self::FailedLogins => 4,
            Self::Conversations | Self::IdempotencyKeys | Self::Searches => 16,
            Self::OpenStreams => 400,
            Self::UnfinishedBodies | Self::LiveStreams => 600,
        }
    }

    /// Does the thing once.
    async fn try_once(self, stack: &Stack, user: &User, number: u64) -> anyhow::Result<StatusCode> {
        let chat = |text: &str| {
            let body = json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": text}]});
            stack.post("/v1/chat/completions").bearer_auth(&user.token).json(&body)
        };
        let request = match self {
            Self::Nothing => anyhow::bail!("nothing is tried"),
            Self::LargeBodies => chat(&"x".repeat(LARGE_BYTES)),
            Self::OpenStreams => chat(ENDLESS),
            Self::UnfinishedBodies => {
                let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![b' '; 1 << 20])]);
                let body = reqwest::Body::wrap_stream(begun.chain(futures_util::stream::pending()));
                let request = stack.post("/v1/chat/completions").bearer_auth(&user.token);
                request.header("content-type", "application/json").body(body)
            }
            Self::Conversations => {
                stack.post("/api/conversations").bearer_auth(&user.token).json(&json!({"title": "x"}))
            }
            Self::IdempotencyKeys => chat("x").header("idempotency-key", format!("key {number}")),
            Self::Searches => {
                let path = "/api/conversations?q=no%20message%20has%20these%20words";
                stack.request(Method::GET, path).bearer_auth(&user.token)
            }
            Self::LiveStreams => stack.request(Method::GET, "/api/events").bearer_auth(&user.token),
            Self::FailedLogins => {
                let guess = json!({"name": "bob", "password": format!("guess {number}"), "delivery": "token"});
                stack.post("/api/auth/login").json(&guess)
            }
        };
        let mut response = request.send().await?;
        while response.chunk().await?.is_some() {}
        Ok(response.status())
    }
}

impl Fairness {
    /// Runs the measurements, on servers of their own.
    pub async fn run(self) -> anyhow::Result<Report> {
        let mut rows = Vec::new();
        for abuse in Abuse::value_variants() {
            rows.push(self.measure(*abuse).await?);
        }
        Ok(Report(rows))
    }

    async fn measure(self, abuse: Abuse) -> anyhow::Result<Row> {
        let stack = Arc::new(Stack::with_api(&[("GATEWAY_MAX_CHATS", PLACES)], &[]).await?);
        let (busy, calm) = (stack.user("ann").await?, stack.user("bob").await?);
        stack.upstream.respond_with(move |request| match abuse {
            Abuse::OpenStreams if String::from_utf8_lossy(&request.body).contains(ENDLESS) => {
                let piece = json!({"id": "c1", "choices": [{"index": 0, "delta": {"content": "heard"}}]});
                Script::stream([format!("data: {piece}\n\n")]).after(1, Step::Hang)
            }
            _ => answer(request, &"some words ".repeat(10)).paced(PACE),
        });
        let (tried, mut tasks) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        for _ in 0..abuse.tasks() {
            let (stack, busy, tried) = (Arc::clone(&stack), busy.clone(), Arc::clone(&tried));
            tasks.spawn(async move {
                loop {
                    let number = tried.fetch_add(1, Ordering::Relaxed);
                    // A refusal or a closed connection ends the try: the next one follows at once.
                    let _ = abuse.try_once(&stack, &busy, number).await;
                    tokio::task::yield_now().await;
                }
            });
        }
        sleep(Duration::from_secs(1)).await;
        let mut row = self.calm_user(&stack, &calm, abuse).await?;
        row.tried = tried.load(Ordering::Relaxed);
        row.resident_kb = ProcessMeter::of(stack.gateway.process().pid()).resident_kb()?;
        tasks.shutdown().await;
        Ok(row)
    }

    async fn calm_user(self, stack: &Arc<Stack>, calm: &User, abuse: Abuse) -> anyhow::Result<Row> {
        let mut pacer = Pacer::start(Duration::from_secs(1) / self.rate.max(1))?;
        let (begin, mut pending) = (Instant::now(), JoinSet::new());
        while begin.elapsed() < self.window {
            let due = pacer.tick().await?;
            let (stack, calm) = (Arc::clone(stack), calm.clone());
            pending.spawn(async move {
                let body = json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": "x"}]});
                let chat = stack.post("/v1/chat/completions").bearer_auth(&calm.token).json(&body).send();
                let read = stack.request(Method::GET, "/api/conversations?limit=20").bearer_auth(&calm.token).send();
                let chat = async {
                    let mut response = chat.await?;
                    let is_first = response.chunk().await?.is_some() && response.status() == 200;
                    let took = due.elapsed();
                    while response.chunk().await?.is_some() {}
                    anyhow::Ok(is_first.then_some(took))
                };
                let read = async {
                    let response = read.await?;
                    let is_read = response.status() == 200 && !response.bytes().await?.is_empty();
                    anyhow::Ok(is_read.then(|| due.elapsed()))
                };
                tokio::try_join!(chat, read)
            });
        }
        let mut row = Row {
            abuse,
            first_bytes: Histogram::new(3)?,
            reads: Histogram::new(3)?,
            refused: 0,
            tried: 0,
            resident_kb: 0,
        };
        while let Some(done) = pending.join_next().await {
            let (chat, read) = done??;
            for (took, histogram) in [(chat, &mut row.first_bytes), (read, &mut row.reads)] {
                match took {
                    Some(took) => histogram.record(u64::try_from(took.as_micros())?)?,
                    None => row.refused += 1,
                }
            }
        }
        Ok(row)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| one user's | tries | first byte of others, p50, p99, ms | reads of others, p50, p99, ms | refused | gateway, MB |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        #[expect(clippy::cast_precision_loss, reason = "the value is printed with one digit")]
        let ms = |took: &Histogram<u64>, quantile| took.value_at_quantile(quantile) as f64 / 1000.0;
        for row in &self.0 {
            let name =
                row.abuse.to_possible_value().map(|value| value.get_name().replace('-', " ")).unwrap_or_default();
            writeln!(
                f,
                "| {name} | {} | {:.1}, {:.1} | {:.1}, {:.1} | {} | {} |",
                row.tried,
                ms(&row.first_bytes, 0.5),
                ms(&row.first_bytes, 0.99),
                ms(&row.reads, 0.5),
                ms(&row.reads, 0.99),
                row.refused,
                row.resident_kb / 1000
            )?;
        }
        Ok(())
    }
}
