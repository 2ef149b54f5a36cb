//! Tests of the new messages of a request, in each dialect.

use super::*;

fn found(body: &str, surface: ApiSurface) -> Vec<NewMessage> {
    parse(body, surface).unwrap_or_else(|error| panic!("{body}: {error}")).new_messages
}

/// The new messages in the messages of a chat completion.
fn in_chat(messages: &str) -> Vec<NewMessage> {
    found(&format!(r#"{{"model":"m","messages":{messages}}}"#), ApiSurface::ChatCompletions)
}

/// The new messages in the messages of an Anthropic request.
fn in_anthropic(messages: &str) -> Vec<NewMessage> {
    found(&format!(r#"{{"model":"m","max_tokens":9,"messages":{messages}}}"#), ApiSurface::Messages)
}

/// The new messages in the input of a Responses request.
fn in_responses(input: &str) -> Vec<NewMessage> {
    found(&format!(r#"{{"model":"m","input":{input}}}"#), ApiSurface::Responses)
}

#[test]
fn everything_after_the_last_answer_of_a_chat_completion_is_new() {
    let results = in_chat(
        r#"[{"role":"user","content":"q"},{"role":"assistant","tool_calls":[]},
            {"role":"tool","tool_call_id":"c0","content":"20 degrees"},
            {"role":"tool","tool_call_id":"c1","content":[{"type":"text","text":"no "},{"type":"text","text":"wind"}]},
            {"role":"system","content":"be brief"},{"role":"user","content":"and tomorrow?"}]"#,
    );
    let expected =
        [new("tool", "20 degrees", Some("c0")), new("tool", "no wind", Some("c1")), new("user", "and tomorrow?", None)];
    assert_eq!(results, expected);
    assert_eq!(in_chat(r#"[{"role":"function","name":"f","content":"7"}]"#), [new("function", "7", None)]);
    assert_eq!(
        in_chat(r#"[{"role":"user","content":"a"},{"role":"user"}]"#),
        [new("user", "a", None), new("user", "", None)]
    );
    assert_eq!(in_chat(r#"[{"role":"system","content":"s"}]"#), []);
}

#[test]
fn the_beginning_of_an_answer_is_no_boundary() {
    let chat = r#"[{"role":"user","content":"p"},{"role":"assistant","content":"a"},{"role":"user","content":"q"},{"role":"assistant","content":"begin"}]"#;
    assert_eq!(in_chat(chat), [new("user", "q", None)]);
    assert_eq!(in_anthropic(chat), [new("user", "q", None)]);
}

#[test]
fn each_tool_result_and_the_text_beside_it_are_apart_in_an_anthropic_request() {
    let found = in_anthropic(
        r#"[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"tool_use","id":"t0","name":"w","input":{}}]},
            {"role":"user","content":[
                {"type":"tool_result","tool_use_id":"t0","content":"20 degrees"},
                {"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"no wind"}]},
                {"type":"tool_result","tool_use_id":"t2","is_error":true},
                {"type":"text","text":"and "},{"type":"image","source":{}},{"type":"text","text":"tomorrow?"}]},
            {"role":"user","content":"please"}]"#,
    );
    let expected = [
        new("tool", "20 degrees", Some("t0")),
        new("tool", "no wind", Some("t1")),
        new("tool", "", Some("t2")),
        new("user", "and tomorrow?", None),
        new("user", "please", None),
    ];
    assert_eq!(found, expected);
    let image = r#"[{"role":"user","content":[{"type":"image","source":{}}]}]"#;
    assert_eq!(in_anthropic(image), [new("user", "", None)], "a message without text is a message");
}

#[test]
fn every_item_after_the_last_item_of_the_model_is_new_in_a_responses_request() {
    let found = in_responses(
        r#"[{"role":"user","content":"q"},{"type":"reasoning","id":"r"},
            {"type":"function_call","call_id":"c0","name":"w","arguments":"{}"},
            {"type":"function_call","call_id":"c1","name":"w","arguments":"{}"},
            {"type":"function_call_output","call_id":"c0","output":"20 degrees"},
            {"type":"custom_tool_call_output","call_id":"c1","output":[{"type":"input_text","text":"no wind"}]},
            {"type":"computer_call_output","call_id":"c2","output":{"type":"computer_screenshot"}},
            {"role":"user","content":[{"type":"input_text","text":"and tomorrow?"}]}]"#,
    );
    let expected = [
        new("tool", "20 degrees", Some("c0")),
        new("tool", "no wind", Some("c1")),
        new("tool", "", Some("c2")),
        new("user", "and tomorrow?", None),
    ];
    assert_eq!(found, expected);
    // What the client did: the output of commands, and the user's word about a call.
    let acted = in_responses(
        r#"[{"type":"shell_call","call_id":"c3"},{"type":"mcp_approval_request","id":"m0"},
            {"type":"shell_call_output","call_id":"c3","output":[{"stdout":"a b","stderr":"", "outcome":{"type":"exit"}}]},
            {"type":"mcp_approval_response","approval_request_id":"m0","approve":true}]"#,
    );
    let output = r#"[{"stdout":"a b","stderr":"","outcome":{"type":"exit"}}]"#;
    assert_eq!(acted, [new("tool", output, Some("c3")), new("tool", r#"{"approve":true}"#, Some("m0"))]);
    let of = |before: &str| {
        in_responses(&format!(r#"[{{"role":"user","content":"q"}},{before},{{"role":"user","content":"r"}}]"#))
    };
    for made in [
        r#"{"role":"assistant","content":"a"}"#,
        r#"{"type":"item_reference","id":"m"}"#,
        r#"{"type":"web_search_call"}"#,
    ] {
        assert_eq!(of(made), [new("user", "r", None)], "{made}");
    }
    for unknown in [r#"{"type":"of_tomorrow"}"#, "7", r#"{"role":"developer","content":"d"}"#] {
        assert_eq!(of(unknown), [new("user", "q", None), new("user", "r", None)], "{unknown}");
    }
    assert_eq!(in_responses(r#""just a text""#), [new("user", "just a text", None)]);
}

#[test]
fn parallel_tool_results_of_use_chat_are_apart() {
    let body = r#"{"id":"t","messages":[
        {"id":"u","role":"user","parts":[{"type":"text","text":"q"}]},
        {"id":"a","role":"assistant","parts":[{"type":"step-start"},
            {"type":"tool-w","toolCallId":"c0","state":"output-available","input":{},"output":"20 degrees"},
            {"type":"dynamic-tool","toolName":"x","toolCallId":"c1","state":"output-error","input":{},"errorText":"no wind"}]}]}"#;
    let ui = ui_message::parse(body.as_bytes()).unwrap().unwrap();
    let body = crate::json::edit::with_member(&ui.body, "model", &"m".into());
    let found = ChatRequest::parse(&body, ApiSurface::Frontend).unwrap().new_messages;
    assert_eq!(found, [new("tool", "20 degrees", Some("c0")), new("tool", "no wind", Some("c1"))]);
}

#[test]
fn the_last_256_new_messages_are_taken_and_a_note_says_that_there_are_more() {
    let messages: Vec<_> = (0..300).map(|number| format!(r#"{{"role":"user","content":"{number}"}}"#)).collect();
    let body = |count: usize| format!(r#"{{"model":"m","messages":[{}]}}"#, messages[..count].join(","));
    let request = parse(&body(300), ApiSurface::ChatCompletions).unwrap();
    let texts: Vec<_> = request.new_messages.iter().map(|message| message.text.as_str()).collect();
    assert_eq!((texts.len(), texts[0], texts[255]), (256, "44", "299"));
    assert_eq!(request.notes, ["new_messages_left_out"]);
    let request = parse(&body(256), ApiSurface::ChatCompletions).unwrap();
    assert_eq!((request.new_messages.len(), request.notes.len()), (256, 0));
}

#[test]
fn a_new_message_of_a_wrong_type_is_named() {
    for (surface, expected) in [
        (ApiSurface::ChatCompletions, "expected text or a list of parts at messages[0].content"),
        (ApiSurface::Messages, "expected text or a list of blocks at messages[0].content"),
    ] {
        let error =
            parse(r#"{"model":"m","messages":[{"role":"user","content":7},{"role":"user","content":"x"}]}"#, surface);
        assert!(error.as_ref().unwrap_err().to_string().contains(expected), "{error:?}");
    }
}

#[test]
fn a_member_of_a_message_that_stands_twice_is_named() {
    for (body, surface) in [
        (r#"{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}"#, ApiSurface::ChatCompletions),
        (r#"{"model":"m","messages":[{"role":"user","role":"system","content":"a"}]}"#, ApiSurface::Messages),
    ] {
        let error = parse(body, surface).unwrap_err();
        let expected = "messages: expected one member of each name, found two of the same name, at messages[0]";
        assert_eq!(error.to_string(), expected, "{body}");
    }
}
