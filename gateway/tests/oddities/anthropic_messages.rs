//! Deviations in the Anthropic Messages dialect, as sent by Anthropic and by imitations.

use shared::event::DialectName::AnthropicMessages;

use super::{ExpectedTranscript, check, check_end_is_held_back, compare, events, run_tap};

/// An event stream of these events, each named after its type.
fn stream(events: &[&str]) -> String {
    let kind = |event: &str| event.split('"').nth(3).unwrap_or_default().to_owned();
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", kind(event))).collect()
}

const START: &str = r#"{"type":"message_start","message":{"id":"msg","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":3,"cache_read_input_tokens":20,"output_tokens":1}}}"#;
const BLOCK: &str = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
const HI: &str = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}"#;
const BLOCK_STOP: &str = r#"{"type":"content_block_stop","index":0}"#;
const DELTA: &str =
    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":9}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;

fn expected_text(text: &'static str) -> ExpectedTranscript {
    ExpectedTranscript {
        text,
        finish_reason: Some("end_turn"),
        id: Some("msg"),
        model: Some("m"),
        usage: Some((23, 9)),
        ..ExpectedTranscript::default()
    }
}

/// A response with one block and the given events of the block.
fn block(events: &[&str]) -> String {
    stream(&[&[START], events, &[BLOCK_STOP, DELTA, STOP]].concat())
}

#[test]
fn a_tool_input_in_one_piece_is_kept_without_its_white_space() {
    let document = r#"{"type":"message","content":[{"type":"tool_use","id":"a","name":"f","input":{ "n" : 1234567890123456789012, "x" : [1.0, 1E5 ,
 -0], "a b":"\u00e9 \" : " }}],"stop_reason":"tool_use"}"#;
    let transcript = run_tap(AnthropicMessages, &[document.as_bytes()]).transcript;
    let expected = r#"{"n":1234567890123456789012,"x":[1.0,1E5,-0],"a b":"\u00e9 \" : "}"#;
    assert_eq!(transcript.tool_calls[0].arguments, expected);
}

