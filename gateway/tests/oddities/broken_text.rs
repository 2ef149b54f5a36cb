//! Half a surrogate pair in the arguments of tool calls, in every dialect: U+FFFD and a note. The bytes pass as they came.

use shared::event::DialectName::{self, AnthropicMessages, GoogleGemini, OpenaiChat, OpenaiResponses};

use super::{events, run_tap};

/// Arguments as JSON with half a pair in a text, and the arguments as they are recorded.
const OBJECT: &str = r#"{"x":"a\ud83d b"}"#;
const OBJECT_RECORDED: &str = r#"{"x":"a\ufffd b"}"#;

/// Arguments as a string with half a pair in it.
const STRING: &str = r#""{\"x\":\"a\ud83d b\"}""#;
const STRING_RECORDED: &str = "{\"x\":\"a\u{fffd} b\"}";

/// Arguments as a string whose text has an escape. The string itself is good, and the text is kept.
const ESCAPED: &str = r#""{\"x\":\"a\\ud83d b\"}""#;
const ESCAPED_RECORDED: &str = r#"{"x":"a\ud83d b"}"#;

fn check_call(dialect: DialectName, body: &str, arguments: &str, is_mended: bool) {
    for size in [1, 5, body.len()] {
        let chunks: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        let output = run_tap(dialect, &chunks);
        assert!(output.forwarded == body.as_bytes(), "in chunks of {size}: {body}");
        let calls: Vec<_> =
            output.transcript.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(calls, [("f", arguments)], "in chunks of {size}: {body}");
        assert_eq!(output.transcript.notes.contains(&"text_mended"), is_mended, "in chunks of {size}: {body}");
    }
}

/// Checks these arguments in each member of a body in which the dialect has arguments.
fn check_all(dialect: DialectName, bodies: &[&str]) {
    let forms = [(OBJECT, OBJECT_RECORDED, true), (STRING, STRING_RECORDED, true), (ESCAPED, ESCAPED_RECORDED, false)];
    for body in bodies {
        for (arguments, recorded, is_mended) in forms {
            check_call(dialect, &body.replace('#', arguments), recorded, is_mended);
        }
    }
}

#[test]
fn half_a_pair_in_the_arguments_of_a_chat_completion_is_noted() {
    let finish = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#;
    let stream =
        |delta: &str| events(&[&format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#), finish, "[DONE]"]);
    check_all(
        OpenaiChat,
        &[
            &stream(r##"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":#}}]}"##),
            &stream(r##"{"tool_calls":{"id":"a","name":"f","arguments":#}}"##),
            &stream(r##"{"tool_calls":[{"index":0,"id":"a","custom":{"name":"f","input":#}}]}"##),
            &stream(r##"{"function_call":{"name":"f","arguments":#}}"##),
            r##"{"choices":[{"index":0,"message":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":#}}]},"finish_reason":"tool_calls"}]}"##,
        ],
    );
}

#[test]
fn half_a_pair_in_the_arguments_of_a_response_is_noted() {
    let created = r#"{"type":"response.created","response":{"id":"r","status":"in_progress"}}"#;
    let added = r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"i","type":"function_call","call_id":"a","name":"f","arguments":""}}"#;
    let completed = r#"{"type":"response.completed","response":{"id":"r","status":"completed","output":[]}}"#;
    let stream = |event: &str| events(&[created, added, event, completed]);
    check_all(
        OpenaiResponses,
        &[
            &stream(
                r##"{"type":"response.function_call_arguments.done","output_index":0,"item_id":"i","arguments":#}"##,
            ),
            &stream(
                r##"{"type":"response.output_item.done","output_index":0,"item":{"id":"i","type":"function_call","call_id":"a","name":"f","arguments":#}}"##,
            ),
            r##"{"id":"r","status":"completed","output":[{"type":"function_call","call_id":"a","name":"f","arguments":#}]}"##,
            r##"{"id":"r","status":"completed","output":[{"type":"mcp_approval_request","id":"a","name":"f","arguments":#}]}"##,
        ],
    );
    // Deltas are strings.
    for (delta, recorded) in [(STRING, STRING_RECORDED), (ESCAPED, ESCAPED_RECORDED)] {
        let event = format!(r#"{{"type":"response.function_call_arguments.delta","output_index":0,"delta":{delta}}}"#);
        check_call(OpenaiResponses, &stream(&event), recorded, delta == STRING);
    }
}

#[test]
fn half_a_pair_in_the_input_of_a_block_is_noted() {
    let start =
        r#"{"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}"#;
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":2}}"#;
    let stream = |block: &[&str]| events(&[&[start], block, &[end, r#"{"type":"message_stop"}"#]].concat());
    let open = r##"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"a","name":"f","input":#}}"##;
    check_all(
        AnthropicMessages,
        &[
            &stream(&[open]),
            r##"{"id":"m","type":"message","content":[{"type":"tool_use","id":"a","name":"f","input":#}],"stop_reason":"tool_use"}"##,
        ],
    );
    let empty = open.replace('#', "{}");
    for (delta, recorded) in [(STRING, STRING_RECORDED), (ESCAPED, ESCAPED_RECORDED)] {
        let delta_event = format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"input_json_delta","partial_json":{delta}}}}}"#
        );
        check_call(AnthropicMessages, &stream(&[&empty, &delta_event]), recorded, delta == STRING);
    }
}

#[test]
fn half_a_pair_in_the_arguments_of_gemini_is_noted() {
    let document =
        r##"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":#}}]},"finishReason":"STOP"}]}"##;
    check_all(GoogleGemini, &[document, &events(&[document]), &format!("[{document}]")]);
}
