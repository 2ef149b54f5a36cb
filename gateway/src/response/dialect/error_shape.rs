//! Parses errors in the shapes that providers use: the error objects of OpenAI and Anthropic, a plain text in place of
//! the object with the type or the message beside it, a `detail`, a `message` with a code, the status objects of MiniMax and
//! Baidu, the exceptions of Amazon Bedrock, a list with one of these, the same in an event stream, plain text, or HTML.
//!
//! Members that say success are no error: a code of 0 or 200, an error object whose members are empty, or the message of
//! a status without a code.

use std::borrow::Cow;
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
    message: Option<&'a RawValue>,
    #[serde(default, borrow)]
    msg: Text<'a>,
    /// The message beside an error code that is a text under `error`.
    #[serde(default, borrow)]
    error_description: Text<'a>,
    #[serde(default, borrow)]
    error_msg: Text<'a>,
    #[serde(default, borrow)]
    errmsg: Text<'a>,
    #[serde(default, rename = "type", deserialize_with = "text_or_json")]
    kind: Option<String>,
    #[serde(default, rename = "__type", deserialize_with = "text_or_json")]
    amazon_kind: Option<String>,
    /// The type of Hugging Face, beside a text under `error`.
    #[serde(default, deserialize_with = "text_or_json")]
    error_type: Option<String>,
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
    let Some(message) = body.message_text() else { return exception_in(json) };
    let evidence = body.evidence(&message);
    Some((evidence, body.with_message(&message, body.code())))
}

/// Finds an error that is the only member of an object and has the name of an exception, as Amazon Bedrock sends.
fn exception_in(json: &[u8]) -> Option<(Evidence, ChatError)> {
    let Members(members) = serde_json::from_slice(json).ok()?;
    let [(name, value)] = &members[..] else { return None };
    let error = parse_error_member(value).filter(|_| name.ends_with("Exception"))?;
    let kind = error.kind.or_else(|| Some(bounded_identifier(name.to_string())));
    Some((Evidence::ErrorMember, ChatError { kind, ..error }))
}

impl ErrorBody<'_> {
    /// The error in `error`, `base_resp`, `errors` or `detail`.
    fn error_member(&self) -> Option<ChatError> {
        if let Some(error) = self.error.and_then(parse_error_member) {
            return Some(self.with_members_beside(error));
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
        let Some(error) = parse_error_member(detail) else {
            return Some(self.with_message(&text_of(detail), self.code()));
        };
        let kind = error.kind.or_else(|| self.kind.clone().map(bounded_identifier));
        let code = error.code.or_else(|| self.code().map(str::to_owned).map(bounded_identifier));
        Some(ChatError { kind, code, ..error })
    }

    /// The error under `error` with what stands beside it. xAI sends the message in `error` and the code beside `error`. Others
    /// send `true`, a type or a code, and the message beside.
    fn with_members_beside(&self, error: ChatError) -> ChatError {
        let code = error.code.clone().or_else(|| self.code().map(str::to_owned).map(bounded_identifier));
        if !self.error.is_some_and(|error| matches!(error.get().as_bytes(), [b'"', ..] | b"true")) {
            return ChatError { code, ..error };
        }
        let kind = self.error_type.clone().or(self.kind.clone().filter(|kind| kind != "error"));
        let beside = self.error_description.non_empty().map(Into::into).or_else(|| self.message_text());
        let (kind, message) = match beside.filter(|beside| *beside != error.message) {
            Some(beside) if error.message == "true" => (kind, bounded_message(&beside)),
            Some(beside) => (kind.or(Some(error.message)), bounded_message(&beside)),
            None => (kind, error.message),
        };
        ChatError { kind: kind.map(bounded_identifier), code, message, ..error }
    }

    /// The code: the first of the members for codes. Of the statuses, only those of errors.
    fn code(&self) -> Option<&str> {
        let codes = [&self.code, &self.error_code, &self.errcode].into_iter().find_map(Option::as_deref);
        let mut statuses = [&self.status_code, &self.status].into_iter().filter_map(Option::as_deref);
        codes.or_else(|| statuses.find(|status| is_error_status(status)))
    }

    /// The message outside the members for errors. Mistral sends an object.
    fn message_text(&self) -> Option<Cow<'_, str>> {
        let message = self.message.and_then(|message| match message.get().as_bytes() {
            [b'"', ..] => Some(Cow::Owned(text_of(message))),
            [b'{', ..] if self.is_named_error() => Some(Cow::Borrowed(message.get())),
            _ => None,
        });
        message.filter(|message| !message.is_empty()).or_else(|| self.msg.non_empty().map(Cow::Borrowed))
    }

    /// True if the object or its type is named an error.
    fn is_named_error(&self) -> bool {
        let kinds = [&self.kind, &self.amazon_kind].into_iter().flatten();
        let is_named_error = |kind: &String| {
            let kind = kind.to_ascii_lowercase();
            kind.contains("error") || kind.contains("exception")
        };
        self.object.non_empty() == Some("error") || kinds.into_iter().any(is_named_error)
    }

    /// The evidence that a message outside the members for errors is the message of an error.
    fn evidence(&self, message: &str) -> Evidence {
        if self.is_named_error() {
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
        let code = code.or(self.code()).map(str::to_owned);
        ChatError {
            status: None,
            kind: self.kind.clone().or(self.error_type.clone()).map(bounded_identifier),
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
        #[serde(default, deserialize_with = "text_or_json")]
        error_type: Option<String>,
        /// The status that Hugging Face sends in place of a code.
        #[serde(default, deserialize_with = "text_or_json")]
        http_status_code: Option<String>,
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
        kind: error.kind.or(error.error_type).map(bounded_identifier),
        code: error.code.or(error.http_status_code).map(bounded_identifier),
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
mod tests;
