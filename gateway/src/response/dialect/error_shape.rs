//! Parses errors in the shapes that providers use: the error objects of OpenAI and Anthropic, a plain text in place of
//! the object, a `detail`, a `message` with a code, the status objects of MiniMax and Baidu, a list with one of these, the
//! same in an event stream, plain text, or HTML.
//!
//! Members that say success are no error: a code of 0 or 200, an error object whose members are empty, or the message of
//! a status without a code.

use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::event::ChatError;

use crate::json::lenient::{Members, Object, Text, text_or_json};
use crate::json::repair::dedup_members;
use crate::response::sse::SseParser;

/// The maximum length of a recorded error message, in bytes: the message must fit into an event.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// The maximum length of a recorded error type or code, in bytes.
const MAX_IDENTIFIER_BYTES: usize = 1024;

/// Parses the body of a response with an error status. Every body results in an error.
pub fn parse_error_body(status: u16, body: &[u8]) -> ChatError {
    let found = read_error(body).map(|(_, error)| error);
    let mut error = found.or_else(|| error_in_event_stream(body)).unwrap_or_else(|| error_from_text(body));
    error.status = Some(status);
    error
}

/// The evidence that a body or chunk is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Evidence {
    /// There is a message, and nothing that says what the message is about.
    Message,
    /// A code or status beside the message says failure.
    Code,
    /// A member that is there for errors alone.
    ErrorMember,
}

/// Finds an error in a body or chunk of a successful response.
pub(super) fn find_error(json: &[u8]) -> Option<ChatError> {
    read_error(json).filter(|(evidence, _)| *evidence >= Evidence::Code).map(|(_, error)| error)
}

/// Finds an error that is reported in a member for errors, and not only suggested by a code beside a message.
pub(super) fn find_reported_error(json: &[u8]) -> Option<ChatError> {
    read_error(json).filter(|(evidence, _)| *evidence == Evidence::ErrorMember).map(|(_, error)| error)
}

#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    errors: Option<&'a RawValue>,
    #[serde(default, borrow)]
    detail: Option<&'a RawValue>,
    #[serde(default)]
    base_resp: Object<BaseResponse>,
    #[serde(default, borrow)]
    message: Text<'a>,
    #[serde(default, borrow)]
    msg: Text<'a>,
    #[serde(default, borrow)]
    error_msg: Text<'a>,
    #[serde(default, borrow)]
    errmsg: Text<'a>,
    #[serde(default, rename = "type", deserialize_with = "text_or_json")]
    kind: Option<String>,
    #[serde(default, rename = "__type", deserialize_with = "text_or_json")]
    amazon_kind: Option<String>,
    #[serde(default, deserialize_with = "text_or_json")]
    code: Option<String>,
    #[serde(default, deserialize_with = "text_or_json")]
    error_code: Option<String>,
    #[serde(default, deserialize_with = "text_or_json")]
    errcode: Option<String>,
    #[serde(default, deserialize_with = "text_or_json")]
    status: Option<String>,
    #[serde(default, rename = "statusCode", deserialize_with = "text_or_json")]
    status_code: Option<String>,
    #[serde(default, deserialize_with = "text_or_json")]
    success: Option<String>,
    #[serde(default, borrow)]
    object: Text<'a>,
}

/// The status of MiniMax.
#[derive(Deserialize)]
struct BaseResponse {
    #[serde(default, deserialize_with = "text_or_json")]
    status_code: Option<String>,
    #[serde(default, deserialize_with = "text_or_json")]
    status_msg: Option<String>,
}

/// Reads the error with the strongest evidence.
fn read_error(json: &[u8]) -> Option<(Evidence, ChatError)> {
    if let Ok([only]) = serde_json::from_slice::<[&RawValue; 1]>(json) {
        return read_error(only.get().as_bytes());
    }
    let Ok(body) = serde_json::from_slice::<ErrorBody<'_>>(json) else {
        return dedup_members(json).and_then(|json| read_error(json.as_bytes()));
    };
    if let Some(error) = body.error_member() {
        return Some((Evidence::ErrorMember, error));
    }
    if let Some(message) = [&body.error_msg, &body.errmsg].into_iter().find_map(Text::non_empty)
        && !says_success(message)
    {
        let code = [&body.error_code, &body.errcode, &body.code].into_iter().find_map(Option::as_deref);
        return (!code.is_some_and(says_success)).then(|| (Evidence::ErrorMember, body.with_message(message, code)));
    }
    let message = [&body.message, &body.msg].into_iter().find_map(Text::non_empty)?;
    let evidence = body.evidence(message);
    Some((evidence, body.with_message(message, body.code.as_deref())))
}