#[test]
fn the_last_of_repeated_members_is_read() {
    let document = r#"{"type":"message","id":"m","content":[{"type":"text","text":"n","text":"hi"},{"type":"tool_use","id":"a","name":"f","input":{"x":1,"x":2}}],"stop_reason":"max","stop_reason":"end_turn","usage":{"input_tokens":1,"input_tokens":3,"output_tokens":1}}"#;
    let started = format!(r#"{{"type":"message_start","message":{document},"message":{document}}}"#);
    for body in [document.to_owned(), events(&[&started, r#"{"type":"message_stop"}"#])] {
        let output = run_tap(AnthropicMessages, &[body.as_bytes()]);
        let expected = ExpectedTranscript {
            text: "hi",
            calls: &[("a", "f", r#"{"x":2}"#)],
            finish_reason: Some("end_turn"),
            id: Some("m"),
            usage: Some((3, 1)),
            notes: &["repeated_member"],
            ..ExpectedTranscript::default()
        };
        compare(&expected, &output.transcript, &output.usage, &body);
    }
}

#[test]
fn usage_of_the_start_is_overlaid_by_that_of_the_deltas() {
    check(AnthropicMessages, &block(&[BLOCK, r#"{"type":"ping"}"#, HI]), &expected_text("hi"));
    let whole = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":5,"cache_read_input_tokens":null,"cache_creation_input_tokens":2,"output_tokens":9}}"#;
    let body = stream(&[START, BLOCK, HI, DELTA, whole, STOP]);
    check(AnthropicMessages, &body, &ExpectedTranscript { usage: Some((27, 9)), ..expected_text("hi") });
    let raw = run_tap(AnthropicMessages, &[body.as_bytes()]).usage.raw.unwrap();
    assert_eq!(
        raw.get(),
        r#"{"input_tokens":5,"cache_read_input_tokens":20,"output_tokens":9,"cache_creation_input_tokens":2}"#
    );
    let none =
        START.replace(r#""usage":{"input_tokens":3,"cache_read_input_tokens":20,"output_tokens":1}"#, r#""x":1"#);
    let silent = DELTA.replace(r#","usage":{"output_tokens":9}"#, "");
    check(
        AnthropicMessages,
        &stream(&[&none, BLOCK, HI, &silent, STOP]),
        &ExpectedTranscript { usage: None, ..expected_text("hi") },
    );
    let within = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","usage":{"output_tokens":9}}}"#;
    check(AnthropicMessages, &stream(&[START, BLOCK, HI, within, STOP]), &expected_text("hi"));
}

#[test]
fn thinking_is_read_and_redacted_thinking_is_noted() {
    let thinking =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#;
    let delta = r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#;
    let signature = r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s"}}"#;
    check(
        AnthropicMessages,
        &block(&[thinking, delta, signature]),
        &ExpectedTranscript { reasoning: "hm", ..expected_text("") },
    );
    let redacted =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"x"}}"#;
    check(
        AnthropicMessages,
        &block(&[redacted]),
        &ExpectedTranscript { notes: &["redacted_thinking"], ..expected_text("") },
    );
}

#[test]
fn client_tools_and_server_tools_are_told_apart() {
    let open = |kind: &str, input: &str| {
        format!(
            r#"{{"type":"content_block_start","index":0,"content_block":{{"type":"{kind}","id":"a","name":"f","input":{input}}}}}"#
        )
    };
    let delta = |json: &str| {
        format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"input_json_delta","partial_json":"{json}"}}}}"#
        )
    };
    let called = |calls| ExpectedTranscript { calls, ..expected_text("") };
    check(
        AnthropicMessages,
        &block(&[&open("tool_use", "{}"), &delta(""), &delta("{\\\"x\\\""), &delta(":1}")]),
        &called(&[("a", "f", "{\"x\":1}")]),
    );
    // Without deltas: the input with which the block was opened.
    check(AnthropicMessages, &block(&[&open("tool_use", r#"{"x": 1}"#)]), &called(&[("a", "f", "{\"x\":1}")]));
    check(AnthropicMessages, &block(&[&open("tool_use", "{}")]), &called(&[("a", "f", "")]));
    // With deltas and an input: the deltas replace the input.
    let both = block(&[&open("tool_use", r#"{"x":1}"#), &delta("{\\\"x\\\":1}")]);
    let output = run_tap(AnthropicMessages, &[both.as_bytes()]);
    compare(&called(&[("a", "f", "{\"x\":1}")]), &output.transcript, &output.usage, &both);

    let result = r#"{"type":"content_block_start","index":1,"content_block":{"type":"web_search_tool_result","tool_use_id":"a","content":[{"type":"web_search_result","text":"not said"}]}}"#;
    let body = block(&[&open("server_tool_use", "{}"), &delta("{\\\"query\\\":1}"), result]);
    check(AnthropicMessages, &body, &ExpectedTranscript { server_tool_calls: 1, ..expected_text("") });
}

#[test]
fn usage_of_the_last_event_is_read() {
    let without = START.replace(r#","usage":{"input_tokens":3,"cache_read_input_tokens":20,"output_tokens":1}"#, "");
    let silent = DELTA.replace(r#","usage":{"output_tokens":9}"#, "");
    for stop in [
        r#"{"type":"message_stop","usage":{"input_tokens":3,"cache_read_input_tokens":20,"output_tokens":9}}"#,
        r#"{"type":"message_stop","message":{"usage":{"input_tokens":23,"output_tokens":9}}}"#,
        r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":3,"outputTokenCount":9,"cacheReadInputTokenCount":20,"invocationLatency":7}}"#,
    ] {
        check(AnthropicMessages, &stream(&[&without, BLOCK, HI, &silent, stop]), &expected_text("hi"));
    }
    // The counts are those of the events before.
    let repeated =
        r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":3,"outputTokenCount":9}}"#;
    check(AnthropicMessages, &stream(&[START, BLOCK, HI, DELTA, repeated]), &expected_text("hi"));
    let zeros = r#"{"type":"message_stop","usage":{"input_tokens":0,"output_tokens":0,"cache_read_input_tokens":0}}"#;
    check(AnthropicMessages, &stream(&[START, BLOCK, HI, DELTA, zeros]), &expected_text("hi"));
    let beside =
        r#"{"type":"message_start","message":{"id":"msg","model":"m"},"usage":{"input_tokens":23,"output_tokens":1}}"#;
    check(AnthropicMessages, &stream(&[beside, BLOCK, HI, DELTA, STOP]), &expected_text("hi"));
}

#[test]
fn omitted_events_lose_no_content() {
    // No `message_start`, no `content_block_start`, text in `content_block_start`, no `message_stop`.
    let nameless = ExpectedTranscript { id: None, model: None, usage: Some((0, 9)), ..expected_text("hi") };
    check(AnthropicMessages, &stream(&[BLOCK, HI, BLOCK_STOP, DELTA, STOP]), &nameless);
    let full = BLOCK.replace(r#""text":"""#, r#""text":"hi""#);
    check(AnthropicMessages, &stream(&[START, &full, BLOCK_STOP, DELTA, STOP]), &expected_text("hi"));
    check(AnthropicMessages, &stream(&[START, BLOCK, HI, BLOCK_STOP, DELTA]), &expected_text("hi"));
    let delta = |json: &str| {
        format!(
            r#"{{"type":"content_block_delta","index":1,"delta":{{"type":"input_json_delta","partial_json":"{json}"}}}}"#
        )
    };
    let loose = stream(&[START, &delta("{\\\"x\\\":"), &delta("1}"), DELTA, STOP]);
    let expected =
        ExpectedTranscript { calls: &[("", "", "{\"x\":1}")], notes: &["delta_without_block"], ..expected_text("") };
    check(AnthropicMessages, &loose, &expected);
    let start_only = START.replace("\"output_tokens\":1", "\"output_tokens\":9");
    let silent = DELTA.replace(r#","usage":{"output_tokens":9}"#, "");
    check(AnthropicMessages, &stream(&[&start_only, BLOCK, HI, &silent, STOP]), &expected_text("hi"));
}

#[test]
fn blocks_of_every_kind_are_told_apart() {
    let document = |blocks: &str| {
        format!(
            r#"{{"id":"msg","type":"message","model":"m","content":[{blocks}],"stop_reason":"end_turn","usage":{{"input_tokens":23,"output_tokens":9}}}}"#
        )
    };
    let check = |block: &str, expected: &ExpectedTranscript| {
        let document = document(block);
        let output = run_tap(AnthropicMessages, &[document.as_bytes()]);
        compare(expected, &output.transcript, &output.usage, &document);
        let start = format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#);
        let streamed = stream(&[START, &start, BLOCK_STOP, DELTA, STOP]);
        let output = run_tap(AnthropicMessages, &[streamed.as_bytes()]);
        compare(expected, &output.transcript, &output.usage, &streamed);
    };
    for counted in [
        r#"{"type":"server_tool_use","id":"s","name":"web_search","input":{"query":"q"}}"#,
        r#"{"type":"server_tool_use","id":"s","name":"bash_code_execution","input":{"command":"ls"}}"#,
        r#"{"type":"mcp_tool_use","id":"s","name":"f","server_name":"n","input":{"x":1}}"#,
        r#"{"type":"unheard_of_tool_use","id":"s","name":"f","input":{"x":1}}"#,
    ] {
        check(counted, &ExpectedTranscript { server_tool_calls: 1, ..expected_text("") });
    }
    for unrecorded in [
        r#"{"type":"web_search_tool_result","tool_use_id":"s","content":[{"type":"web_search_result","title":"t"}]}"#,
        r#"{"type":"web_fetch_tool_result","tool_use_id":"s","content":{"type":"web_fetch_result","url":"u"}}"#,
        r#"{"type":"code_execution_tool_result","tool_use_id":"s","content":{"stdout":"o"}}"#,
        r#"{"type":"bash_code_execution_tool_result","tool_use_id":"s","content":{"stdout":"o"}}"#,
        r#"{"type":"mcp_tool_result","tool_use_id":"s","content":[{"type":"text","text":"o"}]}"#,
        r#"{"type":"tool_search_tool_result","tool_use_id":"s","content":{}}"#,
        r#"{"type":"advisor_tool_result","tool_use_id":"s","content":{}}"#,
        r#"{"type":"container_upload","file_id":"f"}"#,
        r#"{"type":"compaction","content":"a summary"}"#,
        r#"{"type":"unheard_of"}"#,
    ] {
        check(unrecorded, &expected_text(""));
    }
    let call = ExpectedTranscript { calls: &[("a", "f", "{\"x\":1}")], ..expected_text("") };
    check(r#"{"type":"tool_use","id":"a","name":"f","input":{"x":1},"caller":{"type":"direct"}}"#, &call);
    check(r#"{"type":"tool_use","id":"a","name":"f","input":"{\"x\":1}"}"#, &call);
    let cited = r#"{"type":"text","text":"hi","citations":[{"type":"char_location","cited_text":"no"}]}"#;
    check(cited, &expected_text("hi"));
}

#[test]
fn the_model_that_takes_over_is_recorded() {
    let fallback = |from: &str, to: &str| {
        format!(
            r#"{{"type":"content_block_start","index":0,"content_block":{{"type":"fallback","from":{{"model":"{from}"}},"to":{{"model":"{to}"}}}}}}"#
        )
    };
    let expected = ExpectedTranscript { model: Some("n"), ..expected_text("hi") };
    check(AnthropicMessages, &block(&[&fallback("m", "n"), BLOCK, HI]), &expected);
    check(AnthropicMessages, &block(&[&fallback("m", "o"), &fallback("o", "n"), BLOCK, HI]), &expected);
    let nameless = fallback("m", "");
    check(AnthropicMessages, &block(&[&nameless, BLOCK, HI]), &expected_text("hi"));
}

#[test]
fn content_of_the_first_event_is_read() {
    let start = START.replace(
        r#""content":[]"#,
        r#""content":[{"type":"text","text":"hi"},{"type":"tool_use","id":"a","name":"f","input":{"x":1}}]"#,
    );
    check(
        AnthropicMessages,
        &stream(&[&start, DELTA, STOP]),
        &ExpectedTranscript { calls: &[("a", "f", "{\"x\":1}")], ..expected_text("hi") },
    );
    let again = START.replace("\"msg\"", "\"other\"");
    let body = stream(&[START, BLOCK, HI, &again, BLOCK, HI, DELTA, STOP]);
    check(AnthropicMessages, &body, &ExpectedTranscript { notes: &["started_twice"], ..expected_text("hi") });
}

#[test]
fn ends_of_all_kinds_are_recognized() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#;
    let failed = ExpectedTranscript {
        finish_reason: None,
        usage: Some((23, 1)),
        error: Some((Some("overloaded_error"), None, "m")),
        ..expected_text("hi")
    };
    check(AnthropicMessages, &stream(&[START, BLOCK, HI, error]), &failed);
    let plain = stream(&[START, BLOCK, HI]) + "event: error\ndata: oh\n\n";
    check(AnthropicMessages, &plain, &ExpectedTranscript { error: Some((None, None, "oh")), ..failed.clone() });
    // A stream that breaks off before its stop reason: the first event counts the input alone.
    let broken_off = ExpectedTranscript { error: None, usage: None, ..failed };
    check(AnthropicMessages, &stream(&[START, BLOCK, HI]), &broken_off);
    check(AnthropicMessages, &(block(&[BLOCK, HI]) + "data: [DONE]\n\n"), &expected_text("hi"));
    let done = stream(&[START, BLOCK, HI, DELTA]) + "data: [DONE]\n\n";
    check(AnthropicMessages, &done, &ExpectedTranscript { notes: &["done_sent"], ..expected_text("hi") });
    check_end_is_held_back(AnthropicMessages, &block(&[BLOCK, HI]), "message_stop");
    check_end_is_held_back(AnthropicMessages, &stream(&[START, BLOCK, HI, error]), "event: error");
    let refusal = DELTA.replace("end_turn", "refusal");
    check(
        AnthropicMessages,
        &stream(&[START, BLOCK, HI, &refusal, STOP]),
        &ExpectedTranscript { finish_reason: Some("refusal"), ..expected_text("hi") },
    );
}

#[test]
fn the_event_of_vertex_with_usage_is_read() {
    let vertex = |output: u64| {
        let usage = format!(r#""input_tokens":23,"output_tokens":{output},"cache_read_input_tokens":null"#);
        format!(r#"{{"type":"vertex_event","usage":{{{usage},"tiers":{{"0-to-200000":{{{usage}}}}}}}}}"#)
    };
    let start = r#"{"type":"message_start","message":{"id":"msg","model":"m","content":[]}}"#;
    let delta = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#;
    check(AnthropicMessages, &stream(&[start, BLOCK, HI, &vertex(9), delta, STOP]), &expected_text("hi"));
    // Another event has the last word, whichever comes first.
    check(AnthropicMessages, &stream(&[START, &vertex(1), BLOCK, HI, DELTA, STOP]), &expected_text("hi"));
    check(AnthropicMessages, &stream(&[START, BLOCK, HI, DELTA, &vertex(1), STOP]), &expected_text("hi"));
}

#[test]
fn unknown_events_are_noted() {
    check(AnthropicMessages, &events(&[START, BLOCK, HI, DELTA, STOP]), &expected_text("hi"));
    let odd = stream(&[START, r#"{"type":"novelty"}"#, BLOCK, HI, DELTA, STOP]);
    check(AnthropicMessages, &odd, &ExpectedTranscript { notes: &["unknown_event"], ..expected_text("hi") });
    let loose = stream(&[START, HI, DELTA, STOP]);
    check(AnthropicMessages, &loose, &ExpectedTranscript { notes: &["delta_without_block"], ..expected_text("hi") });
    let nonsense =
        stream(&[START, BLOCK]) + "event: content_block_delta\ndata: {\"type\":\n\n" + &stream(&[HI, DELTA, STOP]);
    check(AnthropicMessages, &nonsense, &ExpectedTranscript { notes: &["unreadable_event"], ..expected_text("hi") });
}

#[test]
fn answers_that_are_one_document_are_read() {
    let check = |body: &str, expected: &ExpectedTranscript| {
        let output = run_tap(AnthropicMessages, &[body.as_bytes()]);
        compare(expected, &output.transcript, &output.usage, body);
    };
    let body = r#"{"id":"msg","type":"message","model":"m","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"h"},{"type":"text","text":"i"},{"type":"tool_use","id":"a","name":"f","input":{}}],"stop_reason":"end_turn","usage":{"input_tokens":23,"output_tokens":9}}"#;
    check(body, &ExpectedTranscript { reasoning: "hm", calls: &[("a", "f", "{}")], ..expected_text("hi") });
    let error = r#"{"type":"error","error":{"type":"t","message":"m"},"request_id":"r"}"#;
    check(error, &ExpectedTranscript { error: Some((Some("t"), None, "m")), ..ExpectedTranscript::default() });
    check("nonsense}", &ExpectedTranscript::default());
    check("{\"content\":", &ExpectedTranscript { notes: &["unreadable_document"], ..ExpectedTranscript::default() });
}
