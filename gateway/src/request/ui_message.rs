//! Converts requests of the AI SDK's `useChat` into OpenAI chat completions, so that upstreams understand them.
//!
//! Pure. `{id, messages: [{role, parts}], trigger, messageId, ...}` becomes a chat completion: parts become contents,
//! tool calls and tool results, as in the SDK's own conversion. `id` is the client's thread id. All other members are
//! passed on unchanged.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::json::broken_text;
use crate::request::ambiguous_members;
use crate::request::invalid_request::{InvalidRequest, invalid_member};

/// The maximum length of a thread id or message id.
const MAX_ID_BYTES: usize = 256;

/// A converted `useChat` request.
#[derive(Debug, PartialEq)]
pub struct UiRequest {
    /// The body as a chat completion request.
    pub body: Bytes,
    /// The client's thread id.
    pub thread_id: Option<String>,
    /// The id of the assistant message that the response continues. Set if the last message is the assistant's, which
    /// is the case after the client has added the results of tool calls.
    pub continued_message_id: Option<String>,
    /// True if the client asks for another response to a user message that is already recorded.
    pub is_regeneration: bool,
}

#[derive(Deserialize)]
struct UiBody {
    #[serde(default)]
    id: Option<String>,
    messages: Vec<UiMessage>,
    #[serde(default)]
    trigger: Option<String>,
    #[serde(default, rename = "messageId")]
    _message_id: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct UiMessage {
    #[serde(default)]
    id: Option<String>,
    role: String,
    parts: Vec<UiPart>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UiPart {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    media_type: Option<String>,
    filename: Option<String>,
    url: Option<String>,
    tool_name: Option<String>,
    tool_call_id: Option<String>,
    state: Option<String>,
    input: Option<Value>,
    output: Option<Value>,
    error_text: Option<String>,
    provider_executed: Option<bool>,
}

/// Converts a request body. `None` if the body is not a `useChat` request, which is recognized by messages with parts.
///
/// Text that is not valid Unicode is converted as sent, see [`broken_text`]; in ids it is mended.
pub fn parse(body: &[u8]) -> Result<Option<UiRequest>, InvalidRequest> {
    if memchr::memmem::find(body, b"\"parts\"").is_none() {
        return Ok(None);
    }
    if broken_text::intact(body).is_some()
        && let Some(request) = convert(body)?
    {
        return Ok(Some(request));
    }
    // Also for bodies with escapes that do not exist, which are not JSON until they are protected.
    let Ok(protected) = broken_text::protect(body) else { return Ok(None) };
    let Some(request) = convert(protected.as_bytes())? else { return Ok(None) };
    let restored = |text: &[u8]| broken_text::restore(&String::from_utf8_lossy(text));
    let mended = |id: String| String::from_utf8_lossy(&broken_text::mend(&restored(id.as_bytes()))).into_owned();
    Ok(Some(UiRequest {
        body: restored(&request.body).into(),
        thread_id: request.thread_id.map(mended),
        continued_message_id: request.continued_message_id.map(mended),
        ..request
    }))
}

/// Converts a body of valid text. `None` if the body is not a `useChat` request.
fn convert(body: &[u8]) -> Result<Option<UiRequest>, InvalidRequest> {
    if !is_ui_request(body) {
        return Ok(None);
    }
    let members = serde_json::from_slice(body).unwrap_or_default();
    ambiguous_members::refuse(&members)?;
    let expected = "expected UI messages: objects with a role and a list of parts, each with a type";
    let body: UiBody =
        serde_json::from_slice(body).map_err(|error| invalid_member("messages", &format!("{expected}: {error}")))?;
    let thread_id = body.id.filter(|id| !id.is_empty());
    if thread_id.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
        return Err(invalid_member("id", &format!("expected a thread's name of at most {MAX_ID_BYTES} bytes")));
    }
    let mut messages = Vec::new();
    for (message_index, message) in body.messages.iter().enumerate() {
        match message.role.as_str() {
            "assistant" => push_assistant_messages(&message.parts, &mut messages),
            "user" => messages.push(json!({"role": "user", "content": user_content(message_index, &message.parts)?})),
            "system" => messages.push(json!({"role": "system", "content": joined_text(&message.parts)})),
            other => {
                let found = format!(
                    "expected the role user, assistant or system at messages[{message_index}], found {other:?}"
                );
                return Err(invalid_member("messages", &found));
            }
        }
    }
    let last = body.messages.last().filter(|last| last.role == "assistant");
    let continued_message_id = last.and_then(|last| last.id.clone()).filter(|id| id.len() <= MAX_ID_BYTES);
    let mut request = body.rest;
    request.insert("messages".to_owned(), Value::Array(messages));
    request.insert("stream".to_owned(), true.into());
    Ok(Some(UiRequest {
        body: Value::Object(request).to_string().into(),
        thread_id,
        continued_message_id,
        is_regeneration: body.trigger.as_deref() == Some("regenerate-message"),
    }))
}

/// True if the body contains UI messages. A malformed body is not a UI request: the parser of chat completions reports
/// the error.
fn is_ui_request(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(default)]
        messages: Vec<ProbeMessage>,
    }
    #[derive(Deserialize)]
    struct ProbeMessage {
        #[serde(default)]
        parts: Option<Vec<serde::de::IgnoredAny>>,
        #[serde(default)]
        content: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Probe>(body)
        .is_ok_and(|probe| probe.messages.iter().any(|message| message.parts.is_some() && message.content.is_none()))
}

