//! The answer as the AI SDK's `useChat` reads it: the UI message stream, told from the growing transcript.
//!
//! Pure. What an upstream's chunk adds to the transcript becomes parts of text, reasoning and tool input. Everything that
//! says that the answer is complete (the last `-end`, complete tool inputs, `finish`, `[DONE]`) is kept for the end, which
//! is held back until it is on the record.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::response::transcript::Transcript;

/// The translation of one answer.
#[derive(Debug)]
pub struct UiStream {
    message_id: String,
    has_started: bool,
    open: Option<(PartKind, String)>,
    parts: u32,
    /// How much of each text has been told, in bytes.
    text: usize,
    reasoning: usize,
    refusal: usize,
    calls: Vec<ToldCall>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartKind {
    Text,
    Reasoning,
}

impl PartKind {
    fn event(self, what: &str) -> String {
        let kind = match self {
            Self::Text => "text",
            Self::Reasoning => "reasoning",
        };
        format!("{kind}-{what}")
    }
}

#[derive(Debug)]
struct ToldCall {
    id: String,
    arguments: usize,
}

impl UiStream {
    /// For an answer that becomes the message with this id.
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

    /// What is new in the transcript.
    pub fn advance(&mut self, transcript: &Transcript) -> Bytes {
        let mut out = Out::default();
        self.tell(transcript, &mut out);
        out.0.into()
    }

    /// The end of a complete answer.
    pub fn finish(&mut self, transcript: &Transcript) -> Bytes {
        let mut out = Out::default();
        self.tell(transcript, &mut out);
        self.close(&mut out);
        for (call, told) in transcript.tool_calls.iter().zip(&self.calls) {
            let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
            match serde_json::from_str::<Value>(arguments) {
                Ok(input) => out.event(&json!({
                    "type": "tool-input-available", "toolCallId": told.id, "toolName": call.name, "input": input,
                })),
                Err(error) => out.event(&json!({
                    "type": "tool-input-error", "toolCallId": told.id, "toolName": call.name, "input": arguments,
                    "errorText": format!("the tool's input is not JSON: {error}"),
                })),
            }
        }
        out.event(&json!({"type": "finish-step"}));
        out.event(&json!({"type": "finish", "finishReason": finish_reason(transcript)}));
        out.0.extend_from_slice(b"data: [DONE]\n\n");
        out.0.into()
    }

    /// The end of one that failed. There is no `finish`: to the page it is an error, and what came before it stays.
    pub fn fail(&mut self, transcript: &Transcript, message: &str) -> Bytes {
        let mut out = Out::default();
        self.tell(transcript, &mut out);
        self.close(&mut out);
        out.event(&json!({"type": "error", "errorText": message}));
        out.0.into()
    }

    fn tell(&mut self, transcript: &Transcript, out: &mut Out) {
        if !self.has_started {
            self.has_started = true;
            out.event(&json!({"type": "start", "messageId": self.message_id}));
            out.event(&json!({"type": "start-step"}));
        }
        let reasoning = new(&transcript.reasoning, &mut self.reasoning);
        self.part(PartKind::Reasoning, reasoning, out);
        let text = new(&transcript.text, &mut self.text);
        self.part(PartKind::Text, text, out);
        let refusal = new(&transcript.refusal, &mut self.refusal);
        self.part(PartKind::Text, refusal, out);
        for (place, call) in transcript.tool_calls.iter().enumerate() {
            if place == self.calls.len() {
                if call.name.is_empty() {
                    // Its name is still to come.
                    return;
                }
                self.close(out);
                let id = if call.id.is_empty() { format!("call-{place}") } else { call.id.clone() };
                out.event(&json!({"type": "tool-input-start", "toolCallId": id, "toolName": call.name}));
                self.calls.push(ToldCall { id, arguments: 0 });
            }
            let told = &mut self.calls[place];
            let arguments = new(&call.arguments, &mut told.arguments);
            if !arguments.is_empty() {
                let delta = json!({"type": "tool-input-delta", "toolCallId": told.id, "inputTextDelta": arguments});
                out.event(&delta);
            }
        }
    }

