//! Large answers: what providers send is recorded whole, and what could not be parsed for its size is marked as truncated.

use std::fmt::Write;

use shared::event::DialectName::{self, AnthropicMessages, OpenaiChat, OpenaiResponses};
use shared::id::MessageId;

use super::{TapOutput, events, run_tap};

/// Runs a body in pieces of 60 KiB, as they come from the network.
fn run(dialect: DialectName, body: &str) -> TapOutput {
    let output = run_tap(dialect, &body.as_bytes().chunks(60 << 10).collect::<Vec<_>>());
    assert!(output.forwarded == body.as_bytes(), "the forwarded bytes differ from the body");
    output
}

fn is_truncated(output: &mut TapOutput) -> bool {
    output.transcript.message(MessageId(uuid::Uuid::nil())).truncated
}

/// Words of about this many bytes, with an escape in each.
fn words(bytes: usize) -> String {
    "so it goes\\n".repeat(bytes / 12)
}

#[test]
fn a_large_document_of_text_is_recorded_whole() {
    let text = words(9 << 20);
    for (dialect, document) in [
        (OpenaiChat, format!(r#"{{"choices":[{{"message":{{"content":"{text}"}},"finish_reason":"stop"}}]}}"#)),
        (
            AnthropicMessages,
            format!(r#"{{"type":"message","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn"}}"#),
        ),
        (
            OpenaiResponses,
            format!(
                r#"{{"status":"completed","output":[{{"type":"message","content":[{{"type":"output_text","text":"{text}"}}]}}]}}"#
            ),
        ),
    ] {
        let mut output = run(dialect, &document);
        assert_eq!(output.transcript.text.len(), text.replace("\\n", "\n").len(), "{dialect:?}");
        assert!(!is_truncated(&mut output), "{dialect:?}");
    }
}

#[test]
fn large_tool_arguments_are_recorded_whole() {
    let arguments = format!("{{\\\"text\\\":\\\"{}\\\"}}", "so it goes ".repeat((9 << 19) / 11));
    let piece = |arguments: &str| {
        format!(
            r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":0,"id":"a","function":{{"name":"write","arguments":"{arguments}"}}}}]}}}}]}}"#
        )
    };
    let mut in_pieces = events(&[&piece("{\\\"text\\\":\\\"")]);
    for chunk in "so it goes ".repeat((9 << 19) / 11).as_bytes().chunks(1_000) {
        write!(in_pieces, "data: {}\n\n", piece(std::str::from_utf8(chunk).unwrap())).unwrap();
    }
    in_pieces += &events(&[&piece("\\\"}"), "[DONE]"]);
    for body in [events(&[&piece(&arguments), "[DONE]"]), in_pieces] {
        let mut output = run(OpenaiChat, &body);
        let recorded = &output.transcript.tool_calls[0].arguments;
        assert!(recorded.len() > (9 << 19) - 100 && serde_json::from_str::<serde_json::Value>(recorded).is_ok());
        assert!(!is_truncated(&mut output));
    }
}

#[test]
fn what_is_too_large_to_read_is_truncated() {
    let text = words(26 << 20);
    let document = format!(r#"{{"choices":[{{"message":{{"content":"{text}"}},"finish_reason":"stop"}}]}}"#);
    let mut output = run(OpenaiChat, &document);
    assert_eq!(output.transcript.notes, ["document_too_long_to_read"]);
    assert!(output.transcript.is_ended && !output.transcript.is_empty() && is_truncated(&mut output));
    let event = format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":"stop"}}]}}"#);
    let mut output = run(OpenaiChat, &events(&[&event, "[DONE]"]));
    assert_eq!(output.transcript.notes, ["event_too_long_to_read"]);
    assert!(is_truncated(&mut output));
    // A picture is left out, but base64 in a text is missed.
    let base64 = "iVBORw0KGgo".repeat(3 << 20);
    for (content, images, is_missed) in [("here", base64.as_str(), false), (&base64, "", true)] {
        let document = format!(
            r#"{{"choices":[{{"message":{{"content":"{content}","images":["{images}"]}},"finish_reason":"stop"}}]}}"#
        );
        let mut output = run(OpenaiChat, &document);
        assert_eq!(output.transcript.notes, ["document_shortened_to_be_read"]);
        assert_eq!(is_truncated(&mut output), is_missed);
    }
    // Text beyond what is recorded.
    let event = format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{}"}}}}]}}"#, words(10 << 20));
    let mut output = run(OpenaiChat, &events(&[&event, &event, "[DONE]"]));
    assert_eq!(output.transcript.text.len(), 16 << 20);
    assert!(is_truncated(&mut output));
}

#[test]
fn answers_without_content_are_told_apart_by_their_finish_reason() {
    let reason = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#;
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0}}"#;
    for (body, is_empty) in [
        (events(&["[DONE]"]), true),
        (events(&[usage, "[DONE]"]), true),
        (events(&[r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#, "[DONE]"]), true),
        (": comment\n\n".to_owned(), true),
        ("\n".to_owned(), true),
        ("{}".to_owned(), true),
        (r#"{"choices":[]}"#.to_owned(), true),
        (events(&[reason, "[DONE]"]), false),
        (events(&[reason]), false),
        (r#"{"choices":[{"message":{"content":null},"finish_reason":"length"}]}"#.to_owned(), false),
    ] {
        assert_eq!(run_tap(OpenaiChat, &[body.as_bytes()]).transcript.is_empty(), is_empty, "{body}");
    }
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    assert!(run_tap(AnthropicMessages, &[stop.as_bytes()]).transcript.is_empty());
}

/// Reasoning of a response counts only without a summary, and only its first mebibyte is kept.
#[test]
fn reasoning_that_is_cut_is_marked() {
    let reasoning = |bytes: usize| {
        let delta = words(bytes / 4);
        let delta = format!(
            r#"{{"type":"response.reasoning_text.delta","output_index":0,"content_index":0,"delta":"{delta}"}}"#
        );
        events(&[delta.as_str(); 4])
    };
    let summary = r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"summary_index":0,"delta":"s"}"#;
    let end = r#"{"type":"response.completed","response":{"id":"r","status":"completed"}}"#;
    for (body, expected) in [
        (reasoning(900 << 10) + &events(&[end]), false),
        (reasoning(2 << 20) + &events(&[end]), true),
        (reasoning(2 << 20) + &events(&[summary, end]), false),
    ] {
        assert_eq!(is_truncated(&mut run(OpenaiResponses, &body)), expected, "{} bytes", body.len());
    }
}
