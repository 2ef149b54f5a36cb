//! The transcript: what an answer comes to, whatever wire format it came in.

use serde_json::value::RawValue;
use shared::event::{AssistantMessage, ChatError, ToolCall};
use shared::id::MessageId;

/// The most text, reasoning and tool arguments together that is recorded of one answer, in bytes. What comes after that
/// still passes to the client; the record says that it was truncated.
const MAX_RECORDED_BYTES: usize = 3 << 20;

/// A folded answer.
#[derive(Debug, Default)]
pub struct Transcript {
    /// Assistant text.
    pub text: String,
    /// Reasoning text.
    pub reasoning: String,
    /// A refusal apart from the text.
    pub refusal: String,
    /// Calls of the client's tools.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended, in the provider's word.
    pub finish_reason: Option<String>,
    /// The model, in the provider's word.
    pub model: Option<String>,
    /// The provider's id of the response.
    pub response_id: Option<String>,
    /// The provider's usage object, the last one that came.
    pub usage: Option<Box<RawValue>>,
    /// An error that came in place of the rest.
    pub error: Option<ChatError>,
    /// The provider said that this is the end.
    pub ended: bool,
    /// What was odd, one word each.
    pub notes: Vec<&'static str>,
    recorded: usize,
    truncated: bool,
}

/// Which text of the transcript grows.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Assistant text.
    Text,
    /// Reasoning text.
    Reasoning,
    /// Refusal.
    Refusal,
    /// Arguments of the tool call at this place.
    Arguments(usize),
}

impl Transcript {
    /// Adds to one of the texts, within the bound.
    pub fn push(&mut self, part: Part, text: &str) {
        if text.is_empty() {
            return;
        }
        let room = MAX_RECORDED_BYTES - self.recorded;
        let text = if text.len() <= room {
            text
        } else {
            self.truncated = true;
            &text[..text.floor_char_boundary(room)]
        };
        self.recorded += text.len();
        match part {
            Part::Text => self.text.push_str(text),
            Part::Reasoning => self.reasoning.push_str(text),
            Part::Refusal => self.refusal.push_str(text),
            Part::Arguments(index) => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.arguments.push_str(text);
                }
            }
        }
    }

    /// Notes something odd, once.
    pub fn note(&mut self, note: &'static str) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Whether there is anything of an answer.
    pub fn has_answer(&self) -> bool {
        self.recorded > 0 || !self.tool_calls.is_empty()
    }

    /// The message that this comes to.
    pub fn message(&mut self, id: MessageId) -> AssistantMessage {
        let some = |text: &mut String| Some(std::mem::take(text)).filter(|text| !text.is_empty());
        AssistantMessage {
            id,
            text: std::mem::take(&mut self.text),
            reasoning: some(&mut self.reasoning),
            refusal: some(&mut self.refusal),
            tool_calls: std::mem::take(&mut self.tool_calls),
            finish_reason: self.finish_reason.take(),
            truncated: self.truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_bounded_and_says_so() {
        let mut transcript = Transcript::default();
        let chunk = "é".repeat(500_000);
        for _ in 0..10 {
            transcript.push(Part::Text, &chunk);
        }
        let message = transcript.message(MessageId(uuid::Uuid::nil()));
        assert!(message.truncated);
        assert!(message.text.len() <= MAX_RECORDED_BYTES && message.text.len() > MAX_RECORDED_BYTES - 2);
    }
}
