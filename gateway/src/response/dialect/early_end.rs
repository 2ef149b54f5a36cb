//! The events with which a stream ends before the provider's end: those of an answer that its user has stopped look like a complete answer,
//! and those of an answer that a budget ends like one that has reached its maximum length. Clients end without an error.

use serde_json::{Value, json};

use super::Fold;
use super::anthropic_messages::MessagesFold;
use super::openai_responses::ResponsesFold;
use crate::response::early_end::EarlyEnd;
use crate::response::transcript::Transcript;

impl Fold {
    /// The final events of an event stream that ends here. `None` if the dialect has no clean end at this place.
    pub fn early_end(&self, why: EarlyEnd) -> Option<Vec<u8>> {
        let transcript = self.transcript();
        match self {
            Self::OpenaiChat(_) => {
                let choice = json!({"index": 0, "delta": {}, "finish_reason": why.word("stop", "length")});
                let mut chunk = json!({"object": "chat.completion.chunk", "created": 0, "choices": [choice]});
                name(&mut chunk, "id", transcript.response_id.as_deref());
                name(&mut chunk, "model", transcript.model.as_deref());
                Some(format!("data: {chunk}\n\ndata: [DONE]\n\n").into_bytes())
            }
            Self::OpenaiResponses(fold) => responses_end(fold, transcript, why),
            Self::AnthropicMessages(fold) => messages_end(fold, transcript, why),
            Self::GoogleGemini(_) => {
                let content = json!({"parts": [{"text": ""}], "role": "model"});
                let candidate = json!({"content": content, "finishReason": why.word("STOP", "MAX_TOKENS"), "index": 0});
                let mut chunk = json!({"candidates": [candidate]});
                name(&mut chunk, "modelVersion", transcript.model.as_deref());
                name(&mut chunk, "responseId", transcript.response_id.as_deref());
                Some(format!("data: {chunk}\n\n").into_bytes())
            }
            Self::OpenaiCall(_) => None,
        }
    }
}

/// `response.incomplete` with the part of the answer that has arrived. Before `response.created` there is no response to end.
fn responses_end(fold: &ResponsesFold, transcript: &Transcript, why: EarlyEnd) -> Option<Vec<u8>> {
    let id = transcript.response_id.as_deref()?;
    let mut output = Vec::new();
    if !transcript.text.is_empty() {
        let content = json!({"type": "output_text", "text": transcript.text, "annotations": []});
        output.push(json!({
            "type": "message", "id": format!("msg_{id}"), "status": "incomplete", "role": "assistant",
            "content": [content],
        }));
    }
    let usage = json!({
        "input_tokens": 0, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 0,
    });
    let response = json!({
        "id": id, "object": "response", "created_at": 0, "status": "incomplete", "error": null,
        "incomplete_details": {"reason": why.word("stopped_by_user", "max_output_tokens")}, "model": transcript.model.as_deref().unwrap_or(""),
        "output": output, "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "usage": usage,
    });
    let event =
        json!({"type": "response.incomplete", "sequence_number": fold.next_sequence_number(), "response": response});
    Some(format!("event: response.incomplete\ndata: {event}\n\n").into_bytes())
}

/// The end of the open block, `message_delta` and `message_stop`. Before `message_start` there is no message to end.
fn messages_end(fold: &MessagesFold, transcript: &Transcript, why: EarlyEnd) -> Option<Vec<u8>> {
    if !fold.has_started() {
        return None;
    }
    let mut events = String::new();
    let mut event = |kind: &str, event: &Value| events.push_str(&format!("event: {kind}\ndata: {event}\n\n"));
    if let Some(index) = fold.open_index() {
        event("content_block_stop", &json!({"type": "content_block_stop", "index": index}));
    }
    let usage = transcript.usage.as_ref().and_then(|usage| serde_json::from_str::<Value>(usage.get()).ok());
    let output_tokens = usage.and_then(|usage| usage["output_tokens"].as_u64()).unwrap_or(0);
    event(
        "message_delta",
        &json!({
            "type": "message_delta", "delta": {"stop_reason": why.word("end_turn", "max_tokens"), "stop_sequence": null},
            "usage": {"output_tokens": output_tokens},
        }),
    );
    event("message_stop", &json!({"type": "message_stop"}));
    Some(events.into_bytes())
}

/// Sets a member, if there is a value.
fn name(object: &mut Value, member: &str, value: Option<&str>) {
    if let Some(value) = value {
        object[member] = value.into();
    }
}

