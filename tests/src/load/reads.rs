//! Reads of the web pages at a fixed rate while chats stream, on filled tables. Each read is timed from the due time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fill::fill;
use crate::load::pacer::Pacer;
use crate::stack::{MODEL, Stack, User};
use harness::openai::DONE;
use harness::upstream::answer;

/// Pause between two chunks of a stream.
const PACE: Duration = Duration::from_millis(50);
/// Upper bound of concurrent reads. With more, the API cannot keep up.
const MOST_AT_ONCE: usize = 1_000;

/// Settings of the measurement.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Reads {
    /// Number of users in the tables.
    #[arg(long, default_value_t = 1_000)]
    users: u32,
    /// Number of chats for each user, with two messages each.
    #[arg(long, default_value_t = 100)]
    chats: u32,
    /// Number of reads started each second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Number of concurrent streams.
    #[arg(long, default_value_t = 100)]
    streams: usize,
    /// Duration of the measurement, without the warm-up.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    window: Duration,
}

/// Latency of the reads by kind, in microseconds.
#[derive(Debug)]
pub struct Report {
    reads: BTreeMap<&'static str, Histogram<u64>>,
    chats: u64,
    messages: u64,
}

/// Paths that the web pages read.
struct Paths {
    conversation: String,
    user: u32,
}

impl Paths {
    /// Name and path of the next read, in turn.
    fn nth(&self, number: u64) -> (&'static str, String) {
        let Self { conversation, user } = self;
        match number % 8 {
            0 => ("conversations", "/api/conversations?limit=50".to_owned()),
            1 => ("messages", format!("/api/conversations/{conversation}/messages?order=desc&limit=60")),
            2 => ("conversation", format!("/api/conversations/{conversation}")),
            3 => ("profile, 30 days", "/api/users/me?zeros=true".to_owned()),
            4 => ("usage by day, by zone", "/api/users/me/usage?bucket=day&tz=Asia/Shanghai".to_owned()),
            5 => ("usage by model", "/api/users/me/usage?bucket=day&group=model&tz=Europe/Berlin".to_owned()),
            6 => ("search", format!("/api/conversations?q=conversation+{}", user % 10)),
            _ => ("chats", "/api/chats?limit=50".to_owned()),
        }
    }
}

impl Reads {
    /// Runs the measurement, on servers of its own.
    pub async fn run(self) -> anyhow::Result<Report> {
        let stack = Arc::new(Stack::with_api(&[], &[]).await?);
        let pool = stack.database().await?;
        fill(&pool, self.users, self.chats).await?;
        let messages = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM messages").fetch_one(&pool).await?;
        pool.close().await;
        // The filled rows belong to users with these ids and names.
        let readers = self.users.min(20);
        let mut users = Vec::new();
        for number in 1..=readers {
            let token = stack.recorder.token(&format!("name {number}"), "1h").await?;
            let user = User { id: format!("user {number}"), token };
            let listed = stack.read(&user, "/api/conversations?limit=50").await?;
            let conversation = listed["data"][0]["id"].as_str().context("too few conversations to read")?.to_owned();
            users.push((user, Paths { conversation, user: number }));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let chats = Arc::new(AtomicU64::new(0));
        stack.upstream.respond_with(|request| answer(request, &"some words ".repeat(30)).paced(PACE));
        let mut streams = JoinSet::new();
        for number in 0..self.streams {
            let (stack, stop, chats) = (Arc::clone(&stack), Arc::clone(&stop), Arc::clone(&chats));
            let user = users[number % users.len()].0.clone();
            streams.spawn(async move { chat(&stack, &user, &stop, &chats).await });
        }
        let reads = self.read(&stack, &users).await?;
        stop.store(true, Ordering::Relaxed);
        while let Some(stream) = streams.join_next().await {
            stream??;
        }
        Ok(Report { reads, chats: chats.load(Ordering::Relaxed), messages: u64::try_from(messages)? })
    }

    async fn read(
        &self,
        stack: &Arc<Stack>,
        users: &[(User, Paths)],
    ) -> anyhow::Result<BTreeMap<&'static str, Histogram<u64>>> {
        let mut pacer = Pacer::start(Duration::from_secs(1) / self.rate.max(1))?;
        let (warm, begin) = (self.window / 6, Instant::now());
        let (mut pending, mut reads) = (JoinSet::new(), BTreeMap::new());
        for number in 0_u64.. {
            let due = pacer.tick().await?;
            if begin.elapsed() > warm + self.window {
                break;
            }
            let (user, paths) = &users[usize::try_from(number / 8)? % users.len()];
            let (name, path) = paths.nth(number);
            let is_measured = due.duration_since(begin) > warm;
            let (stack, token) = (Arc::clone(stack), user.token.clone());
            pending.spawn(async move {
                let response = stack.request(Method::GET, &path).bearer_auth(&token).send().await?;
                let status = response.status();
                let body = response.bytes().await?;
                ensure!(status == 200 && !body.is_empty(), "{path}: {status}");
                Ok((name, is_measured.then(|| due.elapsed())))
            });
            ensure!(
                pending.len() < MOST_AT_ONCE,
                "{MOST_AT_ONCE} reads are open at once: the rate is higher than the target can serve"
            );
            while let Some(done) = pending.try_join_next() {
                count(&mut reads, done??)?;
            }
        }
        while let Some(done) = pending.join_next().await {
            count(&mut reads, done??)?;
        }
        Ok(reads)
    }
}

fn count(
    reads: &mut BTreeMap<&'static str, Histogram<u64>>,
    (name, took): (&'static str, Option<Duration>),
) -> anyhow::Result<()> {
    if !reads.contains_key(name) {
        reads.insert(name, Histogram::new(3)?);
    }
    if let (Some(took), Some(histogram)) = (took, reads.get_mut(name)) {
        histogram.record(u64::try_from(took.as_micros())?)?;
    }
    Ok(())
}

/// Streams one chat after another until told to stop. A stream without a proper end is an error.
async fn chat(stack: &Stack, user: &User, stop: &AtomicBool, chats: &AtomicU64) -> anyhow::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "go on"}]});
        let response = stack.post("/api/chat").bearer_auth(&user.token).json(&body).send().await?;
        let mut last = Vec::new();
        let mut chunks = response.error_for_status()?.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            last.extend_from_slice(&chunk?);
            last.drain(..last.len().saturating_sub(DONE.len()));
        }
        ensure!(last == DONE, "a stream ended without its last event");
        chats.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} messages in the tables, {} chats streamed meanwhile\n", self.messages, self.chats)?;
        writeln!(f, "| read | reads | p50, ms | p99, ms | most, ms |\n|---|---|---|---|---|")?;
        #[expect(clippy::cast_precision_loss, reason = "the value is printed with one digit")]
        let ms = |micros: u64| micros as f64 / 1000.0;
        for (name, took) in &self.reads {
            let (half, most) = (took.value_at_quantile(0.5), took.max());
            let (half, nearly, most) = (ms(half), ms(took.value_at_quantile(0.99)), ms(most));
            writeln!(f, "| {name} | {} | {half:.1} | {nearly:.1} | {most:.1} |", took.len())?;
        }
        Ok(())
    }
}
