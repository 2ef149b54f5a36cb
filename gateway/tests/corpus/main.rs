//! Reads recorded exchanges with real providers through the gateway's tap. For every cut of the bytes, the same bytes
//! must be forwarded, and the transcript must be the correct reading as stated by the corpus.
//!
//! The corpus lies beside the checkout (`../shared/corpus`). Without the corpus the tests are skipped.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]
#![expect(clippy::print_stdout, reason = "the number of exchanges is part of the result")]

mod cuts;
mod expected;
mod later_rules;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use gateway::response::dialect::{Fold, parse_error_body};
use gateway::response::tap::{ExpectedBody, FeedStatus, Tap, UsageChunkPolicy};
use gateway::response::transcript::Transcript;
use serde::Deserialize;
use shared::event::{ChatError, DialectName};
use shared::usage::Usage;

#[derive(Deserialize)]
struct Meta {
    status: u16,
}

/// The result of reading one body.
struct Reading {
    forwarded: Vec<u8>,
    transcript: Transcript,
    usage: Usage,
    error: Option<ChatError>,
}

fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    path.is_dir().then_some(path)
}

fn dialect(folder: &str) -> DialectName {
    match folder {
        "openai-chat" => DialectName::OpenaiChat,
        "openai-responses" => DialectName::OpenaiResponses,
        "anthropic-messages" => DialectName::AnthropicMessages,
        other => panic!("no dialect for the corpus folder {other}"),
    }
}

/// The paths of all exchanges of a dialect, sorted.
fn exchanges(corpus: &Path, folder: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(corpus.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn read(dialect: DialectName, status: u16, chunks: &[&[u8]], usage_chunk: UsageChunkPolicy) -> Reading {
    let expected = if status < 300 { ExpectedBody::Answer } else { ExpectedBody::Error };
    let mut tap = Tap::new(Fold::new(dialect), expected, usage_chunk);
    let mut forwarded = Vec::new();
    let mut has_ended = false;
    for chunk in chunks {
        if has_ended {
            forwarded.extend_from_slice(chunk);
            continue;
        }
        has_ended = tap.feed(Bytes::copy_from_slice(chunk)) == FeedStatus::End;
        while let Some(bytes) = tap.next_chunk() {
            forwarded.extend_from_slice(&bytes);
        }
        if has_ended {
            tap.release();
            while let Some(bytes) = tap.next_chunk() {
                forwarded.extend_from_slice(&bytes);
            }
        }
    }
    if !has_ended {
        tap.finish();
        tap.release();
        while let Some(bytes) = tap.next_chunk() {
            forwarded.extend_from_slice(&bytes);
        }
    }
    let (mut transcript, usage) = tap.take_transcript();
    let error = if status < 300 { transcript.error.take() } else { Some(parse_error_body(status, tap.error_body())) };
    Reading { forwarded, transcript, usage, error }
}

fn check(folder: &str) {
    let Some(corpus) = corpus() else {
        println!("skipped: no corpus of recorded exchanges beside the checkout");
        return;
    };
    let (mut exchanges_read, mut wrong) = (0, Vec::new());
    for path in exchanges(&corpus, folder) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let file = |name: &str| std::fs::read(path.join(name)).unwrap();
        let meta: Meta = serde_json::from_slice(&file("meta.json")).unwrap();
        let body = file("response.body");
        let mut expected: serde_json::Value = serde_json::from_slice(&file("expected.json")).unwrap();
        later_rules::apply(folder, &body, &mut expected);
        let expected: expected::Expected = serde_json::from_value(expected).unwrap();
        for (cut, chunks) in cuts::all(&name, &body) {
            let reading = read(dialect(folder), meta.status, &chunks, UsageChunkPolicy::Forward);
            let mut differences = expected.differences(dialect(folder), &reading);
            if reading.forwarded != body {
                differences.push("the forwarded bytes differ from the body".to_owned());
            }
            wrong.extend(differences.into_iter().map(|what| format!("{name}, cut {cut}: {what}")));
        }
        exchanges_read += 1;
    }
    println!("{folder}: {exchanges_read} exchanges, each in {} cuts: {} disagreements", cuts::COUNT, wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(exchanges_read > 0, "no exchanges in {folder}");
}

#[test]
fn openai_chat_exchanges_are_read_as_expected() {
    check("openai-chat");
}

#[test]
fn openai_responses_exchanges_are_read_as_expected() {
    check("openai-responses");
}

#[test]
fn anthropic_messages_exchanges_are_read_as_expected() {
    check("anthropic-messages");
}

/// With the usage chunk removed, all other bytes are forwarded in order, and the transcript is the same.
#[test]
fn a_usage_chunk_is_removed_as_a_whole() {
    let Some(corpus) = corpus() else { return };
    let mut removed = 0;
    for path in exchanges(&corpus, "openai-chat") {
        let body = std::fs::read(path.join("response.body")).unwrap();
        let whole = read(DialectName::OpenaiChat, 200, &[&body], UsageChunkPolicy::Remove);
        for (cut, chunks) in cuts::all("taken out", &body) {
            let reading = read(DialectName::OpenaiChat, 200, &chunks, UsageChunkPolicy::Remove);
            assert_eq!(reading.forwarded.len(), whole.forwarded.len(), "{}, cut {cut}", path.display());
            assert!(reading.forwarded == whole.forwarded, "{}, cut {cut}", path.display());
        }
        if whole.forwarded.len() < body.len() {
            removed += 1;
            let before = read(DialectName::OpenaiChat, 200, &[&body], UsageChunkPolicy::Forward);
            assert_eq!(before.usage.total_tokens, whole.usage.total_tokens, "{}", path.display());
            let again = read(DialectName::OpenaiChat, 200, &[&whole.forwarded], UsageChunkPolicy::Forward);
            assert_eq!(again.transcript.text, before.transcript.text, "{}", path.display());
        }
    }
    println!("{removed} usage chunks removed");
}