#[cfg(test)]
mod tests {
    use shared::event::DialectName;

    use super::*;
    use crate::response::sse::SseParser;
    use std::ops::ControlFlow;

    /// Folds a stream that is stopped at its end, and the end itself. Returns the end and the finish reason that a client reads.
    fn ended(dialect: DialectName, stream: &str, why: EarlyEnd) -> Option<(String, Option<String>)> {
        let (mut fold, mut parser) = (Fold::new(dialect), SseParser::default());
        let mut read = |fold: &mut Fold, bytes: &[u8]| {
            parser.feed(bytes, |event| {
                fold.fold_event(&event);
                ControlFlow::Continue(())
            });
        };
        read(&mut fold, stream.as_bytes());
        let end = fold.early_end(why)?;
        read(&mut fold, &end);
        assert!(fold.transcript().is_ended || dialect == DialectName::GoogleGemini);
        let (transcript, _) = fold.take_transcript();
        assert_eq!(transcript.notes, Vec::<&str>::new());
        assert_eq!(transcript.text, "half");
        Some((String::from_utf8(end).unwrap(), transcript.finish_reason))
    }

    fn stopped(dialect: DialectName, stream: &str) -> Option<(String, Option<String>)> {
        ended(dialect, stream, EarlyEnd::StoppedByUser)
    }

    fn reason_of_cut(dialect: DialectName, stream: &str) -> String {
        ended(dialect, stream, EarlyEnd::CutByBudget).unwrap().1.unwrap()
    }

    #[test]
    fn a_stopped_stream_ends_as_a_complete_one_in_each_dialect() {
        let chat =
            "data: {\"id\":\"c1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\n";
        let (end, reason) = stopped(DialectName::OpenaiChat, chat).unwrap();
        assert_eq!(reason.as_deref(), Some("stop"));
        assert!(end.contains("\"id\":\"c1\"") && end.ends_with("data: [DONE]\n\n"), "{end}");

        assert_eq!(reason_of_cut(DialectName::OpenaiChat, chat), "length");

        let created = "data: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r1\",\"model\":\"m\"}}\n\n";
        let delta = "data: {\"type\":\"response.output_text.delta\",\"sequence_number\":6,\"item_id\":\"i\",\"output_index\":0,\"delta\":\"half\"}\n\n";
        let (end, reason) = stopped(DialectName::OpenaiResponses, &format!("{created}{delta}")).unwrap();
        assert_eq!(reason.as_deref(), Some("stopped_by_user"));
        assert!(end.contains("\"sequence_number\":7") && end.contains("\"text\":\"half\""), "{end}");

        assert_eq!(reason_of_cut(DialectName::OpenaiResponses, &format!("{created}{delta}")), "max_output_tokens");

        let start = "data: {\"type\":\"message_start\",\"message\":{\"id\":\"m1\",\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n";
        let block = "data: {\"type\":\"content_block_start\",\"index\":3,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
        let delta = "data: {\"type\":\"content_block_delta\",\"index\":3,\"delta\":{\"type\":\"text_delta\",\"text\":\"half\"}}\n\n";
        let (end, reason) = stopped(DialectName::AnthropicMessages, &format!("{start}{block}{delta}")).unwrap();
        assert_eq!(reason.as_deref(), Some("end_turn"));
        assert!(
            end.contains("{\"type\":\"content_block_stop\",\"index\":3}") && end.contains("\"output_tokens\":2"),
            "{end}"
        );
        let closed = format!("{start}{block}{delta}data: {{\"type\":\"content_block_stop\",\"index\":3}}\n\n");
        assert!(!stopped(DialectName::AnthropicMessages, &closed).unwrap().0.contains("content_block_stop"));

        assert_eq!(reason_of_cut(DialectName::AnthropicMessages, &closed), "max_tokens");

        let chunk = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"half\"}]}}]}\n\n";
        let (_, reason) = stopped(DialectName::GoogleGemini, chunk).unwrap();
        assert_eq!(reason.as_deref(), Some("STOP"));
        assert_eq!(reason_of_cut(DialectName::GoogleGemini, chunk), "MAX_TOKENS");
    }

    #[test]
    fn a_message_that_has_not_begun_has_no_clean_end() {
        for dialect in [DialectName::AnthropicMessages, DialectName::OpenaiResponses] {
            assert_eq!(Fold::new(dialect).early_end(EarlyEnd::CutByBudget), None);
        }
    }
}
