//! Translates a response into the UI message stream of the AI SDK's `useChat`, following the growing transcript.
//!
//! Pure. After each chunk, new content of the transcript is emitted as parts of text, reasoning and tool input. Events
//! that mark the response as complete (the last `-end`, complete tool inputs, `finish`, `[DONE]`) are emitted only at
//! the end, which is held back until the end is recorded.

use bytes::Bytes;
use serde_json::{Value, json};
use shared::event::{CUT_BY_BUDGET, STOPPED_BY_USER};

use crate::response::answer_events::AnswerEnd;
use crate::response::early_end::EarlyEnd;
use crate::response::transcript::Transcript;

/// The translation of one response.
#[derive(Debug)]
pub struct UiStream {
    message_id: String,
    has_started: bool,
    open: Option<(UiPartKind, String)>,
    parts: u32,
    /// The number of bytes of the transcript's text already emitted.
    text: usize,
    reasoning: usize,
    refusal: usize,
    calls: Vec<EmittedToolCall>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UiPartKind {
    Text,
    Reasoning,
}

impl UiPartKind {
    fn event_type(self, suffix: &str) -> String {
        let kind = match self {
            Self::Text => "text",
            Self::Reasoning => "reasoning",
        };
        format!("{kind}-{suffix}")
    }
}

#[derive(Debug)]
struct EmittedToolCall {
    id: String,
    arguments: usize,
}

impl UiStream {
    /// Makes a translation for the assistant message with this id.
    pub fn new(message_id: String) -> Self {
        Self {
            message_id,
            has_started: false,
            open: None,
            parts: 0,
            text: 0,
            reasoning: 0,
            refusal: 0,
            calls: Vec::new(),
        }
    }

    /// The id of the message.
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    /// Emits the content added to the transcript since the last call.
    pub fn advance(&mut self, transcript: &Transcript) -> Bytes {
        let mut writer = EventWriter::default();
        self.emit_new(transcript, &mut writer);
        writer.0.into()
    }

    /// Emits the end of a complete response.
    pub fn finish(&mut self, transcript: &Transcript) -> Bytes {
        self.finish_with(transcript, finish_reason(transcript))
    }

    fn finish_with(&mut self, transcript: &Transcript, reason: &str) -> Bytes {
        let mut writer = EventWriter::default();
        self.emit_new(transcript, &mut writer);
        self.close_part(&mut writer);
        for (call, emitted) in transcript.tool_calls.iter().zip(&self.calls) {
            let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
            match serde_json::from_str::<Value>(arguments) {
                Ok(input) => writer.event(&json!({
                    "type": "tool-input-available", "toolCallId": emitted.id, "toolName": call.name, "input": input,
                })),
                Err(error) => writer.event(&json!({
                    "type": "tool-input-error", "toolCallId": emitted.id, "toolName": call.name, "input": arguments,
                    "errorText": format!("the tool's input is not JSON: {error}"),
                })),
            }
        }
        writer.event(&json!({"type": "finish-step"}));
        writer.event(&json!({"type": "finish", "finishReason": reason}));
        writer.0.extend_from_slice(b"data: [DONE]\n\n");
        writer.0.into()
    }

    /// Emits the end of a failed response: an error and no `finish`. The page keeps the content emitted before.
    pub fn fail(&mut self, transcript: &Transcript, message: &str) -> Bytes {
        let mut writer = EventWriter::default();
        self.emit_new(transcript, &mut writer);
        self.close_part(&mut writer);
        writer.event(&json!({"type": "error", "errorText": message}));
        writer.0.into()
    }

    /// Emits the end of a response that the gateway ends before the provider does.
    pub fn end_early(&mut self, transcript: &Transcript, why: EarlyEnd) -> Bytes {
        match why {
            EarlyEnd::StoppedByUser => self.stop(transcript),
            EarlyEnd::CutByBudget => self.finish_with(transcript, "length"),
        }
    }

    /// Emits the end of a response that its user has stopped: `abort`, which is no error, and no `finish`.
    fn stop(&mut self, transcript: &Transcript) -> Bytes {
        let mut writer = EventWriter::default();
        self.emit_new(transcript, &mut writer);
        self.close_part(&mut writer);
        writer.event(&json!({"type": "abort"}));
        writer.0.extend_from_slice(b"data: [DONE]\n\n");
        writer.0.into()
    }