fn joined_text(parts: &[UiPart]) -> String {
    parts.iter().filter(|part| part.kind == "text").filter_map(|part| part.text.as_deref()).collect()
}

/// The content of a user message: a plain string if the only part is text.
fn user_content(message_index: usize, parts: &[UiPart]) -> Result<Value, InvalidRequest> {
    let mut contents = Vec::new();
    for (part_index, part) in parts.iter().enumerate() {
        match part.kind.as_str() {
            "text" => contents.push(json!({"type": "text", "text": part.text.as_deref().unwrap_or("")})),
            "file" => contents.push(file_content(part).ok_or_else(|| {
                let expected = "expected a file with a mediaType and a url: an image, or anything in a data URL";
                invalid_member("messages", &format!("{expected}, at messages[{message_index}].parts[{part_index}]"))
            })?),
            // Other parts, such as `data-*`, carry data for the page only.
            _ => {}
        }
    }
    Ok(match &contents[..] {
        [] => Value::from(""),
        [only] if only["type"] == "text" => only["text"].clone(),
        _ => Value::Array(contents),
    })
}

fn file_content(part: &UiPart) -> Option<Value> {
    let (kind, url) = (part.media_type.as_deref()?, part.url.as_deref()?);
    if kind.starts_with("image/") {
        return Some(json!({"type": "image_url", "image_url": {"url": url}}));
    }
    let (_, data) = url.strip_prefix("data:")?.split_once(";base64,")?;
    let format = match kind {
        "audio/wav" | "audio/x-wav" => Some("wav"),
        "audio/mpeg" | "audio/mp3" => Some("mp3"),
        _ => None,
    };
    Some(match format {
        Some(format) => json!({"type": "input_audio", "input_audio": {"data": data, "format": format}}),
        None => {
            let name = part.filename.as_deref().unwrap_or("file");
            json!({"type": "file", "file": {"filename": name, "file_data": url}})
        }
    })
}

/// Converts an assistant message: per step its text and tool calls, followed by the results of the tool calls.
fn push_assistant_messages(parts: &[UiPart], messages: &mut Vec<Value>) {
    for step in parts.split(|part| part.kind == "step-start") {
        let text = joined_text(step);
        let (mut calls, mut results) = (Vec::new(), Vec::new());
        for part in step {
            let Some((name, id, content)) = tool_result(part) else { continue };
            let arguments = part.input.as_ref().map_or_else(|| "{}".to_owned(), Value::to_string);
            calls.push(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}));
            results.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
        }
        if text.is_empty() && calls.is_empty() {
            continue;
        }
        let mut message = json!({"role": "assistant", "content": text});
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        messages.push(message);
        messages.append(&mut results);
    }
}

