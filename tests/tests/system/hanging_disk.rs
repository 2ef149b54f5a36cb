//! A gateway whose disk hangs: streams flow and end, health checks answer, and new chats are refused within a bound.
//!
//! The disk is a file system of its own in a file, which the kernel freezes: each write waits until the file system is thawed.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use harness::openai::{Answer, ChatRequest};
use harness::services::Gateway;
use harness::upstream::{Script, Step};
use tests::stack::{Stack, User, header};
use tokio::time::{Instant, sleep, timeout};

use crate::leases::PATIENCE;

/// The longest time that anything may take that needs nothing of the disk, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A file system that can be frozen. Thawed and unmounted when dropped, and when this process ends in any other way.
struct FreezableDisk {
    directory: PathBuf,
    guard: Child,
    /// The guard thaws and unmounts the disk when this end of a pipe is closed.
    pipe: Option<ChildStdin>,
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl FreezableDisk {
    /// Mounts the disk. None without the right, or without the programs, to mount and to freeze a file system.
    fn mount(parent: &Path) -> anyhow::Result<Option<Self>> {
        const GUARD: &str = r#"trap '' INT TERM HUP; read -r _; fsfreeze -u "$1"; umount "$1" || umount -l "$1""#;
        let (image, directory) = (parent.join("disk.img"), parent.join("disk"));
        std::fs::create_dir_all(&directory)?;
        std::fs::File::create(&image)?.set_len(64 << 20)?;
        let (image, place) = (image.display().to_string(), directory.display().to_string());
        if !run("mkfs.ext4", &["-q", &image]) || !run("mount", &["-o", "loop", &image, &place]) {
            return Ok(None);
        }
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard", &place]).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut guard = guard.spawn()?;
        let pipe = guard.stdin.take();
        let disk = Self { directory, guard, pipe };
        Ok((disk.freeze() && disk.thaw()).then_some(disk))
    }

    fn freeze(&self) -> bool {
        run("fsfreeze", &["-f", &self.directory.display().to_string()])
    }

    fn thaw(&self) -> bool {
        run("fsfreeze", &["-u", &self.directory.display().to_string()])
    }
}

impl Drop for FreezableDisk {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.guard.wait();
    }
}

fn request(gateway: &Gateway, user: &User) -> reqwest::RequestBuilder {
    let body = serde_json::json!({
        "model": tests::stack::MODEL, "stream": true, "messages": [{"role": "user", "content": "hello"}],
    });
    harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(&user.token).json(&body)
}

/// Reads an answer to its end. Returns the longest time between two pieces, and the whole answer.
async fn read(mut response: reqwest::Response) -> anyhow::Result<(Duration, String)> {
    let (mut longest, mut last, mut body) = (Duration::ZERO, Instant::now(), Vec::new());
    while let Some(piece) = timeout(PATIENCE, response.chunk()).await?? {
        longest = longest.max(last.elapsed());
        last = Instant::now();
        body.extend_from_slice(&piece);
    }
    Ok((longest, String::from_utf8(body)?))
}