    /// Emits the rest of a recorded answer and its end. `read` is what [`Self::advance`] was given last. An answer that does not begin with
    /// what was emitted, or that is not on the record, ends with an error: this format cannot take anything back.
    pub fn finish_recorded(&mut self, read: &Transcript, recorded: Option<Transcript>, end: &AnswerEnd) -> Bytes {
        let is_complete = end.status == "completed";
        let answer = match recorded {
            Some(answer) if begins_with(&answer, read) => answer,
            // A record without texts.
            None if is_complete && !end.is_kept => return self.finish(read),
            _ => return self.fail(read, end.error.as_deref().unwrap_or("the answer was lost")),
        };
        match (is_complete, answer.finish_reason.as_deref()) {
            (true, Some(STOPPED_BY_USER)) => self.stop(&answer),
            (true, _) => self.finish(&answer),
            (false, _) => self.fail(&answer, end.error.as_deref().unwrap_or("the answer broke off")),
        }
    }

    fn emit_new(&mut self, transcript: &Transcript, writer: &mut EventWriter) {
        if !self.has_started {
            self.has_started = true;
            writer.event(&json!({"type": "start", "messageId": self.message_id}));
            writer.event(&json!({"type": "start-step"}));
        }
        let reasoning = take_new(&transcript.reasoning, &mut self.reasoning);
        self.emit_text(UiPartKind::Reasoning, reasoning, writer);
        let text = take_new(&transcript.text, &mut self.text);
        self.emit_text(UiPartKind::Text, text, writer);
        let refusal = take_new(&transcript.refusal, &mut self.refusal);
        self.emit_text(UiPartKind::Text, refusal, writer);
        for (index, call) in transcript.tool_calls.iter().enumerate() {
            if index == self.calls.len() {
                if call.name.is_empty() {
                    // The name has not arrived yet.
                    return;
                }
                self.close_part(writer);
                let id = if call.id.is_empty() { format!("call-{index}") } else { call.id.clone() };
                writer.event(&json!({"type": "tool-input-start", "toolCallId": id, "toolName": call.name}));
                self.calls.push(EmittedToolCall { id, arguments: 0 });
            }
            let emitted = &mut self.calls[index];
            let arguments = take_new(&call.arguments, &mut emitted.arguments);
            if !arguments.is_empty() {
                let delta = json!({"type": "tool-input-delta", "toolCallId": emitted.id, "inputTextDelta": arguments});
                writer.event(&delta);
            }
        }
    }

    fn emit_text(&mut self, kind: UiPartKind, text: &str, writer: &mut EventWriter) {
        if text.is_empty() {
            return;
        }
        if self.open.as_ref().is_some_and(|(open, _)| *open != kind) {
            self.close_part(writer);
        }
        let parts = &mut self.parts;
        let (_, id) = self.open.get_or_insert_with(|| {
            let id = parts.to_string();
            *parts += 1;
            writer.event(&json!({"type": kind.event_type("start"), "id": id}));
            (kind, id)
        });
        writer.event(&json!({"type": kind.event_type("delta"), "id": id, "delta": text}));
    }

    fn close_part(&mut self, writer: &mut EventWriter) {
        if let Some((kind, id)) = self.open.take() {
            writer.event(&json!({"type": kind.event_type("end"), "id": id}));
        }
    }
}

/// True if an answer goes on from what was read of it.
fn begins_with(answer: &Transcript, read: &Transcript) -> bool {
    let calls = answer.tool_calls.iter().map(Some).chain(std::iter::repeat(None));
    let mut calls = read.tool_calls.iter().zip(calls);
    answer.text.starts_with(&read.text)
        && answer.reasoning.starts_with(&read.reasoning)
        && answer.refusal.starts_with(&read.refusal)
        && calls.all(|(read, call)| {
            call.is_some_and(|call| call.name == read.name && call.arguments.starts_with(&read.arguments))
        })
}

/// The part of a text that has not been emitted yet.
fn take_new<'a>(text: &'a str, emitted: &mut usize) -> &'a str {
    let new = text.get(*emitted..).unwrap_or("");
    *emitted += new.len();
    new
}

/// The AI SDK's name for the transcript's finish reason.
fn finish_reason(transcript: &Transcript) -> &'static str {
    match transcript.finish_reason.as_deref() {
        Some("stop" | "end_turn" | "stop_sequence" | "completed") => "stop",
        Some("length" | "max_tokens" | "max_output_tokens" | CUT_BY_BUDGET) => "length",
        Some("content_filter" | "refusal") => "content-filter",
        Some("tool_calls" | "function_call" | "tool_use") => "tool-calls",
        _ => "other",
    }
}

