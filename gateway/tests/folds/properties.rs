//! The properties of folds and of the SSE parser for any input. No panic; no forwarded byte differs; memory is
//! proportional to the input; the result is the same for every cut. If the fold only appends, then the transcript of a
//! stream that breaks off between two events is a prefix of the whole transcript.

use std::ops::ControlFlow;

use bytes::Bytes;
use gateway::response::dialect::Fold;
use gateway::response::sse::SseParser;
use gateway::response::tap::{ExpectedBody, FeedStatus, Tap, UsageChunkPolicy};
use gateway::response::transcript::Transcript;
use shared::event::DialectName;

/// Checks the fold of a response, whole and cut into pieces of these sizes, in rotation.
pub(crate) fn check_fold(dialect: DialectName, body: &[u8], sizes: &[usize]) {
    let (forwarded, transcript, description) = run_tap(dialect, &[body]);
    assert!(forwarded == body, "the forwarded bytes differ from the body");
    assert!(text_bytes(&transcript) <= 8 * body.len() + 4096, "{} bytes of {}", text_bytes(&transcript), body.len());
    let pieces = cut(body, sizes);
    let (forwarded, _, description_of_pieces) = run_tap(dialect, &pieces);
    assert!(forwarded == body, "the forwarded bytes of the cut body differ from the body");
    if !depends_on_the_cut(body) {
        assert_eq!(description, description_of_pieces, "the transcript of the cut body differs");
    }
    if dialect == DialectName::OpenaiChat && body.starts_with(b"data:") {
        let (_, beginning, _) = run_tap(dialect, &[&body[..between_events(body)]]);
        assert!(transcript.text.starts_with(&beginning.text), "{:?} is not a prefix", beginning.text);
        assert!(transcript.reasoning.starts_with(&beginning.reasoning), "{:?} is not a prefix", beginning.reasoning);
    }
}

/// Checks the SSE parser with a stream, whole and cut in the same way.
pub(crate) fn check_parser(body: &[u8], sizes: &[usize]) {
    let whole = events(&[body]);
    let kept: usize = whole.iter().map(|(name, data)| name.len() + data.as_ref().map_or(0, Vec::len)).sum();
    // Every invalid byte of a name is replaced by the three bytes of U+FFFD.
    assert!(kept <= 3 * body.len(), "{kept} bytes of {}", body.len());
    if !depends_on_the_cut(body) {
        assert_eq!(whole, events(&cut(body, sizes)), "the events of the cut body differ");
        let beginning = events(&[&body[..between_events(body)]]);
        assert!(whole.starts_with(&beginning), "{beginning:?} is not a prefix");
    }
}

type Description = String;

/// Returns the forwarded bytes, the transcript, and a description of transcript and usage for comparison.
fn run_tap(dialect: DialectName, chunks: &[&[u8]]) -> (Vec<u8>, Transcript, Description) {
    let mut tap = Tap::new(Fold::new(dialect), ExpectedBody::Answer, UsageChunkPolicy::Forward);
    let (mut forwarded, mut has_ended) = (Vec::new(), false);
    for chunk in chunks {
        if has_ended {
            tap.forward_unread(Bytes::copy_from_slice(chunk));
        } else if tap.feed(Bytes::copy_from_slice(chunk)) == FeedStatus::End {
            has_ended = true;
            tap.release();
        }
        while let Some(bytes) = tap.next_chunk() {
            forwarded.extend_from_slice(&bytes);
        }
    }
    if !has_ended {
        tap.finish();
    }
    tap.release();
    while let Some(bytes) = tap.next_chunk() {
        forwarded.extend_from_slice(&bytes);
    }
    let (transcript, usage) = tap.take_transcript();
    let description = format!("{transcript:?} {usage:?}");
    (forwarded, transcript, description)
}

fn events(chunks: &[&[u8]]) -> Vec<(String, Option<Vec<u8>>)> {
    let mut parser = SseParser::default();
    let mut events = Vec::new();
    let mut on_event = |event: gateway::response::sse::SseEvent<'_>| {
        if event.data.is_some() {
            events.push((event.name.to_owned(), event.data.map(<[u8]>::to_vec)));
        }
        ControlFlow::Continue(())
    };
    for chunk in chunks {
        parser.feed(chunk, &mut on_event);
    }
    parser.finish(&mut on_event);
    events
}

fn text_bytes(transcript: &Transcript) -> usize {
    let calls = transcript.tool_calls.iter().map(|call| call.id.len() + call.name.len() + call.arguments.len());
    let others = transcript.other_choices.iter().map(|(_, other)| text_bytes(other));
    let texts = [&transcript.text, &transcript.reasoning, &transcript.refusal, &transcript.audio_transcript];
    texts.iter().map(|text| text.len()).chain(calls).chain(others).sum()
}

fn cut<'a>(mut body: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if body.is_empty() {
            break;
        }
        let (piece, rest) = body.split_at((*size).clamp(1, body.len()));
        pieces.push(piece);
        body = rest;
    }
    pieces
}

/// True if a line begins with `[DONE]` followed by other text. If cut after `[DONE]`, the line is taken for the end,
/// because clients do the same.
fn depends_on_the_cut(body: &[u8]) -> bool {
    let places = body.windows(6).enumerate().filter(|(_, window)| *window == b"[DONE]");
    let next_byte = |cut_at: usize| body[cut_at + 6..].iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\x0c'));
    places.into_iter().any(|(cut_at, _)| !matches!(next_byte(cut_at), None | Some(b'\n' | b'\r')))
}

/// The position after the last blank line in the first half of the body; 0 without one.
fn between_events(body: &[u8]) -> usize {
    let half = &body[..body.len() / 2];
    half.windows(2).rposition(|window| window == b"\n\n").map_or(0, |cut_at| cut_at + 2)
}
