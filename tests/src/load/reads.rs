//! The pages' reads at a fixed rate while chats stream, on tables as full as told: how long each takes, from when it was due.

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

/// Between two chunks of a stream.
const PACE: Duration = Duration::from_millis(50);
/// More reads at once than this are more than can be served.
const MOST_AT_ONCE: usize = 1_000;

/// What is done.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Reads {
    /// Users whose rows fill the tables.
    #[arg(long, default_value_t = 1_000)]
    users: u32,
    /// Chats of each, of two messages.
    #[arg(long, default_value_t = 100)]
    chats: u32,
    /// Reads a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Chats that stream meanwhile.
    #[arg(long, default_value_t = 100)]
    streams: usize,
    /// How long it measures.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    window: Duration,
}

/// How long the reads took, by what was read, in microseconds.
#[derive(Debug)]
pub struct Report {
    reads: BTreeMap<&'static str, Histogram<u64>>,
    chats: u64,
    messages: u64,
}

/// What pages ask for.
struct Paths {
    conversation: String,
    user: u32,
}

impl Paths {
    /// The name of the read whose turn it is, and its path.
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
    /// Does it, on servers of its own.
    pub async fn run(self) -> anyhow::Result<Report> {
        let stack = Arc::new(Stack::with_api(&[], &[]).await?);
        let pool = stack.database().await?;
        fill(&pool, self.users, self.chats).await?;
        let messages = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM messages").fetch_one(&pool).await?;
        pool.close().await;
        // Rows that were filled in belong to users of these ids and names.
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
            ensure!(pending.len() < MOST_AT_ONCE, "{MOST_AT_ONCE} reads at once: more than can be served");
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

/// Chats one after the other until told to stop: each has to come to its end.
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
        ensure!(last == DONE, "a stream ended without its end");
        chats.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} messages in the tables, {} chats streamed meanwhile\n", self.messages, self.chats)?;
        writeln!(f, "| read | reads | p50, ms | p99, ms | most, ms |\n|---|---|---|---|---|")?;
        #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
        let ms = |micros: u64| micros as f64 / 1000.0;
        for (name, took) in &self.reads {
            let (half, most) = (took.value_at_quantile(0.5), took.max());
            let (half, nearly, most) = (ms(half), ms(took.value_at_quantile(0.99)), ms(most));
            writeln!(f, "| {name} | {} | {half:.1} | {nearly:.1} | {most:.1} |", took.len())?;
        }
        Ok(())
    }
}