#[derive(Default)]
struct EventWriter(Vec<u8>);

impl EventWriter {
    fn event(&mut self, event: &Value) {
        self.0.extend_from_slice(b"data: ");
        self.0.extend_from_slice(event.to_string().as_bytes());
        self.0.extend_from_slice(b"\n\n");
    }
}

#[cfg(test)]
mod tests {
    use shared::event::ToolCall;

    use super::*;
    use crate::response::transcript::TranscriptPart;

    fn events(bytes: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(bytes).unwrap();
        let data = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
    }

    #[test]
    fn an_answer_is_emitted_as_it_grows() {
        let mut stream = UiStream::new("m1".into());
        let mut transcript = Transcript::default();
        let start = [json!({"type": "start", "messageId": "m1"}), json!({"type": "start-step"})];
        assert_eq!(events(&stream.advance(&transcript)), start);
        assert!(stream.advance(&transcript).is_empty());
        transcript.append(TranscriptPart::Reasoning, "hm");
        let expected = [
            json!({"type": "reasoning-start", "id": "0"}),
            json!({"type": "reasoning-delta", "id": "0", "delta": "hm"}),
        ];
        assert_eq!(events(&stream.advance(&transcript)), expected);
        transcript.append(TranscriptPart::Text, "é");
        let expected = [
            json!({"type": "reasoning-end", "id": "0"}),
            json!({"type": "text-start", "id": "1"}),
            json!({"type": "text-delta", "id": "1", "delta": "é"}),
        ];
        assert_eq!(events(&stream.advance(&transcript)), expected);
        transcript.append(TranscriptPart::Text, "!");
        assert_eq!(events(&stream.advance(&transcript)), [json!({"type": "text-delta", "id": "1", "delta": "!"})]);
        transcript.finish_reason = Some("stop".into());
        let expected = [
            json!({"type": "text-end", "id": "1"}),
            json!({"type": "finish-step"}),
            json!({"type": "finish", "finishReason": "stop"}),
            json!("[DONE]"),
        ];
        assert_eq!(events(&stream.finish(&transcript)), expected);
    }

    #[test]
    fn tool_calls_are_completed_at_the_end() {
        let mut stream = UiStream::new("m1".into());
        let mut transcript = Transcript::default();
        transcript.tool_calls.push(ToolCall { id: "c1".into(), name: String::new(), arguments: String::new() });
        stream.advance(&transcript);
        transcript.tool_calls[0].name = "weather".into();
        transcript.tool_calls[0].arguments = "{\"city\":".into();
        let expected = [
            json!({"type": "tool-input-start", "toolCallId": "c1", "toolName": "weather"}),
            json!({"type": "tool-input-delta", "toolCallId": "c1", "inputTextDelta": "{\"city\":"}),
        ];
        assert_eq!(events(&stream.advance(&transcript)), expected);
        transcript.tool_calls[0].arguments.push_str("\"Köln\"}");
        transcript.tool_calls.push(ToolCall { id: String::new(), name: "time".into(), arguments: "{".into() });
        transcript.finish_reason = Some("tool_calls".into());
        let emitted = events(&stream.finish(&transcript));
        assert!(emitted.contains(&json!({
            "type": "tool-input-available", "toolCallId": "c1", "toolName": "weather", "input": {"city": "Köln"},
        })));
        assert!(emitted.iter().any(|event| event["type"] == "tool-input-error" && event["toolCallId"] == "call-1"));
        assert_eq!(emitted[emitted.len() - 2]["finishReason"], "tool-calls");
    }

    #[test]
    fn a_failed_answer_ends_with_an_error_and_no_finish() {
        let mut stream = UiStream::new("m1".into());
        let mut transcript = Transcript::default();
        transcript.append(TranscriptPart::Text, "half");
        let emitted = events(&stream.fail(&transcript, "the answer broke off"));
        assert_eq!(emitted.last().unwrap(), &json!({"type": "error", "errorText": "the answer broke off"}));
        assert!(emitted.iter().all(|event| event["type"] != "finish" && *event != json!("[DONE]")));
        assert!(emitted.contains(&json!({"type": "text-delta", "id": "0", "delta": "half"})));
    }
}