impl ErrorBody<'_> {
    /// The error in `error`, `base_resp`, `errors` or `detail`.
    fn error_member(&self) -> Option<ChatError> {
        if let Some(error) = self.error.and_then(parse_error_member) {
            // xAI sends the message in `error` and the code beside `error`. Others send `true`, and the message beside.
            let code = error.code.clone().or_else(|| self.code.clone().map(bounded_identifier));
            let message = self.message.non_empty().filter(|_| error.message == "true").map(bounded_message);
            return Some(ChatError { code, message: message.unwrap_or(error.message), ..error });
        }
        if let Some(BaseResponse { status_code: Some(code), status_msg }) = &self.base_resp.0
            && !says_success(code)
        {
            return Some(self.with_message(status_msg.as_deref().unwrap_or(""), Some(code)));
        }
        let first = self.errors.and_then(|errors| serde_json::from_str::<Vec<&RawValue>>(errors.get()).ok());
        if let Some(error) = first.and_then(|errors| errors.first().copied().and_then(parse_error_member)) {
            return Some(error);
        }
        let detail = self.detail.filter(|detail| !is_empty_value(detail.get()))?;
        Some(self.with_message(&text_of(detail), self.code.as_deref()))
    }

    /// The evidence that a message outside the members for errors is the message of an error.
    fn evidence(&self, message: &str) -> Evidence {
        let kinds = [&self.kind, &self.amazon_kind].into_iter().flatten();
        let is_named_error = |kind: &String| {
            let kind = kind.to_ascii_lowercase();
            kind.contains("error") || kind.contains("exception")
        };
        if self.object.non_empty() == Some("error") || kinds.into_iter().any(is_named_error) {
            return Evidence::ErrorMember;
        }
        let codes = [&self.code, &self.error_code, &self.errcode].into_iter().flatten();
        let is_failed = matches!(self.status.as_deref(), Some("error" | "failed" | "fail" | "failure"))
            || [&self.status, &self.status_code].into_iter().flatten().any(|status| is_error_status(status))
            || self.success.as_deref() == Some("false");
        let says_failure = is_failed || codes.into_iter().any(|code| !says_success(code));
        if says_failure && !says_success(message) { Evidence::Code } else { Evidence::Message }
    }

    fn with_message(&self, message: &str, code: Option<&str>) -> ChatError {
        let code = code.or(self.code.as_deref()).map(str::to_owned);
        ChatError {
            status: None,
            kind: self.kind.clone().map(bounded_identifier),
            code: code.map(bounded_identifier),
            message: bounded_message(message),
        }
    }
}

/// Parses an `error` member: an object or plain text. `null`, `false`, 0, a text that says success, and an object whose
/// members are empty or say success are no error.
pub(super) fn parse_error_member(raw: &RawValue) -> Option<ChatError> {
    #[derive(Deserialize)]
    struct ErrorObject<'a> {
        #[serde(default, borrow)]
        message: Option<&'a RawValue>,
        #[serde(default, borrow)]
        msg: Option<&'a RawValue>,
        #[serde(default, rename = "type", deserialize_with = "text_or_json")]
        kind: Option<String>,
        #[serde(default, deserialize_with = "text_or_json")]
        code: Option<String>,
    }
    let Ok(Object(read)) = serde_json::from_str::<Object<ErrorObject<'_>>>(raw.get()) else {
        return parse_error_member(&RawValue::from_string(dedup_members(raw.get().as_bytes())?).ok()?);
    };
    let Some(error) = read else {
        return Some(text_of(raw))
            .filter(|text| !is_empty_value(text) && !says_success(text))
            .map(|text| ChatError { message: bounded_message(&text), ..ChatError::default() });
    };
    if is_filled_with_nothing(raw) {
        return None;
    }
    let message = error.message.or(error.msg).map(text_of);
    let says_nothing = message.as_deref().is_none_or(|message| message.is_empty() || says_success(message));
    if says_nothing && error.kind.as_deref().is_none_or(says_success) && error.code.as_deref().is_some_and(says_success)
    {
        return None;
    }
    Some(ChatError {
        status: None,
        kind: error.kind.map(bounded_identifier),
        code: error.code.map(bounded_identifier),
        message: bounded_message(&message.unwrap_or_else(|| raw.get().to_owned())),
    })
}

/// True for codes and messages that say success, such as `0`, `200` and `Success`.
fn says_success(code: &str) -> bool {
    let code = code.trim().trim_end_matches(['.', '!']);
    if !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit()) {
        return code.bytes().all(|byte| byte == b'0') || (code.len() == 3 && code.starts_with('2'));
    }
    ["success", "succeed", "succeeded", "successful", "ok", "none", "null", "false"]
        .iter()
        .any(|word| code.eq_ignore_ascii_case(word))
}

/// True for HTTP statuses of errors.
fn is_error_status(status: &str) -> bool {
    status.len() == 3 && status.parse::<u16>().is_ok_and(|status| status >= 400)
}

/// True for JSON that says nothing, and for the empty text.
fn is_empty_value(json: &str) -> bool {
    let compact = json.trim();
    matches!(compact, "" | "null" | "false" | "0" | "\"\"" | "{}" | "[]")
}

