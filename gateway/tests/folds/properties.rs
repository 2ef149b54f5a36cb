//! What must hold of whatever reads answers, whatever bytes come: it never panics, never changes a byte, takes memory in
//! proportion to what came, and makes the same of it however it is cut. Of a fold that only adds, a stream that breaks off
//! between two events has said a beginning of what it would have said.

use std::ops::ControlFlow;

use bytes::Bytes;
use gateway::response::dialect::Fold;
use gateway::response::sse::SseReader;
use gateway::response::tap::{Expected, Fed, Tap, UsageChunk};
use gateway::response::transcript::Transcript;
use shared::event::DialectName;

/// Checks a fold with this answer, whole and cut into pieces of these sizes, over and over.
pub(crate) fn hold_of_a_fold(dialect: DialectName, body: &[u8], sizes: &[usize]) {
    let (passed, transcript, told) = tap(dialect, &[body]);
    assert!(passed == body, "other bytes passed");
    assert!(size(&transcript) <= 8 * body.len() + 4096, "{} bytes of {}", size(&transcript), body.len());
    let pieces = cut(body, sizes);
    let (passed, _, told_of_pieces) = tap(dialect, &pieces);
    assert!(passed == body, "cut, other bytes passed");
    if !depends_on_the_cut(body) {
        assert_eq!(told, told_of_pieces, "cut, it is another answer");
    }
    if dialect == DialectName::OpenaiChat && body.starts_with(b"data:") {
        let (_, beginning, _) = tap(dialect, &[&body[..between_events(body)]]);
        assert!(transcript.text.starts_with(&beginning.text), "{:?} is no beginning", beginning.text);
        assert!(transcript.reasoning.starts_with(&beginning.reasoning), "{:?} is no beginning", beginning.reasoning);
    }
}

/// Checks the reader with this stream, in the same way.
pub(crate) fn hold_of_the_reader(body: &[u8], sizes: &[usize]) {
    let whole = events(&[body]);
    let kept: usize = whole.iter().map(|(name, data)| name.len() + data.as_ref().map_or(0, Vec::len)).sum();
    // What is no UTF-8 in a name grows threefold.
    assert!(kept <= 3 * body.len(), "{kept} bytes of {}", body.len());
    if !depends_on_the_cut(body) {
        assert_eq!(whole, events(&cut(body, sizes)), "cut, there are other events");
        let beginning = events(&[&body[..between_events(body)]]);
        assert!(whole.starts_with(&beginning), "{beginning:?} is no beginning");
    }
}

type Told = String;

/// What passes, what is recorded, and both the record and the usage in words.
fn tap(dialect: DialectName, chunks: &[&[u8]]) -> (Vec<u8>, Transcript, Told) {
    let mut tap = Tap::new(Fold::new(dialect), Expected::Answer, UsageChunk::Passes);
    let (mut passed, mut is_over) = (Vec::new(), false);
    for chunk in chunks {
        if is_over {
            tap.pass(Bytes::copy_from_slice(chunk));
        } else if tap.feed(Bytes::copy_from_slice(chunk)) == Fed::End {
            is_over = true;
            tap.release();
        }
        while let Some(bytes) = tap.next_chunk() {
            passed.extend_from_slice(&bytes);
        }
    }
    if !is_over {
        tap.finish();
    }
    tap.release();
    while let Some(bytes) = tap.next_chunk() {
        passed.extend_from_slice(&bytes);
    }
    let (transcript, usage) = tap.take_transcript();
    let told = format!("{transcript:?} {usage:?}");
    (passed, transcript, told)
}

fn events(chunks: &[&[u8]]) -> Vec<(String, Option<Vec<u8>>)> {
    let mut reader = SseReader::default();
    let mut events = Vec::new();
    let mut on = |event: gateway::response::sse::SseEvent<'_>| {
        if event.data.is_some() {
            events.push((event.name.to_owned(), event.data.map(<[u8]>::to_vec)));
        }
        ControlFlow::Continue(())
    };
    for chunk in chunks {
        reader.feed(chunk, &mut on);
    }
    reader.finish(&mut on);
    events
}

fn size(transcript: &Transcript) -> usize {
    let calls = transcript.tool_calls.iter().map(|call| call.id.len() + call.name.len() + call.arguments.len());
    let others = transcript.others.iter().map(|(_, other)| size(other));
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

/// A line that merely begins with `[DONE]` is taken for the end if it is cut there: that is when clients take it for the end.
fn depends_on_the_cut(body: &[u8]) -> bool {
    let places = body.windows(6).enumerate().filter(|(_, window)| *window == b"[DONE]");
    let after = |place: usize| body[place + 6..].iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\x0c'));
    places.into_iter().any(|(place, _)| !matches!(after(place), None | Some(b'\n' | b'\r')))
}

/// The last place in the first half after a blank line.
fn between_events(body: &[u8]) -> usize {
    let half = &body[..body.len() / 2];
    half.windows(2).rposition(|window| window == b"\n\n").map_or(0, |place| place + 2)
}