/// Asks the gateway as long as the disk is frozen. Returns the longest time to an answer.
async fn ask(url: &str, until: Instant) -> anyhow::Result<Duration> {
    let mut longest = Duration::ZERO;
    while Instant::now() < until {
        let since = Instant::now();
        let response = timeout(PATIENCE, harness::http::client().get(url).send()).await??;
        ensure!(response.status() == 200, "{url}: {}", response.status());
        longest = longest.max(since.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    Ok(longest)
}

/// Sends a chat, which may be refused. Returns the time to the head of the answer and, of an answer, the id of the chat.
async fn chat(gateway: &Gateway, user: &User) -> anyhow::Result<(Duration, Option<String>)> {
    let since = Instant::now();
    let response = timeout(PATIENCE, request(gateway, user).send()).await??;
    let took = since.elapsed();
    if response.status() == 503 {
        header(&response, "retry-after")?;
        return Ok((took, None));
    }
    ensure!(response.status() == 200, "{}", response.status());
    let id = header(&response, "x-chat-id")?;
    let (_, body) = read(response).await?;
    ensure!(body.ends_with("data: [DONE]\n\n"), "{body}");
    Ok((took, Some(id)))
}

#[tokio::test]
async fn costs_no_more_than_what_waits_for_it() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let Some(disk) = FreezableDisk::mount(stack.directory())? else {
        eprintln!("SKIPPED: no right to mount and freeze a file system, or no mkfs.ext4 and fsfreeze");
        return Ok(());
    };
    let data = disk.directory.join("gateway");
    let on_disk = |settings: &mut harness::services::gateway::GatewaySettings| {
        settings.instance = "hanging".into();
        settings.data_dir = data.clone();
        settings.more.push(("GATEWAY_JOURNAL_MAX_BYTES".into(), "16777216".into()));
        settings.more.push(("TOKIO_WORKER_THREADS".into(), "1".into()));
    };
    let gateway = stack.another_gateway(on_disk).await?;
    // Each answer takes two to three seconds.
    stack.upstream.respond_with(|received| {
        let text = "one two three four five six seven eight nine ten ".repeat(4);
        let Ok(request) = ChatRequest::parse(&received.body) else { return Script::new(http::StatusCode::BAD_REQUEST) };
        let answer = Answer::to(&request, &text);
        let answer = Script::answer(&request, &answer);
        let pieces = u32::try_from(answer.body.len()).unwrap_or(u32::MAX);
        answer.paced(Duration::from_millis(2500) / pieces.max(1)).before(Step::Pause(Duration::from_millis(10)))
    });
    let running: Vec<reqwest::Response> = try_join_all((0..16).map(|_| request(&gateway, &ann).send())).await?;
    let ids = running.iter().map(|response| header(response, "x-chat-id")).collect::<anyhow::Result<Vec<_>>>()?;
    gateway.drained(PATIENCE).await?;

    ensure!(disk.freeze(), "the disk cannot be frozen");
    let frozen = Instant::now();
    let until = frozen + Duration::from_secs(12);
    let (live, metrics) = (gateway.health_url("/health/live"), gateway.health_url("/metrics"));
    let streams = async {
        let read = try_join_all(running.into_iter().map(read)).await?;
        anyhow::Ok((read, frozen.elapsed()))
    };
    let refusals = async {
        let readiness = gateway.health_url("/health/ready");
        let mut first = Vec::new();
        while harness::http::client().get(&readiness).send().await?.status() == 200 {
            ensure!(Instant::now() < until, "the gateway stays ready");
            first.push(tokio::spawn({
                let request = request(&gateway, &ann);
                async move { anyhow::Ok((Instant::now(), request.send().await?)) }
            }));
            sleep(Duration::from_millis(500)).await;
        }
        let not_ready_after = frozen.elapsed();
        let mut slowest = Duration::ZERO;
        while Instant::now() < until {
            let (took, id) = chat(&gateway, &ann).await?;
            ensure!(id.is_none(), "a chat began although the disk hangs");
            slowest = slowest.max(took);
            sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok((not_ready_after, slowest, first))
    };
    let thaw = async {
        tokio::time::sleep_until(until).await;
        ensure!(disk.thaw(), "the disk cannot be thawed");
        anyhow::Ok(())
    };
    let frozen = tokio::try_join!(streams, ask(&live, until), ask(&metrics, until), refusals, thaw);
    disk.thaw();
    let ((read, ended_after), liveness, metrics, (not_ready_after, refused_within, first), ()) = frozen?;
    println!("ended after {ended_after:?}, not ready after {not_ready_after:?}, refused within {refused_within:?}");
    println!("health answers within {liveness:?}, metrics within {metrics:?}");
    for (longest, body) in &read {
        ensure!(*longest < AT_ONCE * 2, "a stream stood still for {longest:?}");
        ensure!(body.ends_with("data: [DONE]\n\n"), "an answer has no end: {body}");
    }
    ensure!(ended_after < Duration::from_secs(8), "the ends came after {ended_after:?}");
    ensure!(liveness < AT_ONCE && metrics < AT_ONCE && refused_within < AT_ONCE, "see the times above");
    ensure!(not_ready_after < Duration::from_secs(5), "{not_ready_after:?}");
    for sent in first {
        let (_, response) = sent.await??;
        let is_refused = response.status() == 503;
        ensure!(is_refused || response.status() == 200, "{}", response.status());
        if !is_refused {
            ensure!(self::read(response).await?.1.ends_with("data: [DONE]\n\n"), "an answer has no end");
        }
    }
    gateway.ready().await?;
    let (_, id) = chat(&gateway, &ann).await?;
    let later = id.context("the gateway must take chats again")?;
    gateway.drained(PATIENCE).await?;

    // The journal has everything: the next process finds no chat without an end.
    gateway.kill9().await;
    let gateway = stack.another_gateway(on_disk).await?;
    gateway.drained(PATIENCE).await?;
    let oracle = stack.settled().await?;
    for id in ids.iter().chain([&later]) {
        let chat = oracle.tables.chats.get(&id.parse()?).with_context(|| format!("chat {id} is not recorded"))?;
        let outcome = chat.ending.as_ref().map(|ending| format!("{:?}", ending.outcome));
        ensure!(outcome.as_deref().is_some_and(|outcome| outcome.starts_with("Completed")), "chat {id}: {outcome:?}");
    }
    gateway.kill9().await;
    Ok(())
}