/// True for an object all of whose members are empty. The name of a parameter alone makes no error.
fn is_filled_with_nothing(raw: &RawValue) -> bool {
    serde_json::from_str::<Members<'_>>(raw.get()).is_ok_and(|Members(members)| {
        members.iter().all(|(name, value)| name == "param" || is_empty_value(value.get()))
    })
}

/// Makes an error from plain text.
pub(super) fn error_from_text(text_or_json: &[u8]) -> ChatError {
    ChatError { message: bounded_message(String::from_utf8_lossy(text_or_json).trim()), ..ChatError::default() }
}

/// Finds the first error in an event stream.
fn error_in_event_stream(body: &[u8]) -> Option<ChatError> {
    let mut error = None;
    let mut on_event = |event: crate::response::sse::SseEvent<'_>| {
        error = event.data.and_then(read_error).map(|(_, error)| error);
        if error.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut reader = SseParser::default();
    reader.feed(body, &mut on_event);
    reader.finish(on_event);
    error
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
        check(r#"{"type":"status","message":"m"}"#, Some("status"), None, "m");
        check(r#"{"base_resp":{"status_code":1008,"status_msg":"m"},"choices":null}"#, None, Some("1008"), "m");
        check(r#"{"error_code":17,"error_msg":"m"}"#, None, Some("17"), "m");
        check(r#"{"errcode":40001,"errmsg":"m"}"#, None, Some("40001"), "m");
        check(r#"{"code":500,"msg":"m","success":false}"#, None, Some("500"), "m");
        check(r#"{"success":false,"errors":[{"code":10000,"message":"m"}],"result":null}"#, None, Some("10000"), "m");
        check(r#"{"__type":"ThrottlingException","message":"m"}"#, None, None, "m");
        check(r#"{"error":true,"message":"m","code":"c"}"#, None, Some("c"), "m");
        check(r#"{"error":{"msg":"m","code":7}}"#, None, Some("7"), "m");
        check(" Service Unavailable\n", None, None, "Service Unavailable");
        check("<html><h1>502</h1></html>", None, None, "<html><h1>502</h1></html>");
        check("", None, None, "");
    }

    #[test]
    fn members_that_say_success_are_no_error() {
        for body in [
            r#"{"error":null}"#,
            r#"{"error":{}}"#,
            r#"{"error":false}"#,
            r#"{"error":0}"#,
            r#"{"error":""}"#,
            r#"{"error":[]}"#,
            r#"{"error":"success"}"#,
            r#"{"error":{"message":"","type":"","param":"model","code":null}}"#,
            r#"{"error":{"message":null,"code":0,"details":[],"inner":{}}}"#,
            r#"{"error":{"message":"Success","code":"200"}}"#,
            r#"{"errors":[],"success":true}"#,
            r#"{"message":"m"}"#,
            r#"{"type":"status","message":"m"}"#,
            r#"{"type":"progress","message":"m","status":"running"}"#,
            r#"{"code":0,"message":"m"}"#,
            r#"{"code":"00000","msg":"m"}"#,
            r#"{"code":200,"message":"m"}"#,
            r#"{"code":20000,"message":"Success"}"#,
            r#"{"code":"Success","message":"m"}"#,
            r#"{"status":200,"message":"m"}"#,
            r#"{"error_code":0,"error_msg":"m"}"#,
            r#"{"errcode":0,"errmsg":"ok"}"#,
            r#"{"base_resp":{"status_code":0,"status_msg":""}}"#,
            r#"{"base_resp":{"status_code":0,"status_msg":"success"}}"#,
            r#"{"detail":null}"#,
            r#"{"detail":""}"#,
        ] {
            assert_eq!(find_error(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn codes_suggest_an_error_and_members_for_errors_report_it() {
        for (body, is_reported) in [
            (r#"{"error":"m"}"#, true),
            (r#"{"error":{"code":0,"message":"m"}}"#, true),
            (r#"{"error":{"message":"","type":"server_error"}}"#, true),
            (r#"{"error":{"why":1}}"#, true),
            (r#"{"detail":"m"}"#, true),
            (r#"{"type":"server_error","message":"m"}"#, true),
            (r#"{"object":"error","message":"m"}"#, true),
            (r#"{"base_resp":{"status_code":1004,"status_msg":""}}"#, true),
            (r#"{"error_msg":"m"}"#, true),
            (r#"{"code":7,"message":"m"}"#, false),
            (r#"{"code":"busy","msg":"m"}"#, false),
            (r#"{"statusCode":429,"message":"m"}"#, false),
            (r#"{"status":"error","message":"m"}"#, false),
            (r#"{"success":false,"message":"m"}"#, false),
        ] {
            assert!(find_error(body.as_bytes()).is_some(), "{body}");
            assert_eq!(find_reported_error(body.as_bytes()).is_some(), is_reported, "{body}");
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
