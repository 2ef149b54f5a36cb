//! The memory of a gateway through which large files and sounds stream.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use harness::upstream::{Script, Step};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use reqwest::Body;
use serde_json::json;
use shared::event::Event;
use tests::stack::{MODEL, Stack, User};

/// The size of the file and of the sound, in bytes.
const BYTES: usize = 50_000_000;

/// The bound that docs/PERFORMANCE.md states for one file or sound.
const MAX_GROWTH_KB: u64 = 16 * 1024;

/// A figure of a process' memory, in KB.
fn status_kb(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such figure")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Sends a file of [`BYTES`] in pieces of 64 KiB, the model before the file.
async fn upload(stack: &Stack, user: &User) -> anyhow::Result<()> {
    stack.upstream.respond_next(Script::json(StatusCode::OK, r#"{"text":"Good morning."}"#));
    let head = format!(
        "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{MODEL}\r\n--b\r\nContent-Disposition: form-data; \
         name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n"
    );
    let piece = Bytes::from(vec![7_u8; 64 << 10]);
    let pieces = (0..BYTES).step_by(piece.len()).map(move |at| piece.slice(..piece.len().min(BYTES - at)));
    let pieces = [Bytes::from(head)].into_iter().chain(pieces).chain([Bytes::from_static(b"\r\n--b--\r\n")]);
    let request = stack.post("/v1/audio/transcriptions").bearer_auth(&user.token);
    let request = request.header("content-type", "multipart/form-data; boundary=b");
    let response = request.body(Body::wrap_stream(stream::iter(pieces.map(anyhow::Ok)))).send().await?;
    ensure!(response.status() == 200, "{response:?}");
    Ok(())
}

/// Receives a sound of [`BYTES`].
async fn listen(stack: &Stack, user: &User) -> anyhow::Result<()> {
    let piece = Bytes::from(vec![7_u8; 100_000]);
    stack.upstream.respond_next(Script {
        body: (0..BYTES / piece.len()).map(|_| Step::Send(piece.clone())).collect(),
        ..Script::new(StatusCode::OK).header(CONTENT_TYPE, "audio/mpeg")
    });
    let body = json!({"model": MODEL, "input": "Good morning.", "voice": "alloy"});
    let response = stack.post("/v1/audio/speech").bearer_auth(&user.token).json(&body).send().await?;
    let (mut sound, mut received) = (response.error_for_status()?.bytes_stream(), 0);
    while let Some(piece) = sound.next().await {
        received += piece?.len();
    }
    ensure!(received == BYTES, "{received} bytes");
    Ok(())
}

#[tokio::test]
async fn a_large_file_and_a_large_sound_take_no_memory() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "hello").await?;
    let pid = stack.gateway.process().pid();
    let idle = status_kb(pid, "VmRSS:")?;
    upload(&stack, &ann).await?;
    let uploaded = status_kb(pid, "VmHWM:")?.saturating_sub(idle);
    listen(&stack, &ann).await?;
    let listened = status_kb(pid, "VmHWM:")?.saturating_sub(idle);
    println!("idle {idle} KB; after the file {uploaded} KB more at the peak, after the sound {listened} KB");
    ensure!(listened < MAX_GROWTH_KB, "{uploaded} KB with the file, {listened} KB with the sound");
    let events = stack.settled().await?.events;
    let media = events.iter().filter_map(|event| match event {
        Event::MessageCompleted(end) => end.media.as_ref().map(|media| (media.input_bytes, media.output_bytes)),
        _ => None,
    });
    let media: Vec<_> = media.collect();
    ensure!(media.len() == 2 && media[0].0.is_some_and(|bytes| bytes > BYTES as u64), "{media:?}");
    ensure!(media[1].1 == Some(BYTES as u64), "{media:?}");
    Ok(())
}
