//! Deviations in the Responses dialect.

use shared::event::DialectName::OpenaiResponses;

use super::{ExpectedTranscript, check, check_end_is_held_back, compare, run_tap};

/// An event stream of these events, each named after its type.
fn stream(events: &[&str]) -> String {
    let kind = |event: &str| event.split('"').nth(3).unwrap_or_default().to_owned();
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", kind(event))).collect()
}

const CREATED: &str =
    r#"{"type":"response.created","response":{"id":"r","model":"m","status":"in_progress","output":[],"usage":null}}"#;
const HI: &str = r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"hi"}"#;
const COMPLETED: &str = r#"{"type":"response.completed","response":{"id":"r","model":"m","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}],"usage":{"input_tokens":3,"output_tokens":1,"total_tokens":4}}}"#;
const EMPTY: &str = r#"{"type":"response.completed","response":{"id":"r","status":"completed","output":[],"usage":{"input_tokens":3,"output_tokens":1}}}"#;

fn expected_text(text: &'static str) -> ExpectedTranscript {
    ExpectedTranscript {
        text,
        finish_reason: Some("completed"),
        id: Some("r"),
        model: Some("m"),
        usage: Some((3, 1)),
        ..ExpectedTranscript::default()
    }
}

fn without_output(text: &'static str) -> ExpectedTranscript {
    ExpectedTranscript { notes: &["final_output_empty"], ..expected_text(text) }
}

/// The expected transcript of a response without an end, or with an error as its end.
fn expected_error(text: &'static str) -> ExpectedTranscript {
    ExpectedTranscript { finish_reason: None, usage: None, ..expected_text(text) }
}

#[test]
fn text_is_read_wherever_it_comes() {
    check(OpenaiResponses, &stream(&[CREATED, HI, COMPLETED]), &expected_text("hi"));
    // Without the final output, without deltas, and without event names.
    check(OpenaiResponses, &stream(&[CREATED, HI, EMPTY]), &without_output("hi"));
    let done = r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":[{"type":"output_text","text":"hi"}]}}"#;
    check(OpenaiResponses, &stream(&[CREATED, done, EMPTY]), &without_output("hi"));
    check(OpenaiResponses, &stream(&[CREATED, HI, done, EMPTY]), &without_output("hi"));
    check(OpenaiResponses, &super::events(&[CREATED, HI, COMPLETED]), &expected_text("hi"));
    let output = run_tap(OpenaiResponses, &[stream(&[CREATED, COMPLETED]).as_bytes()]);
    compare(&expected_text("hi"), &output.transcript, &output.usage, "the final output alone");
}

/// A router names the model that has answered in its last event.
#[test]
fn the_model_of_the_last_event_is_recorded() {
    let completed = COMPLETED.replace(r#""model":"m""#, r#""model":"served""#);
    let expected = ExpectedTranscript { model: Some("served"), ..expected_text("hi") };
    check(OpenaiResponses, &stream(&[CREATED, HI, &completed]), &expected);
    check(OpenaiResponses, &stream(&[CREATED, HI, EMPTY]), &without_output("hi"));
}

#[test]
fn reasoning_and_refusals_are_read() {
    let summary = r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"summary_index":0,"delta":"hm"}"#;
    let text = r#"{"type":"response.reasoning_text.delta","output_index":0,"content_index":0,"delta":"long"}"#;
    let hi = r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"hi"}"#;
    check(
        OpenaiResponses,
        &stream(&[CREATED, text, summary, hi, EMPTY]),
        &ExpectedTranscript { reasoning: "hm", ..without_output("hi") },
    );
    check(
        OpenaiResponses,
        &stream(&[CREATED, text, hi, EMPTY]),
        &ExpectedTranscript { reasoning: "long", ..without_output("hi") },
    );
    let refusal = r#"{"type":"response.refusal.delta","output_index":0,"content_index":0,"delta":"no"}"#;
    check(
        OpenaiResponses,
        &stream(&[CREATED, refusal, EMPTY]),
        &ExpectedTranscript { refusal: "no", ..without_output("") },
    );
}

