//! Tests of forwarded, held-back and folded bytes, with responses cut at every position.

use proptest::prelude::*;
use shared::event::DialectName;

use super::*;

const CONTENT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hé\"}}]}\n\n";
const FINISH: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// Feeds the chunks. Returns the bytes forwarded before the end was released, all forwarded bytes, and the transcript.
fn run(chunks: &[&[u8]], usage_chunk: UsageChunkPolicy) -> (String, String, Transcript, Usage) {
    let mut tap = Tap::new(Fold::new(DialectName::OpenaiChat), ExpectedBody::Answer, usage_chunk);
    let mut passed = Vec::new();
    let mut before = None;
    for chunk in chunks {
        if before.is_some() {
            passed.extend_from_slice(chunk);
            continue;
        }
        let fed = tap.feed(Bytes::copy_from_slice(chunk));
        while let Some(bytes) = tap.next_chunk() {
            passed.extend_from_slice(&bytes);
        }
        if fed == FeedStatus::End {
            before = Some(passed.clone());
            tap.release();
            while let Some(bytes) = tap.next_chunk() {
                passed.extend_from_slice(&bytes);
            }
        }
    }
    if before.is_none() {
        tap.finish();
    }
    let before = before.unwrap_or_else(|| passed.clone());
    tap.release();
    while let Some(bytes) = tap.next_chunk() {
        passed.extend_from_slice(&bytes);
    }
    let (transcript, usage) = tap.take_transcript();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(before), text(passed), transcript, usage)
}

#[test]
fn bytes_are_forwarded_and_the_end_is_held_back() {
    let stream = [CONTENT, FINISH, USAGE, DONE].concat();
    let (before, all, transcript, usage) = run(&[stream.as_bytes()], UsageChunkPolicy::Forward);
    assert_eq!(before, [CONTENT, FINISH, USAGE].concat());
    assert_eq!(all, stream);
    assert_eq!(transcript.text, "hé");
    assert_eq!(transcript.finish_reason.as_deref(), Some("stop"));
    assert_eq!(usage.total_tokens, Some(4));
}

#[test]
fn a_usage_chunk_that_the_client_did_not_ask_for_is_removed() {
    let stream = [": hi\n\n", CONTENT, FINISH, USAGE, DONE].concat();
    let expected = [": hi\n\n", CONTENT, FINISH, DONE].concat();
    for size in 1..stream.len() {
        let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        let (before, all, _, usage) = run(&chunks, UsageChunkPolicy::Remove);
        assert_eq!(all, expected, "in chunks of {size}");
        assert!(!before.contains("[DONE]"), "in chunks of {size}");
        assert_eq!(usage.prompt_tokens, Some(3), "in chunks of {size}");
    }
}

#[test]
fn bytes_may_be_removed_from_uncompressed_answers_alone() {
    let tap = |expected, usage_chunk| Tap::new(Fold::new(DialectName::OpenaiChat), expected, usage_chunk);
    assert!(tap(ExpectedBody::Answer, UsageChunkPolicy::Remove).may_remove_bytes());
    assert!(!tap(ExpectedBody::Answer, UsageChunkPolicy::Forward).may_remove_bytes());
    assert!(!tap(ExpectedBody::Error, UsageChunkPolicy::Remove).may_remove_bytes());
    assert!(
        !tap(ExpectedBody::Answer, UsageChunkPolicy::Remove).with_encoding(ContentEncoding::Gzip).may_remove_bytes()
    );
}

/// A chunk may end between the carriage return and the line feed of a line end. The line feed belongs to the event
/// before and is forwarded, or removed, with that event.
#[test]
fn a_line_feed_cut_off_from_its_carriage_return_is_forwarded() {
    let event = "data: nonsense\r\n\r\n";
    let expected = [": hi\r\n\r\n", event, event, DONE].concat();
    // A removed event takes its whole line end along.
    for usage in [USAGE.to_owned(), USAGE.replace('\n', "\r\n")] {
        let stream = [": hi\r\n\r\n", event, &usage, event, DONE].concat();
        for size in 1..stream.len() {
            let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            assert_eq!(run(&chunks, UsageChunkPolicy::Remove).1, expected, "in chunks of {size}");
            assert_eq!(run(&chunks, UsageChunkPolicy::Forward).1, stream, "in chunks of {size}");
        }
    }
}

#[test]
fn the_last_chunk_of_a_document_is_held_back() {
    let document = br#"{"id":"r","choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}"#;
    let (before, all, transcript, _) =
        run(&[&document[..10], &document[10..20], &document[20..]], UsageChunkPolicy::Forward);
    assert_eq!(before.as_bytes(), &document[..20]);
    assert_eq!(all.as_bytes(), document);
    assert_eq!(transcript.text, "x");
}

#[test]
fn an_event_too_long_to_be_usage_is_forwarded_as_it_comes() {
    let long = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "y".repeat(200_000));
    let stream = [CONTENT, &long, USAGE, DONE].concat();
    let chunks: Vec<&[u8]> = stream.as_bytes().chunks(1_000).collect();
    let (_, all, transcript, _) = run(&chunks, UsageChunkPolicy::Remove);
    assert_eq!(all, [CONTENT, &long, DONE].concat());
    assert_eq!(transcript.text.len(), 200_003);
}

