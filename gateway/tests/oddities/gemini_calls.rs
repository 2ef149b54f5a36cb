//! Function calls of Gemini whose arguments come in pieces (`partialArgs`).

use shared::event::DialectName::GoogleGemini;

use super::google_gemini::{FIRST, LAST, expected_text, parts};
use super::{ExpectedTranscript, TapOutput, compare, events, run_tap};

/// An id, a name and the arguments of a call.
type Call = (&'static str, &'static str, &'static str);

/// A stream in which each call, given without its member's name, has a chunk of its own.
fn stream(calls: &[&str]) -> String {
    let calls: Vec<String> = calls.iter().map(|call| parts(&format!(r#"{{"functionCall":{call}}}"#))).collect();
    let chunks: Vec<&str> = calls.iter().map(String::as_str).chain([FIRST, LAST]).collect();
    events(&chunks)
}

fn run(body: &str) -> TapOutput {
    run_tap(GoogleGemini, &[body.as_bytes()])
}

/// Checks for several cuts that these calls are recorded, with these notes.
fn check_calls(calls: &[&str], expected: &'static [Call], notes: &'static [&'static str]) {
    let body = stream(calls);
    let expected = ExpectedTranscript { calls: expected, notes, ..expected_text("hi") };
    for size in [1, 7, body.len()] {
        let output = run_tap(GoogleGemini, &body.as_bytes().chunks(size).collect::<Vec<_>>());
        assert!(output.forwarded == body.as_bytes(), "in chunks of {size}: {body}");
        compare(&expected, &output.transcript, &output.usage, &format!("in chunks of {size}: {body}"));
    }
}

#[test]
fn pieces_make_an_object() {
    // As Google sends them: the name, the pieces, and an empty call at the end.
    check_calls(
        &[
            r#"{"name":"f","willContinue":true}"#,
            r#"{"partialArgs":[{"jsonPath":"$.x","stringValue":"Bos","willContinue":true}],"willContinue":true}"#,
            r#"{"partialArgs":[{"jsonPath":"$.x","stringValue":"ton \"é\"\n","willContinue":true}],"willContinue":true}"#,
            r#"{"partialArgs":[{"jsonPath":"$.x","stringValue":""}],"willContinue":true}"#,
            r#"{"partialArgs":[{"jsonPath":"$.n","numberValue":50.0},{"jsonPath":"$.b","boolValue":false}],"willContinue":true}"#,
            "{}",
        ],
        &[("", "f", r#"{"x":"Boston \"é\"\n","n":50.0,"b":false}"#)],
        &[],
    );
    // The last piece may end the call.
    check_calls(
        &[
            r#"{"id":"c","name":"f","willContinue":true}"#,
            r#"{"partialArgs":[{"jsonPath":"$.list[0].a","stringValue":"1"},{"jsonPath":"$.list[0]['b c']","nullValue":null}],"willContinue":true}"#,
            r#"{"partialArgs":[{"jsonPath":"$.list[1].a","stringValue":"2"},{"jsonPath":"$.end","nullValue":"NULL_VALUE"}]}"#,
        ],
        &[("c", "f", r#"{"list":[{"a":"1","b c":null},{"a":"2"}],"end":null}"#)],
        &[],
    );
    // All in one part, with the members of other types as null; a piece without a list.
    let all = r#"{"name":"f","args":{},"partialArgs":[{"jsonPath":"$.x","stringValue":"a","numberValue":null,"boolValue":null}]}"#;
    check_calls(&[all], &[("", "f", r#"{"x":"a"}"#)], &[]);
    let single = r#"{"name":"f","partialArgs":{"jsonPath":"x","boolValue":true}}"#;
    check_calls(&[single], &[("", "f", r#"{"x":true}"#)], &[]);
    // A call without arguments, and one that waits for complete ones.
    check_calls(&[r#"{"name":"f","willContinue":true}"#, "{}"], &[("", "f", "{}")], &[]);
    check_calls(&[r#"{"name":"f"}"#], &[("", "f", "")], &[]);
    check_calls(&[r#"{"name":"f","willContinue":true}"#, r#"{"args":{"x":1}}"#, "{}"], &[("", "f", r#"{"x":1}"#)], &[]);
}

#[test]
fn halves_of_a_surrogate_pair_are_joined_over_pieces() {
    let piece = |value: &str| {
        format!(
            r#"{{"name":"f","partialArgs":[{{"jsonPath":"$.x","stringValue":"{value}","willContinue":true}}],"willContinue":true}}"#
        )
    };
    check_calls(&[&piece(r"a\ud83d"), &piece(r"\ude00b")], &[("", "f", r#"{"x":"a\ud83d\ude00b"}"#)], &[]);
    check_calls(&[&piece(r"a\ud83d"), &piece("b")], &[("", "f", r#"{"x":"a\ufffdb"}"#)], &["text_mended"]);
}

#[test]
fn calls_in_pieces_are_told_apart() {
    // One after the other, to the same function; an empty part opens nothing.
    check_calls(
        &[
            "{}",
            r#"{"name":"f","willContinue":true}"#,
            r#"{"partialArgs":[{"jsonPath":"$.x","stringValue":"1"}],"willContinue":true}"#,
            "{}",
            "{}",
            r#"{"name":"f","willContinue":true}"#,
            r#"{"willContinue":true}"#,
            r#"{"partialArgs":[{"jsonPath":"$.x","stringValue":"2"}]}"#,
            r#"{"name":"g","args":{"y":3}}"#,
        ],
        &[("", "f", r#"{"x":"1"}"#), ("", "f", r#"{"x":"2"}"#), ("", "g", r#"{"y":3}"#)],
        &[],
    );
    // Side by side, by their ids; the name may be repeated.
    check_calls(
        &[
            r#"{"id":"1","name":"f","willContinue":true}"#,
            r#"{"id":"2","name":"f","willContinue":true}"#,
            r#"{"id":"1","partialArgs":[{"jsonPath":"$.x","stringValue":"a"}],"willContinue":true}"#,
            r#"{"id":"2","name":"f","partialArgs":[{"jsonPath":"$.x","stringValue":"b"}],"willContinue":true}"#,
            r#"{"id":"1","name":"f","partialArgs":[{"jsonPath":"$.x","stringValue":"c"}]}"#,
            r#"{"id":"2","partialArgs":[{"jsonPath":"$.x","stringValue":"d"}]}"#,
            r#"{"id":"2","name":"g","args":{}}"#,
        ],
        &[("1", "f", r#"{"x":"ac"}"#), ("2", "f", r#"{"x":"bd"}"#), ("2", "g", "{}")],
        &[],
    );
    // Without `willContinue`, each piece with the id and the name, or without both.
    let piece =
        |call: &str, value: &str| format!(r#"{{{call}"partialArgs":[{{"jsonPath":"$.x","stringValue":"{value}"}}]}}"#);
    let named = r#""id":"1","name":"f","#;
    check_calls(&[&piece(named, "a"), &piece(named, "b")], &[("1", "f", r#"{"x":"ab"}"#)], &[]);
    check_calls(&[&piece(r#""name":"f","#, "a"), &piece("", "b")], &[("", "f", r#"{"x":"ab"}"#)], &[]);
    // Another name opens another call, although the open one said that it continues.
    check_calls(
        &[r#"{"name":"f","willContinue":true}"#, &piece(r#""name":"g","#, "a")],
        &[("", "f", "{}"), ("", "g", r#"{"x":"a"}"#)],
        &[],
    );
    // Another choice has calls of its own.
    let other =
        r#"{"candidates":[{"index":1,"content":{"parts":[{"functionCall":{"name":"g","willContinue":true}}]}}]}"#;
    let more = r#"{"candidates":[{"index":1,"content":{"parts":[{"functionCall":{"partialArgs":[{"jsonPath":"$.y","numberValue":1}]}}]}}]}"#;
    let open = parts(r#"{"functionCall":{"name":"f","willContinue":true}}"#);
    let first = parts(r#"{"functionCall":{"partialArgs":[{"jsonPath":"$.x","numberValue":2}]}}"#);
    let transcript = run(&events(&[&open, other, &first, more, LAST])).transcript;
    assert_eq!(transcript.tool_calls[0].arguments, r#"{"x":2}"#);
    assert_eq!(transcript.other_choices[0].1.tool_calls[0].arguments, r#"{"y":1}"#);
}

#[test]
fn pieces_that_make_no_object_are_recorded_as_a_list() {
    const NOTE: &[&str] = &["arguments_in_pieces"];
    let piece = r#"{"jsonPath":"$.x","stringValue":"a"}"#;
    for (misfit, recorded) in [
        (r#"{"jsonPath":"$..x","numberValue":1}"#, None),
        (r#"{"jsonPath":"$.x[0]","numberValue":1}"#, None),
        (r#"{"jsonPath":"$['x']","stringValue":"b"}"#, None),
        (r#"{"jsonPath":"$.x","boolValue":true}"#, None),
        (r#"{"jsonPath":"$.list[1]","nullValue":null}"#, None),
        (r#"{"jsonPath":"$.y","structValue": {"z":1}}"#, Some(r#"{"jsonPath":"$.y","structValue":{"z":1}}"#)),
        (r#"{"jsonPath":"$.y","stringValue":"b","numberValue":1}"#, None),
        (r#"{"jsonPath":"$.y","numberValue":"NaN"}"#, None),
        (r#"{"stringValue":"b"}"#, None),
        (r#"{"jsonPath":7,"stringValue":"b"}"#, None),
        ("7", None),
    ] {
        let call = format!(r#"{{"name":"f","partialArgs":[{piece},{misfit}]}}"#);
        let transcript = run(&stream(&[&call])).transcript;
        assert_eq!(transcript.tool_calls[0].arguments, format!("[{piece},{}]", recorded.unwrap_or(misfit)));
        assert_eq!(transcript.notes, NOTE, "{misfit}");
    }
    // The pieces of one text are one; the value is told again.
    check_calls(
        &[
            r#"{"name":"f","partialArgs":[{"jsonPath":"$","stringValue":"a"},{"jsonPath":"$.n","numberValue":1}],"willContinue":true}"#,
            r#"{"partialArgs":[{"jsonPath":"$","stringValue":"b"},{"jsonPath":"$.n","numberValue":1}]}"#,
        ],
        &[("", "f", r#"[{"jsonPath":"$","stringValue":"ab"},{"jsonPath":"$.n","numberValue":1}]"#)],
        NOTE,
    );
}

#[test]
fn arguments_that_break_off_are_recorded_as_far_as_they_came() {
    let open = parts(r#"{"functionCall":{"name":"f","willContinue":true}}"#);
    let piece = parts(
        r#"{"functionCall":{"partialArgs":[{"jsonPath":"$.a.b","stringValue":"half","willContinue":true}],"willContinue":true}}"#,
    );
    for (chunks, arguments) in [(vec![open.as_str()], ""), (vec![&open, &piece], r#"{"a":{"b":"half"}}"#)] {
        let transcript = run(&events(&chunks)).transcript;
        assert!(!transcript.is_ended);
        assert_eq!(transcript.tool_calls[0].arguments, arguments);
    }
    // A whole answer may be a list of chunks.
    let list = format!("[{open},{piece},{LAST}]");
    assert_eq!(run(&list).transcript.tool_calls[0].arguments, r#"{"a":{"b":"half"}}"#);
}

#[test]
fn long_arguments_in_pieces_are_bounded() {
    let piece = |path: &str, value: &str| {
        let call = format!(
            r#"{{"functionCall":{{"name":"f","partialArgs":[{{"jsonPath":"{path}","stringValue":"{value}"}}],"willContinue":true}}}}"#
        );
        events(&[&parts(&call)])
    };
    // A text in pieces of a token: the events are longer than the record may be.
    let body = piece("$.x", "abcd").repeat(1 << 17) + &events(&[LAST]);
    assert!(body.len() > 16 << 20);
    let mut transcript = run(&body).transcript;
    assert_eq!(transcript.tool_calls[0].arguments.len(), (4 << 17) + r#"{"x":""}"#.len());
    assert!(!transcript.message(shared::id::MessageId(uuid::Uuid::nil())).truncated);
    // More than the record holds: no later piece is added, not even a short one.
    let megabyte = "so on and ".repeat(100_000);
    let body = piece("$.x", &megabyte).repeat(18) + &piece("$.y", "b") + &events(&[LAST]);
    let mut transcript = run(&body).transcript;
    let arguments = transcript.tool_calls[0].arguments.clone();
    assert_eq!(arguments.len(), 16_000_000 + r#"{"x":""}"#.len());
    assert!(serde_json::from_str::<serde_json::Value>(&arguments).is_ok());
    assert!(transcript.message(shared::id::MessageId(uuid::Uuid::nil())).truncated);
    // Many values.
    let body: String = (0..200_000).map(|number| piece(&format!("$.x[{number}]"), "")).collect();
    let mut transcript = run(&body).transcript;
    assert!(transcript.tool_calls[0].arguments.starts_with(r#"{"x":["","","#));
    assert!(transcript.message(shared::id::MessageId(uuid::Uuid::nil())).truncated);
    // An element that would make a list of four thousand million.
    let output = run(&(piece("$.x[4294967295]", "a") + &events(&[LAST])));
    assert_eq!(output.transcript.tool_calls[0].arguments, r#"[{"jsonPath":"$.x[4294967295]","stringValue":"a"}]"#);
}