#[test]
fn client_tools_and_server_tools_are_told_apart() {
    let added = r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","id":"fc","call_id":"a","name":"f","arguments":""}}"#;
    let delta = r#"{"type":"response.function_call_arguments.delta","output_index":0,"delta":"{}"}"#;
    let done = r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"function_call","id":"fc","call_id":"a","name":"f","arguments":"{}"}}"#;
    let called = ExpectedTranscript { calls: &[("a", "f", "{}")], ..without_output("") };
    check(OpenaiResponses, &stream(&[CREATED, added, delta, done, EMPTY]), &called);
    check(OpenaiResponses, &stream(&[CREATED, done, EMPTY]), &called);
    check(OpenaiResponses, &stream(&[CREATED, added, delta, EMPTY]), &called);

    let custom = r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"custom_tool_call","call_id":"a","name":"sql","input":"SELECT 1"}}"#;
    check(
        OpenaiResponses,
        &stream(&[CREATED, custom, EMPTY]),
        &ExpectedTranscript { calls: &[("a", "sql", "SELECT 1")], ..without_output("") },
    );

    let search = r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"web_search_call","id":"ws","status":"in_progress"}}"#;
    let searching = r#"{"type":"response.web_search_call.searching","output_index":0,"item_id":"ws"}"#;
    let searched = r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"web_search_call","id":"ws","status":"completed"}}"#;
    check(
        OpenaiResponses,
        &stream(&[CREATED, search, searching, searched, EMPTY]),
        &ExpectedTranscript { server_tool_calls: 1, ..without_output("") },
    );
}