    fn part(&mut self, kind: PartKind, text: &str, out: &mut Out) {
        if text.is_empty() {
            return;
        }
        if self.open.as_ref().is_some_and(|(open, _)| *open != kind) {
            self.close(out);
        }
        let parts = &mut self.parts;
        let (_, id) = self.open.get_or_insert_with(|| {
            let id = parts.to_string();
            *parts += 1;
            out.event(&json!({"type": kind.event("start"), "id": id}));
            (kind, id)
        });
        out.event(&json!({"type": kind.event("delta"), "id": id, "delta": text}));
    }

    fn close(&mut self, out: &mut Out) {
        if let Some((kind, id)) = self.open.take() {
            out.event(&json!({"type": kind.event("end"), "id": id}));
        }
    }
}

/// What has been added to a text since it was told last.
fn new<'a>(text: &'a str, told: &mut usize) -> &'a str {
    let new = text.get(*told..).unwrap_or("");
    *told += new.len();
    new
}

/// The SDK's word for it.
fn finish_reason(transcript: &Transcript) -> &'static str {
    match transcript.finish_reason.as_deref() {
        Some("stop" | "end_turn" | "stop_sequence" | "completed") => "stop",
        Some("length" | "max_tokens" | "max_output_tokens") => "length",
        Some("content_filter" | "refusal") => "content-filter",
        Some("tool_calls" | "function_call" | "tool_use") => "tool-calls",
        _ => "other",
    }
}

#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
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
    use crate::response::transcript::Part;

    fn events(bytes: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(bytes).unwrap();
        let data = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
    }

    #[test]
    fn an_answer_is_told_as_it_grows() {
        let mut stream = UiStream::new("m1".into());
        let mut transcript = Transcript::default();
        let start = [json!({"type": "start", "messageId": "m1"}), json!({"type": "start-step"})];
        assert_eq!(events(&stream.advance(&transcript)), start);
        assert!(stream.advance(&transcript).is_empty());
        transcript.push(Part::Reasoning, "hm");
        let expected = [
            json!({"type": "reasoning-start", "id": "0"}),
            json!({"type": "reasoning-delta", "id": "0", "delta": "hm"}),
        ];
        assert_eq!(events(&stream.advance(&transcript)), expected);
        transcript.push(Part::Text, "é");
        let expected = [
            json!({"type": "reasoning-end", "id": "0"}),
            json!({"type": "text-start", "id": "1"}),
            json!({"type": "text-delta", "id": "1", "delta": "é"}),
        ];
        assert_eq!(events(&stream.advance(&transcript)), expected);
        transcript.push(Part::Text, "!");
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
    fn tool_calls_are_complete_at_the_end() {
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
        let told = events(&stream.finish(&transcript));
        assert!(told.contains(&json!({
            "type": "tool-input-available", "toolCallId": "c1", "toolName": "weather", "input": {"city": "Köln"},
        })));
        assert!(told.iter().any(|event| event["type"] == "tool-input-error" && event["toolCallId"] == "call-1"));
        assert_eq!(told[told.len() - 2]["finishReason"], "tool-calls");
    }

    #[test]
    fn a_failure_is_an_error_and_no_finish() {
        let mut stream = UiStream::new("m1".into());
        let mut transcript = Transcript::default();
        transcript.push(Part::Text, "half");
        let told = events(&stream.fail(&transcript, "the answer broke off"));
        assert_eq!(told.last().unwrap(), &json!({"type": "error", "errorText": "the answer broke off"}));
        assert!(told.iter().all(|event| event["type"] != "finish" && *event != json!("[DONE]")));
        assert!(told.contains(&json!({"type": "text-delta", "id": "0", "delta": "half"})));
    }
}
