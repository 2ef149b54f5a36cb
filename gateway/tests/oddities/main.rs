//! Known deviations of providers, one handmade sample each. Every sample is cut in several ways and read through the
//! gateway's tap.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

mod anthropic_messages;
mod broken_text;
mod encoding;
mod framing;
mod gemini_calls;
mod google_gemini;
mod openai_chat;
mod openai_chat_answers;
mod openai_chat_tools;
mod openai_responses;
mod other_shapes;
mod responses_items;
mod sizes;
mod unrecorded_content;

use bytes::Bytes;
use gateway::response::dialect::Fold;
use gateway::response::tap::{ExpectedBody, FeedStatus, Tap, UsageChunkPolicy};
use gateway::response::transcript::Transcript;
use shared::event::DialectName;
use shared::usage::{Usage, UsageSource};

/// The expected transcript and usage of a response, in a form for comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ExpectedTranscript {
    text: &'static str,
    reasoning: &'static str,
    refusal: &'static str,
    audio: &'static str,
    /// Per tool call: id, name, arguments.
    calls: &'static [(&'static str, &'static str, &'static str)],
    server_tool_calls: u64,
    finish_reason: Option<&'static str>,
    id: Option<&'static str>,
    model: Option<&'static str>,
    /// Prompt and completion tokens, if reported.
    usage: Option<(u64, u64)>,
    /// Error type, error code, message.
    error: Option<(Option<&'static str>, Option<&'static str>, &'static str)>,
    notes: &'static [&'static str],
}

/// The bytes forwarded before the end was released, all forwarded bytes, the transcript and the usage.
struct TapOutput {
    before_end: Vec<u8>,
    forwarded: Vec<u8>,
    transcript: Transcript,
    usage: Usage,
}

fn run_tap(dialect: DialectName, chunks: &[&[u8]]) -> TapOutput {
    let mut tap = Tap::new(Fold::new(dialect), ExpectedBody::Answer, UsageChunkPolicy::Forward);
    let mut forwarded = Vec::new();
    let mut before_end = None;
    for chunk in chunks {
        if before_end.is_some() {
            tap.forward_unread(Bytes::copy_from_slice(chunk));
            drain(&mut tap, &mut forwarded);
            continue;
        }
        let fed = tap.feed(Bytes::copy_from_slice(chunk));
        drain(&mut tap, &mut forwarded);
        if fed == FeedStatus::End {
            before_end = Some(forwarded.clone());
            tap.release();
            drain(&mut tap, &mut forwarded);
        }
    }
    let before_end = before_end.unwrap_or_else(|| {
        tap.finish();
        drain(&mut tap, &mut forwarded);
        let before_end = forwarded.clone();
        tap.release();
        drain(&mut tap, &mut forwarded);
        before_end
    });
    let (transcript, usage) = tap.take_transcript();
    TapOutput { before_end, forwarded, transcript, usage }
}

fn drain(tap: &mut Tap, forwarded: &mut Vec<u8>) {
    while let Some(bytes) = tap.next_chunk() {
        forwarded.extend_from_slice(&bytes);
    }
}

/// Checks for several cuts that the body is forwarded unchanged and read as expected, and that the transcript of every
/// prefix of the body is a prefix of the expected transcript.
fn check(dialect: DialectName, body: &str, expected: &ExpectedTranscript) {
    check_bytes(dialect, body.as_bytes(), expected);
}

fn check_bytes(dialect: DialectName, body: &[u8], expected: &ExpectedTranscript) {
    let description = String::from_utf8_lossy(body).into_owned();
    let cuts: [(&str, Vec<&[u8]>); 4] = [
        ("whole", vec![body]),
        ("in lines", body.split_inclusive(|byte| *byte == b'\n').collect()),
        ("in bytes", body.chunks(1).collect()),
        ("in sevens", body.chunks(7).collect()),
    ];
    for (cut, chunks) in cuts {
        let output = run_tap(dialect, &chunks);
        assert!(output.forwarded == body, "cut {cut}, the forwarded bytes differ from the body: {description}");
        compare(expected, &output.transcript, &output.usage, &format!("cut {cut}: {description}"));
    }
    for length in 0..body.len() {
        let transcript = run_tap(dialect, &[&body[..length]]).transcript;
        assert!(
            expected.text.starts_with(&transcript.text),
            "after {length} bytes {:?}: {description}",
            transcript.text
        );
        for (call, (_, _, arguments)) in transcript.tool_calls.iter().zip(expected.calls) {
            assert!(arguments.starts_with(&call.arguments), "after {length} bytes {:?}: {description}", call.arguments);
        }
    }
}

fn compare(expected: &ExpectedTranscript, transcript: &Transcript, usage: &Usage, description: &str) {
    assert_eq!(expected.text, transcript.text, "text, {description}");
    assert_eq!(expected.reasoning, transcript.reasoning, "reasoning, {description}");
    assert_eq!(expected.refusal, transcript.refusal, "refusal, {description}");
    assert_eq!(expected.audio, transcript.audio_transcript, "audio, {description}");
    let calls: Vec<_> =
        transcript.tool_calls.iter().map(|c| (c.id.as_str(), c.name.as_str(), c.arguments.as_str())).collect();
    assert_eq!(expected.calls, calls, "tool calls, {description}");
    assert_eq!(expected.server_tool_calls, transcript.server_tool_calls, "server tool calls, {description}");
    assert_eq!(expected.finish_reason, transcript.finish_reason.as_deref(), "finish reason, {description}");
    assert_eq!(expected.id, transcript.response_id.as_deref(), "response id, {description}");
    assert_eq!(expected.model, transcript.model.as_deref(), "model, {description}");
    let reported = (usage.source == UsageSource::Reported)
        .then(|| (usage.prompt_tokens.unwrap_or(0), usage.completion_tokens.unwrap_or(0)));
    assert_eq!(expected.usage, reported, "usage, {description}");
    let error = transcript.error.as_ref().map(|e| (e.kind.as_deref(), e.code.as_deref(), e.message.as_str()));
    assert_eq!(expected.error, error, "error, {description}");
    assert_eq!(expected.notes, transcript.notes, "notes, {description}");
}

/// An event stream of events with this data and no name.
fn events(data: &[&str]) -> String {
    data.iter().map(|data| format!("data: {data}\n\n")).collect()
}

/// Checks for several cuts that the text `end` is not forwarded before the end is released. A client could act on this
/// text.
fn check_end_is_held_back(dialect: DialectName, body: &str, end: &str) {
    for size in [1, 2, 5, 11, 64, body.len()] {
        let chunks: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        let before = String::from_utf8(run_tap(dialect, &chunks).before_end).unwrap();
        assert!(!before.contains(end), "in chunks of {size}, forwarded before the end: {before}");
    }
}
