use super::*;

mod new_messages;

fn parse(body: &str, surface: ApiSurface) -> Result<ChatRequest, InvalidRequest> {
    ChatRequest::parse(&Bytes::copy_from_slice(body.as_bytes()), surface)
}

/// A new message as expected.
pub(super) fn new(role: &str, text: &str, tool_call_id: Option<&str>) -> NewMessage {
    NewMessage { role: role.into(), text: text.into(), tool_call_id: tool_call_id.map(str::to_owned) }
}

#[test]
fn a_frontends_request_streams_and_asks_for_usage() {
    let body = r#"{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hé\n"}],"model":"m","temperature":0.7}"#;
    let request = parse(body, ApiSurface::Frontend).unwrap();
    assert!(request.stream && request.added_usage_option);
    assert_eq!(request.temperature, Some(0.7));
    assert_eq!(request.new_messages, [new("user", "hé\n", None)]);
    assert_eq!(request.parameters.get(), r#"{"model":"m","temperature":0.7}"#);
    let forward: serde_json::Value = serde_json::from_slice(&request.upstream_body).unwrap();
    assert_eq!(forward["stream"], true);
    assert_eq!(forward["stream_options"]["include_usage"], true);
    assert_eq!(forward["messages"][1]["content"], "hé\n");
}

#[test]
fn an_openai_body_is_forwarded_as_sent() {
    for body in [
        r#" {"model":"m" , "messages":[{"role":"user","content":"x"}],"x":1e2}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m","messages":[{"role":"user"}]}"#,
    ] {
        let request = parse(body, ApiSurface::ChatCompletions).unwrap();
        assert_eq!(request.upstream_body, body);
        assert!(!request.added_usage_option);
    }
}

#[test]
fn asking_for_usage_changes_nothing_else() {
    let body = r#"{"stream":true,"stream_options":{"a":[1],"include_usage":false},"seed":1.0,"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    let request = parse(body, ApiSurface::ChatCompletions).unwrap();
    assert!(request.added_usage_option);
    assert_eq!(
        std::str::from_utf8(&request.upstream_body).unwrap(),
        r#"{"stream":true,"seed":1.0,"model":"m","messages":[{"role":"user","content":"x"}],"stream_options":{"a":[1],"include_usage":true}}"#
    );
}

#[test]
fn the_conversation_id_is_not_forwarded() {
    let body = r#"{"conversationId":"c1","model":"m","stream":false,"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{}},{"type":"text","text":"b"}]}]}"#;
    let request = parse(body, ApiSurface::Frontend).unwrap();
    assert_eq!(request.conversation_id.as_deref(), Some("c1"));
    assert!(!std::str::from_utf8(&request.upstream_body).unwrap().contains("conversationId"));
    assert_eq!(request.new_messages[0].text, "ab");
}

#[test]
fn the_error_of_an_invalid_request_names_the_member() {
    let cases = [
        ("", "expected a JSON object: EOF while parsing a value at line 1 column 0"),
        ("[]", "expected a JSON object: invalid type: sequence, expected a JSON object at line 1 column 0"),
        ("{}", "model: missing; expected a model name"),
        (r#"{"model":7}"#, "model: expected a model name"),
        (r#"{"model":"m"}"#, "messages: missing; expected a list of messages"),
        (r#"{"model":"m","messages":[]}"#, "messages: expected at least one message"),
        (r#"{"model":"m","messages":"hi"}"#, "messages: expected a list of messages"),
        (r#"{"model":"m","messages":["hi"]}"#, "messages: expected an object with a role at messages[0]"),
        (
            r#"{"model":"m","messages":[{"role":"user","content":7}]}"#,
            "messages: expected text or a list of parts at messages[0].content",
        ),
        (r#"{"model":"m","messages":[{"role":"user"}],"stream":"yes"}"#, "stream: expected true or false"),
        (r#"{"model":"m","messages":[{"role":"user"}],"temperature":"hot"}"#, "temperature: expected a number"),
        (
            r#"{"model":"m","messages":[{"role":"user"}],"stream_options":1}"#,
            "stream_options: expected an object with include_usage true or false",
        ),
    ];
    for (body, message) in cases {
        assert_eq!(parse(body, ApiSurface::ChatCompletions).unwrap_err().message, message, "{body}");
    }
}