#[test]
fn a_document_with_a_long_picture_is_read_without_it() {
    let picture = "iVBORw0KGgo".repeat(1 << 20);
    let document = format!(
        r#"{{"id":"r","choices":[{{"message":{{"images":[{{"url":"data:image/png;base64,{picture}"}}],"content":"here"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":1}}}}"#
    );
    for size in [100_000, document.len()] {
        let chunks: Vec<&[u8]> = document.as_bytes().chunks(size).collect();
        let (_, all, transcript, usage) = run(&chunks, UsageChunkPolicy::Forward);
        assert!(all == document, "in chunks of {size}: the client's bytes differ from the upstream's");
        let text_and_reason = (transcript.text.as_str(), transcript.finish_reason.as_deref());
        assert_eq!(text_and_reason, ("here", Some("stop")), "in chunks of {size}");
        let usage_and_notes = (usage.total_tokens, transcript.notes);
        assert_eq!(usage_and_notes, (Some(4), vec!["document_shortened_to_be_read"]), "in chunks of {size}");
    }
}

/// The contents are unknown, but the response is neither empty nor broken off.
#[test]
fn a_document_that_stays_too_long_has_ended() {
    let document = format!(r#"{{"choices":[{{"message":{{"content":"{}"}}}}]}}"#, "word ".repeat(2 << 20));
    let chunks: Vec<&[u8]> = document.as_bytes().chunks(100_000).collect();
    let (_, all, transcript, _) = run(&chunks, UsageChunkPolicy::Forward);
    assert!(all == document, "the client's bytes differ from the upstream's");
    assert!(transcript.is_ended && transcript.error.is_none());
    assert_eq!(transcript.notes, ["document_too_long_to_read"]);
}

/// An end of any length is held back.
#[test]
fn an_end_with_a_long_picture_is_held_back_and_read() {
    let end = |result: &str| {
        format!(
            r#"{{"type":"response.completed","response":{{"id":"r","status":"completed","output":[{{"type":"image_generation_call","result":"{result}"}}],"usage":{{"input_tokens":3,"output_tokens":1}}}}}}"#
        )
    };
    let (picture, words) = ("iVBORw0KGgo".repeat(1 << 19), "not a picture ".repeat(1 << 19));
    for (result, total, note) in
        [(&picture, Some(4), "event_shortened_to_be_read"), (&words, None, "event_too_long_to_read")]
    {
        let stream = format!("event: response.completed\ndata: {}\n\n", end(result));
        for size in [1 << 16, stream.len()] {
            let mut tap =
                Tap::new(Fold::new(DialectName::OpenaiResponses), ExpectedBody::Answer, UsageChunkPolicy::Forward);
            let mut fed = Vec::new();
            for chunk in stream.as_bytes().chunks(size) {
                fed.push(tap.feed(Bytes::copy_from_slice(chunk)));
            }
            assert_eq!(fed.pop(), Some(FeedStatus::End), "{note}, in pieces of {size}");
            assert!(!tap.held_back.is_empty() && !fed.contains(&FeedStatus::End), "{note}, in pieces of {size}");
            let (transcript, usage) = tap.take_transcript();
            let reason_and_usage = (transcript.finish_reason.as_deref(), usage.total_tokens);
            assert_eq!(reason_and_usage, (Some("completed"), total), "{note}, in pieces of {size}");
            assert_eq!(transcript.notes, [note], "in pieces of {size}");
        }
    }
}

proptest! {
    #[test]
    fn an_answer_is_forwarded_and_folded_the_same_however_it_is_cut(
        events in proptest::collection::vec(prop_oneof![
            Just(CONTENT), Just(FINISH), Just(USAGE), Just(": c\n\n"), Just("data: {\"choices\":[]}\n\n"),
            Just("data: nonsense\r\n\r\n"), Just("event: x\ndata: {}\ndata: {}\n\n"),
        ], 0..8),
        end in prop_oneof![Just(DONE), Just(""), Just("data: [DONE]")],
        sizes in proptest::collection::vec(1..90_usize, 1..200),
        taken_out in any::<bool>(),
    ) {
        let stream = events.concat() + end;
        let usage_chunk = if taken_out { UsageChunkPolicy::Remove } else { UsageChunkPolicy::Forward };
        let expected = if taken_out { stream.replace(USAGE, "") } else { stream.clone() };
        let mut chunks = Vec::new();
        let mut rest = stream.as_bytes();
        for size in sizes.iter().cycle() {
            if rest.is_empty() { break; }
            let (chunk, next) = rest.split_at((*size).min(rest.len()));
            chunks.push(chunk);
            rest = next;
        }
        let (before, all, transcript, usage) = run(&chunks, usage_chunk);
        let (_, _, whole, whole_usage) = run(&[stream.as_bytes()], usage_chunk);
        prop_assert_eq!(all, expected);
        prop_assert!(!before.contains("[DONE]"));
        prop_assert_eq!(transcript.text, whole.text);
        prop_assert_eq!(transcript.finish_reason, whole.finish_reason);
        prop_assert_eq!(usage.total_tokens, whole_usage.total_tokens);
    }
}