/// The name, id and result of a completed tool call. `None` for a call without a result: upstreams reject such a call.
fn tool_result(part: &UiPart) -> Option<(&str, &str, String)> {
    let name = match part.kind.strip_prefix("tool-") {
        Some(name) => name,
        None if part.kind == "dynamic-tool" => part.tool_name.as_deref()?,
        None => return None,
    };
    if part.provider_executed == Some(true) {
        return None;
    }
    let content = match part.state.as_deref() {
        Some("output-available") => match part.output.as_ref() {
            Some(Value::String(text)) => text.clone(),
            Some(output) => output.to_string(),
            None => "null".to_owned(),
        },
        Some("output-error") => part.error_text.clone().unwrap_or_default(),
        Some("output-denied") => "the user did not allow this call".to_owned(),
        _ => return None,
    };
    Some((name, part.tool_call_id.as_deref()?, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(body: &Value) -> Value {
        let request = parse(body.to_string().as_bytes()).unwrap().unwrap();
        serde_json::from_slice::<Value>(&request.body).unwrap()["messages"].clone()
    }

    #[test]
    fn a_request_of_use_chat_becomes_a_chat_completion() {
        let body = json!({
            "id": "thread-1", "trigger": "submit-message", "messageId": null, "model": "m", "temperature": 0.5,
            "messages": [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}],
        });
        let request = parse(body.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(request.thread_id.as_deref(), Some("thread-1"));
        assert_eq!((request.continued_message_id, request.is_regeneration), (None, false));
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        let expected = json!({
            "model": "m", "temperature": 0.5, "messages": [{"role": "user", "content": "hi"}], "stream": true,
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn steps_tools_and_files_become_messages() {
        let body = json!({"id": "t", "trigger": "regenerate-message", "messages": [
            {"id": "s", "role": "system", "parts": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
            {"id": "u", "role": "user", "parts": [
                {"type": "text", "text": "look"},
                {"type": "file", "mediaType": "image/png", "url": "https://h/a.png"},
                {"type": "file", "mediaType": "application/pdf", "filename": "a.pdf", "url": "data:application/pdf;base64,AA=="},
                {"type": "file", "mediaType": "audio/wav", "url": "data:audio/wav;base64,BB=="},
                {"type": "data-mood", "data": {"x": 1}}]},
            {"id": "a", "role": "assistant", "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "text": "hm"},
                {"type": "text", "text": "let me see"},
                {"type": "tool-weather", "toolCallId": "c1", "state": "output-available", "input": {"city": "Köln"}, "output": {"t": 20}},
                {"type": "dynamic-tool", "toolName": "time", "toolCallId": "c2", "state": "output-error", "input": {}, "errorText": "no clock"},
                {"type": "tool-late", "toolCallId": "c3", "state": "input-available", "input": {}},
                {"type": "step-start"},
                {"type": "text", "text": "20 degrees"}]},
        ]});
        let expected = json!([
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://h/a.png"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
                {"type": "input_audio", "input_audio": {"data": "BB==", "format": "wav"}}]},
            {"role": "assistant", "content": "let me see", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Köln\"}"}},
                {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "{\"t\":20}"},
            {"role": "tool", "tool_call_id": "c2", "content": "no clock"},
            {"role": "assistant", "content": "20 degrees"},
        ]);
        assert_eq!(messages(&body), expected);
        let request = parse(body.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(request.continued_message_id.as_deref(), Some("a"));
        assert!(request.is_regeneration);
    }

    #[test]
    fn other_bodies_are_not_ui_requests_and_mistakes_are_named() {
        let others = [
            r#"{"messages":[{"role":"user","content":"\"parts\""}]}"#,
            r#"{"messages":[{"role":"user","content":"x","parts":[]}]}"#,
            r#"{"parts":1}"#,
            "not json \"parts\"",
        ];
        for other in others {
            assert_eq!(parse(other.as_bytes()), Ok(None), "{other}");
        }
        let wrong = [
            (
                json!([{"role": "robot", "parts": []}]),
                "messages: expected the role user, assistant or system at messages[0]",
            ),
            (json!([{"role": "user", "parts": [{"type": 7}]}]), "messages: expected UI messages"),
            (
                json!([{"role": "user", "parts": [{"type": "file", "mediaType": "text/plain", "url": "https://h/x"}]}]),
                "messages: expected a file with a mediaType and a url: an image, or anything in a data URL, at messages[0].parts[0]",
            ),
        ];
        for (messages, expected) in wrong {
            let error = parse(json!({"messages": messages}).to_string().as_bytes()).unwrap_err();
            assert!(error.message.starts_with(expected), "{error}");
        }
    }
}
