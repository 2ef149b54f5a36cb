//! Parses errors in the shapes that providers use: the error objects of OpenAI and Anthropic, a plain text in place of
//! the object, a `detail`, a bare `message`, a list with one of these, the same in an event stream, plain text, or
//! HTML.

use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::event::ChatError;

use crate::json::lenient::{Object, Text, text_or_json};
use crate::json::repair::dedup_members;
use crate::response::sse::SseParser;

/// The maximum length of a recorded error message, in bytes: the message must fit into an event.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// The maximum length of a recorded error type or code, in bytes.
const MAX_IDENTIFIER_BYTES: usize = 1024;

/// Parses the body of a response with an error status. Every body results in an error.
pub fn parse_error_body(status: u16, body: &[u8]) -> ChatError {
    let mut error = find_error(body).or_else(|| error_in_event_stream(body)).unwrap_or_else(|| error_from_text(body));
    error.status = Some(status);
    error
}

/// Finds an error of any known shape in a body or chunk.
pub(super) fn find_error(json: &[u8]) -> Option<ChatError> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(default, borrow)]
        error: Option<&'a RawValue>,
        #[serde(default, borrow)]
        detail: Option<&'a RawValue>,
        #[serde(default, borrow)]
        message: Text<'a>,
        #[serde(default, rename = "type", deserialize_with = "text_or_json")]
        kind: Option<String>,
        #[serde(default, deserialize_with = "text_or_json")]
        code: Option<String>,
        #[serde(default, borrow)]
        object: Text<'a>,
    }
    if let Ok([only]) = serde_json::from_slice::<[&RawValue; 1]>(json) {
        return find_error(only.get().as_bytes());
    }
    let Ok(body) = serde_json::from_slice::<Body<'_>>(json) else {
        return dedup_members(json).and_then(|json| find_error(json.as_bytes()));
    };
    if let Some(error) = body.error.and_then(parse_error_member) {
        // xAI sends the message in `error` and the code beside `error`.
        let code = error.code.or_else(|| body.code.map(bounded_identifier));
        return Some(ChatError { code, ..error });
    }
    let message = match body.detail {
        Some(detail) => text_of(detail),
        None => {
            let says_error = body.object.non_empty() == Some("error") || body.kind.is_some() || body.code.is_some();
            body.message.non_empty().filter(|_| says_error)?.to_owned()
        }
    };
    Some(ChatError {
        status: None,
        kind: body.kind.map(bounded_identifier),
        code: body.code.map(bounded_identifier),
        message: bounded_message(&message),
    })
}

/// Parses an `error` member: an object or plain text. `null`, `false`, an empty text and an empty object are no error.
pub(super) fn parse_error_member(raw: &RawValue) -> Option<ChatError> {
    #[derive(Deserialize)]
    struct ErrorObject<'a> {
        #[serde(default, borrow)]
        message: Option<&'a RawValue>,
        #[serde(default, rename = "type", deserialize_with = "text_or_json")]
        kind: Option<String>,
        #[serde(default, deserialize_with = "text_or_json")]
        code: Option<String>,
    }
    let Ok(Object(read)) = serde_json::from_str::<Object<ErrorObject<'_>>>(raw.get()) else {
        return parse_error_member(&RawValue::from_string(dedup_members(raw.get().as_bytes())?).ok()?);
    };
    match read {
        Some(ErrorObject { message: None, kind: None, code: None }) if is_empty_object(raw) => None,
        Some(error) => Some(ChatError {
            status: None,
            kind: error.kind.map(bounded_identifier),
            code: error.code.map(bounded_identifier),
            message: bounded_message(&error.message.map_or_else(|| raw.get().to_owned(), text_of)),
        }),
        None => Some(text_of(raw))
            .filter(|text| !matches!(text.as_str(), "" | "null" | "false"))
            .map(|text| ChatError { message: bounded_message(&text), ..ChatError::default() }),
    }
}

