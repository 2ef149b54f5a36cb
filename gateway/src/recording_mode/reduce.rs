//! Events without the parts that their mode leaves out.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use shared::event::{
    AssistantMessage, ChatFailed, ChatStarted, Event, MessageCompleted, Operation, OtherChoice, RecordingMode,
    ToolCall, UpstreamAnswer,
};
use shared::usage::Usage;

use super::json;

/// The maximum length of an id or a word of a provider or a tool, in bytes.
const MAX_IDENTIFIER_BYTES: usize = 128;

/// Takes everything out of the event of a call that the event's own mode does not keep. Other events stay as they are.
pub fn reduce(event: &mut Event) {
    match event {
        Event::ChatStarted(started) if !started.recording.is_full() => reduce_start(started),
        Event::MessageCompleted(completed) if !completed.recording.is_full() => reduce_completed(completed),
        Event::ChatFailed(failed) if !failed.recording.is_full() => reduce_failed(failed),
        _ => {}
    }
}

fn reduce_start(started: &mut ChatStarted) {
    let mode = started.recording;
    started.messages = None;
    for message in &mut started.new_messages {
        message.text = String::new();
        message.tool_call_id =
            message.tool_call_id.take().filter(|id| mode == RecordingMode::Metadata && is_identifier(id));
    }
    if mode == RecordingMode::Metadata {
        started.parameters = match started.operation {
            Operation::PassThrough => method_and_path(&started.parameters),
            _ => json::settings(&started.parameters),
        };
    } else {
        started.parameters = json::empty_object();
        started.temperature = None;
        started.client_thread_id = None;
        started.caller_metadata = None;
    }
}

fn reduce_completed(completed: &mut MessageCompleted) {
    if let Some(message) = &mut completed.message {
        reduce_answer(message, completed.recording);
    }
    reduce_usage(&mut completed.usage);
    reduce_upstream(&mut completed.upstream);
}

fn reduce_failed(failed: &mut ChatFailed) {
    if let Some(message) = &mut failed.message {
        reduce_answer(message, failed.recording);
    }
    reduce_usage(&mut failed.usage);
    if let Some(upstream) = &mut failed.upstream {
        reduce_upstream(upstream);
    }
    failed.error.message = String::new();
    keep_identifier(&mut failed.error.kind);
    keep_identifier(&mut failed.error.code);
}

fn reduce_answer(message: &mut AssistantMessage, mode: RecordingMode) {
    let choices = std::mem::take(&mut message.other_choices).into_iter();
    *message = AssistantMessage {
        id: message.id,
        text: String::new(),
        reasoning: None,
        refusal: None,
        audio_transcript: None,
        tool_calls: reduced_tool_calls(std::mem::take(&mut message.tool_calls), mode),
        server_tool_calls: message.server_tool_calls,
        other_choices: choices.map(|choice| reduced_choice(choice, mode)).collect(),
        finish_reason: message.finish_reason.take().filter(|reason| is_identifier(reason)),
        truncated: message.truncated,
    };
}

fn reduced_choice(choice: OtherChoice, mode: RecordingMode) -> OtherChoice {
    OtherChoice {
        index: choice.index,
        text: String::new(),
        reasoning: None,
        refusal: None,
        audio_transcript: None,
        tool_calls: reduced_tool_calls(choice.tool_calls, mode),
        finish_reason: choice.finish_reason.filter(|reason| is_identifier(reason)),
    }
}

/// Returns the calls of tools with their ids and names alone; none in the mode `none`.
fn reduced_tool_calls(calls: Vec<ToolCall>, mode: RecordingMode) -> Vec<ToolCall> {
    if mode != RecordingMode::Metadata {
        return Vec::new();
    }
    let identifier = |text: String| Some(text).filter(|text| is_identifier(text)).unwrap_or_default();
    let reduced =
        |call: ToolCall| ToolCall { id: identifier(call.id), name: identifier(call.name), arguments: String::new() };
    calls.into_iter().map(reduced).collect()
}

fn reduce_usage(usage: &mut Usage) {
    usage.raw = usage.raw.take().map(|raw| json::counts(&raw));
}

fn reduce_upstream(upstream: &mut UpstreamAnswer) {
    keep_identifier(&mut upstream.response_id);
}

fn keep_identifier(text: &mut Option<String>) {
    *text = text.take().filter(|text| is_identifier(text));
}