#[test]
fn ends_of_all_kinds_are_recognized() {
    let incomplete = r#"{"type":"response.incomplete","response":{"id":"r","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[],"usage":{"input_tokens":3,"output_tokens":1}}}"#;
    check(
        OpenaiResponses,
        &stream(&[CREATED, HI, incomplete]),
        &ExpectedTranscript { finish_reason: Some("max_output_tokens"), ..without_output("hi") },
    );
    let failed = r#"{"type":"response.failed","response":{"id":"r","status":"failed","error":{"code":"server_error","message":"m"},"output":[]}}"#;
    let expected = ExpectedTranscript {
        finish_reason: Some("failed"),
        usage: None,
        error: Some((None, Some("server_error"), "m")),
        ..without_output("hi")
    };
    check(OpenaiResponses, &stream(&[CREATED, HI, failed]), &expected);
    let error = ExpectedTranscript {
        finish_reason: None,
        usage: None,
        error: Some((None, Some("c"), "m")),
        ..expected_text("hi")
    };
    check(
        OpenaiResponses,
        &stream(&[CREATED, HI, r#"{"type":"error","code":"c","message":"m","param":null}"#]),
        &ExpectedTranscript { error: Some((Some("error"), Some("c"), "m")), ..error.clone() },
    );
    check(OpenaiResponses, &stream(&[CREATED, HI, r#"{"type":"error","error":{"code":"c","message":"m"}}"#]), &error);
    check(
        OpenaiResponses,
        &(stream(&[CREATED, HI]) + "event: error\ndata: oh\n\n"),
        &ExpectedTranscript { error: Some((None, None, "oh")), ..error.clone() },
    );
    // Perplexity sends the error in place of the response, OpenRouter in an event of its own.
    let beside = r#"{"type":"response.failed","sequence_number":9,"error":{"code":"c","message":"m"}}"#;
    let failed =
        |error| ExpectedTranscript { finish_reason: Some("failed"), error: Some(error), ..expected_error("hi") };
    check(OpenaiResponses, &stream(&[CREATED, HI, beside]), &failed((None, Some("c"), "m")));
    check_end_is_held_back(OpenaiResponses, &stream(&[CREATED, HI, beside]), "response.failed");
    let bare = r#"{"type":"response.failed"}"#;
    check(OpenaiResponses, &stream(&[CREATED, HI, bare]), &failed((None, None, "the response failed")));
    let within = r#"{"type":"response.failed","response":{"status":"failed"},"error":{"message":"m"}}"#;
    let body = stream(&[CREATED, HI, within]);
    assert_eq!(run_tap(OpenaiResponses, &[body.as_bytes()]).transcript.error.unwrap().message, "m");
    let named = r#"{"type":"response.error","error":{"code":"c","message":"m"}}"#;
    check(OpenaiResponses, &stream(&[CREATED, HI, named]), &error);
    check_end_is_held_back(OpenaiResponses, &stream(&[CREATED, HI, named]), "response.error");
    check(OpenaiResponses, &(stream(&[CREATED, HI, COMPLETED]) + "data: [DONE]\n\n"), &expected_text("hi"));
    check(
        OpenaiResponses,
        &(stream(&[CREATED, HI]) + "data: [DONE]\n\n"),
        &ExpectedTranscript { error: None, notes: &["done_sent"], ..error.clone() },
    );
    // A newer id at the end replaces the first id.
    let renamed = COMPLETED.replace("\"id\":\"r\"", "\"id\":\"r2\"");
    check(
        OpenaiResponses,
        &stream(&[CREATED, HI, &renamed]),
        &ExpectedTranscript { id: Some("r2"), ..expected_text("hi") },
    );
    for end in ["response.completed", "response.incomplete", "response.failed"] {
        let event = COMPLETED.replace("response.completed", end);
        check_end_is_held_back(OpenaiResponses, &stream(&[CREATED, HI, &event]), end);
    }
    check_end_is_held_back(
        OpenaiResponses,
        &stream(&[CREATED, HI, r#"{"type":"error","message":"m"}"#]),
        "event: error",
    );
}

#[test]
fn unknown_events_are_noted() {
    let odd = r#"{"type":"something.new","x":1}"#;
    check(
        OpenaiResponses,
        &stream(&[CREATED, odd, HI, COMPLETED]),
        &ExpectedTranscript { notes: &["unknown_event"], ..expected_text("hi") },
    );
    let newer = r#"{"type":"response.something.new","x":1}"#;
    check(OpenaiResponses, &stream(&[CREATED, newer, HI, COMPLETED]), &expected_text("hi"));
    let body = stream(&[CREATED]) + "data: nonsense\n\n" + &stream(&[HI, COMPLETED]);
    check(OpenaiResponses, &body, &ExpectedTranscript { notes: &["unreadable_event"], ..expected_text("hi") });
}

#[test]
fn the_last_of_repeated_members_is_read() {
    let twice = |expected: ExpectedTranscript| ExpectedTranscript { notes: &["repeated_member"], ..expected };
    let hi = HI.replace("\"delta\"", "\"delta\":null,\"delta\"");
    check(OpenaiResponses, &stream(&[CREATED, &hi, COMPLETED]), &twice(expected_text("hi")));
    for (once, repeated) in [
        (r#""text":"hi""#, r#""text":"ho","text":"hi""#),
        (r#""status":"completed""#, r#""status":null,"status":"completed""#),
        (r#"{"type":"message","#, r#"{"type":"message","type":"message","#),
    ] {
        let completed = COMPLETED.replace(once, repeated);
        check(OpenaiResponses, &stream(&[CREATED, HI, &completed]), &twice(expected_text("hi")));
        let document: serde_json::Value = serde_json::from_str(COMPLETED).unwrap();
        let document = document["response"].to_string().replace(once, repeated);
        let output = run_tap(OpenaiResponses, &[document.as_bytes()]);
        compare(&twice(expected_text("hi")), &output.transcript, &output.usage, &document);
    }
}

#[test]
fn answers_that_are_one_document_are_read() {
    let check = |body: &str, expected: &ExpectedTranscript| {
        let output = run_tap(OpenaiResponses, &[body.as_bytes()]);
        compare(expected, &output.transcript, &output.usage, body);
    };
    let body = r#"{"id":"r","object":"response","model":"m","status":"completed","error":null,"output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]},{"type":"message","content":[{"type":"output_text","text":"h"},{"type":"output_text","text":"i"}]},{"type":"function_call","call_id":"a","name":"f","arguments":{"x": 1}},{"type":"mcp_call"}],"usage":{"input_tokens":3,"output_tokens":1}}"#;
    check(
        body,
        &ExpectedTranscript {
            reasoning: "hm",
            calls: &[("a", "f", "{\"x\":1}")],
            server_tool_calls: 1,
            ..expected_text("hi")
        },
    );
    let queued = r#"{"id":"r","model":"m","status":"queued","output":[]}"#;
    check(
        queued,
        &ExpectedTranscript {
            finish_reason: Some("queued"),
            usage: None,
            notes: &["answered_in_background"],
            ..expected_text("")
        },
    );
    let error = r#"{"error":{"message":"m","type":"t","code":null}}"#;
    check(error, &ExpectedTranscript { error: Some((Some("t"), None, "m")), ..ExpectedTranscript::default() });
    check("[1]", &ExpectedTranscript { notes: &["unreadable_document"], ..ExpectedTranscript::default() });
}

#[test]
fn usage_beside_the_response_is_read() {
    let done = r#"{"type":"response.completed","response":{"id":"r","model":"m","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}]},"usage":{"input_tokens":3,"output_tokens":2}}"#;
    let expected = ExpectedTranscript { usage: Some((3, 2)), finish_reason: Some("completed"), ..expected_text("hi") };
    check(OpenaiResponses, &format!("event: response.completed\ndata: {done}\n\n"), &expected);
}