/// Makes an error from plain text.
pub(super) fn error_from_text(text_or_json: &[u8]) -> ChatError {
    ChatError { message: bounded_message(String::from_utf8_lossy(text_or_json).trim()), ..ChatError::default() }
}

/// Finds the first error in an event stream.
fn error_in_event_stream(body: &[u8]) -> Option<ChatError> {
    let mut error = None;
    let mut on_event = |event: crate::response::sse::SseEvent<'_>| {
        error = event.data.and_then(find_error);
        if error.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut reader = SseParser::default();
    reader.feed(body, &mut on_event);
    reader.finish(on_event);
    error
}

fn is_empty_object(raw: &RawValue) -> bool {
    raw.get().bytes().all(|byte| matches!(byte, b'{' | b'}') || byte.is_ascii_whitespace())
}

/// Truncates an error message to the maximum length.
fn bounded_message(message: &str) -> String {
    message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)].to_owned()
}

fn bounded_identifier(mut identifier: String) -> String {
    identifier.truncate(identifier.floor_char_boundary(MAX_IDENTIFIER_BYTES));
    identifier
}

/// The text of a string, or any other value as JSON.
fn text_of(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, kind: Option<&str>, code: Option<&str>, message: &str) {
        let error = parse_error_body(400, body.as_bytes());
        assert_eq!((error.kind.as_deref(), error.code.as_deref()), (kind, code), "{body}");
        assert_eq!((error.status, error.message.as_str()), (Some(400), message), "{body}");
    }

    #[test]
    fn errors_of_every_shape_are_read() {
        check(r#"{"error":{"message":"m","type":"t","code":"c","param":null}}"#, Some("t"), Some("c"), "m");
        check(r#"{"error":{"message":"m","code":400,"metadata":{}}}"#, None, Some("400"), "m");
        check(r#"{"error":{"message":"m","type":"","code":null}}"#, None, None, "m");
        check(r#"{"type":"error","error":{"type":"t","message":"m"},"request_id":"r"}"#, Some("t"), None, "m");
        check(r#"{"code":"invalid-argument","error":"m"}"#, None, Some("invalid-argument"), "m");
        check(r#"{"error":"m"}"#, None, None, "m");
        check(r#"{"error":{"why":1}}"#, None, None, r#"{"why":1}"#);
        check(r#"{"error":{"message":{"a":1}}}"#, None, None, r#"{"a":1}"#);
        check(r#"{"detail":"m"}"#, None, None, "m");
        check(r#"{"detail":[{"loc":["body"]}]}"#, None, None, r#"[{"loc":["body"]}]"#);
        check(r#"{"object":"error","message":"m","type":"t","code":40}"#, Some("t"), Some("40"), "m");
        check(r#"[{"error":{"code":404,"message":"m","status":"NOT_FOUND"}}]"#, None, Some("404"), "m");
        check("data: {\"error\":{\"message\":\"m\",\"type\":\"t\"}}\n\n", Some("t"), None, "m");
        check("error: {\"error\":{\"message\":\"m\"}}", None, None, "m");
        check(" Service Unavailable\n", None, None, "Service Unavailable");
        check("<html><h1>502</h1></html>", None, None, "<html><h1>502</h1></html>");
        check("", None, None, "");
    }

    #[test]
    fn bodies_without_an_error_have_none() {
        for body in
            [r#"{"error":null}"#, r#"{"error":{}}"#, r#"{"error":false}"#, r#"{"error":""}"#, r#"{"message":"m"}"#]
        {
            assert_eq!(find_error(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn messages_and_types_are_bounded() {
        let long = "é".repeat(100_000);
        let error = parse_error_body(500, format!(r#"{{"error":{{"message":"{long}","type":"{long}"}}}}"#).as_bytes());
        assert!(error.message.len() <= MAX_MESSAGE_BYTES);
        assert!(error.kind.unwrap().len() <= MAX_IDENTIFIER_BYTES);
    }
}