/// Returns true for an id or a word: short, and without blanks.
fn is_identifier(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (1..=MAX_IDENTIFIER_BYTES).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Returns the method and the path of a request that passed as it was, without the query.
fn method_and_path(parameters: &RawValue) -> Box<RawValue> {
    #[derive(Deserialize)]
    struct Passed {
        method: String,
        path: String,
    }
    let passed = serde_json::from_str::<Passed>(parameters.get());
    let without_query = passed
        .map(|Passed { method, path }| json!({"method": method, "path": path.split('?').next().unwrap_or_default()}));
    without_query.and_then(|kept| to_raw_value(&kept)).unwrap_or_else(|_| json::empty_object())
}

#[cfg(test)]
mod tests {
    use shared::event::EventKind;

    use super::*;

    /// Events as a gateway without a mode would record them: every text has the word `secret`, what `metadata` keeps has `kept`.
    fn events(mode: &str) -> [Event; 3] {
        let common = json!({
            "chat_id": "0193e7a2-7c1b-7d3e-9a44-0c5a3f1b2e10", "operation": "chat", "user_id": "ann", "gateway": "g",
            "started_at": "2026-01-01T00:00:00Z", "model": "m", "recording": mode,
        });
        let call = json!([{"id": "kept-call", "name": "kept_tool", "arguments": "secret"},
                          {"id": "a secret", "name": "", "arguments": ""}]);
        let message = json!({
            "id": "0193e7a2-7c1b-7d3e-9a44-0c5a3f1b2e11", "text": "secret", "reasoning": "secret", "refusal": "secret",
            "audio_transcript": "secret", "tool_calls": call, "server_tool_calls": 3, "finish_reason": "stop", "truncated": true,
            "other_choices": [{"index": 1, "text": "secret", "reasoning": "secret", "refusal": "secret",
                               "audio_transcript": "secret", "tool_calls": call, "finish_reason": "a secret"}],
        });
        let usage = json!({
            "source": "reported", "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "raw": {"n_tokens": 1, "x": "secret", "secret": 1},
            "parts": {"uncached_input": 1, "cache_read": 0, "cache_write": 0, "output": 2, "reasoning": 0},
        });
        let upstream = json!({"name": "u", "model": "m-1", "response_id": "resp_1"});
        let ended = json!({"message": message, "usage": usage, "upstream": upstream, "duration_ms": 5, "attempts": [],
                           "notes": ["text_mended"]});
        let started = json!({
            "client_thread_id": "kept thread", "dialect": "openai_chat", "stream": true, "temperature": 0.5,
            "parameters": {"max_tokens": 7, "instructions": "secret"}, "messages": "secret",
            "caller_metadata": {"user": "kept user", "metadata": {"a": "kept"}, "tags": ["kept"]},
            "new_messages": [{"id": "0193e7a2-7c1b-7d3e-9a44-0c5a3f1b2e12", "role": "tool", "text": "secret", "tool_call_id": "kept-id"},
                             {"id": "0193e7a2-7c1b-7d3e-9a44-0c5a3f1b2e13", "role": "user", "text": "secret"}],
        });
        let completed = json!({"finished_at": "2026-01-01T00:00:01Z"});
        let error = json!({"status": 400, "type": "invalid_request_error", "code": "a secret", "message": "secret"});
        let failed = json!({"failed_at": "2026-01-01T00:00:01Z", "stage": "upstream_status", "error": error});
        let event = |kind: EventKind, parts: &[&serde_json::Value]| {
            let members = parts.iter().flat_map(|part| part.as_object().unwrap().clone());
            let payload = serde_json::Value::Object(members.collect());
            Event::decode(kind, &serde_json::to_vec(&payload).unwrap()).unwrap()
        };
        [
            event(EventKind::ChatStarted, &[&common, &started]),
            event(EventKind::MessageCompleted, &[&common, &ended, &completed]),
            event(EventKind::ChatFailed, &[&common, &ended, &failed]),
        ]
    }

    fn encoded(event: &Event) -> String {
        String::from_utf8(event.encode().unwrap()).unwrap()
    }

    #[test]
    fn no_text_is_left_and_everything_else_stays() {
        for mode in ["metadata", "none"] {
            for mut event in events(mode) {
                assert!(encoded(&event).contains("secret"));
                reduce(&mut event);
                let json = encoded(&event);
                assert!(!json.contains("secret"), "{mode}: {json}");
                let keeps_names = mode == "metadata";
                assert_eq!(json.contains("kept"), keeps_names, "{mode}: {json}");
                assert!(json.contains(&format!(r#""recording":"{mode}""#)), "{json}");
                match &event {
                    Event::ChatStarted(started) => {
                        assert_eq!(started.new_messages.len(), 2);
                        assert_eq!(started.new_messages[0].role, "tool");
                        let settings = if keeps_names { r#"{"max_tokens":7}"# } else { "{}" };
                        assert_eq!(started.parameters.get(), settings);
                        assert_eq!(started.temperature.is_some(), keeps_names);
                    }
                    Event::MessageCompleted(_) | Event::ChatFailed(_) => {
                        for kept in [
                            r#""total_tokens":3"#,
                            r#""raw":{"n_tokens":1}"#,
                            r#""server_tool_calls":3"#,
                            r#""truncated":true"#,
                            r#""finish_reason":"stop""#,
                            r#""index":1"#,
                            r#""response_id":"resp_1""#,
                            "text_mended",
                        ] {
                            assert!(json.contains(kept), "{mode}: {kept} in {json}");
                        }
                    }
                    _ => unreachable!(),
                }
                if let Event::ChatFailed(failed) = &event {
                    assert_eq!(
                        (failed.error.status, failed.error.kind.as_deref()),
                        (Some(400), Some("invalid_request_error"))
                    );
                }
            }
        }
    }

    #[test]
    fn the_mode_full_changes_nothing() {
        for event in events("full") {
            let mut reduced = event.clone();
            reduce(&mut reduced);
            assert_eq!(encoded(&reduced), encoded(&event));
        }
    }

    #[test]
    fn a_path_that_passed_is_kept_without_its_query() {
        let passed = to_raw_value(&json!({"method": "GET", "path": "/v1/files?q=secret"})).unwrap();
        assert_eq!(method_and_path(&passed).get(), r#"{"method":"GET","path":"/v1/files"}"#);
        assert_eq!(method_and_path(RawValue::NULL).get(), "{}");
    }
}
