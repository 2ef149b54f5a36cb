//! The transcript: what an answer comes to, whatever wire format it came in.

use serde_json::value::RawValue;
use shared::event::{AssistantMessage, ChatError, OtherChoice, ToolCall};
use shared::id::MessageId;

/// The most text, reasoning and tool arguments together that is recorded of one answer, in bytes. What comes after that
/// still passes to the client; the record says that it was truncated.
const MAX_RECORDED_BYTES: usize = 3 << 20;

/// The same for each choice beside the first, and how many of those are recorded.
const MAX_OTHER_BYTES: usize = 64 << 10;
const MAX_OTHERS: usize = 15;

/// The most tool calls that are recorded of one answer.
const MAX_TOOL_CALLS: usize = 1024;

/// The longest id, model or finish reason that is recorded.
const MAX_WORD_BYTES: usize = 1024;

/// The longest usage object that is kept.
const MAX_USAGE_BYTES: usize = 64 << 10;

/// A folded answer.
#[derive(Debug)]
pub struct Transcript {
    /// Assistant text.
    pub text: String,
    /// Reasoning text.
    pub reasoning: String,
    /// A refusal apart from the text.
    pub refusal: String,
    /// What a spoken answer says.
    pub audio_transcript: String,
    /// Calls of the client's tools.
    pub tool_calls: Vec<ToolCall>,
    /// Calls of the provider's own tools.
    pub server_tool_calls: u64,
    /// The choices beside the first, by their number.
    pub others: Vec<(u64, Transcript)>,
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
    /// How many bytes may still be recorded.
    room: usize,
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
    /// What a spoken answer says.
    AudioTranscript,
    /// Arguments of the tool call at this place.
    Arguments(usize),
}

impl Default for Transcript {
    fn default() -> Self {
        Self::with_room(MAX_RECORDED_BYTES)
    }
}

impl Transcript {
    fn with_room(room: usize) -> Self {
        Self {
            text: String::new(),
            reasoning: String::new(),
            refusal: String::new(),
            audio_transcript: String::new(),
            tool_calls: Vec::new(),
            server_tool_calls: 0,
            others: Vec::new(),
            finish_reason: None,
            model: None,
            response_id: None,
            usage: None,
            error: None,
            ended: false,
            notes: Vec::new(),
            room,
            truncated: false,
        }
    }

    /// Adds to one of the texts, within the bound.
    pub fn push(&mut self, part: Part, text: &str) {
        if text.is_empty() {
            return;
        }
        let text = self.take_room(text);
        match part {
            Part::Text => self.text.push_str(text),
            Part::Reasoning => self.reasoning.push_str(text),
            Part::Refusal => self.refusal.push_str(text),
            Part::AudioTranscript => self.audio_transcript.push_str(text),
            Part::Arguments(index) => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.arguments.push_str(text);
                }
            }
        }
    }

    /// Opens a tool call and returns its place, if there is room for it.
    pub fn open_call(&mut self) -> Option<usize> {
        if self.tool_calls.len() == MAX_TOOL_CALLS {
            self.truncated = true;
            return None;
        }
        self.tool_calls.push(ToolCall::default());
        Some(self.tool_calls.len() - 1)
    }

    /// Gives the tool call at this place its id and name, as far as it has none yet.
    pub fn name_call(&mut self, place: usize, id: Option<&str>, name: Option<&str>) {
        let Some(call) = self.tool_calls.get(place) else { return };
        let (needs_id, needs_name) = (call.id.is_empty(), call.name.is_empty());
        if let Some(id) = id.filter(|_| needs_id) {
            let id = self.take_room(id).to_owned();
            self.tool_calls[place].id = id;
        }
        if let Some(name) = name.filter(|_| needs_name) {
            let name = self.take_room(name).to_owned();
            self.tool_calls[place].name = name;
        }
    }

    /// Forgets the arguments of the tool call at this place.
    pub fn forget_arguments(&mut self, place: usize) {
        if let Some(call) = self.tool_calls.get_mut(place) {
            self.room += call.arguments.len();
            call.arguments.clear();
        }
    }

    /// The choice of this number beside the first, if there is room for it.
    pub fn other(&mut self, index: u64) -> Option<&mut Self> {
        let known = self.others.iter().position(|(number, _)| *number == index);
        let place = match known {
            Some(place) => place,
            None if self.others.len() == MAX_OTHERS => {
                self.truncated = true;
                return None;
            }
            None => {
                self.others.push((index, Self::with_room(MAX_OTHER_BYTES)));
                self.others.len() - 1
            }
        };
        Some(&mut self.others[place].1)
    }

    /// Notes the provider's id of the response and its model, as far as none is noted yet.
    pub fn identify(&mut self, response_id: Option<&str>, model: Option<&str>) {
        if self.response_id.is_none() {
            self.response_id = response_id.map(word);
        }
        if self.model.is_none() {
            self.model = model.map(word);
        }
    }

    /// Notes why the answer ended.
    pub fn finish(&mut self, reason: &str) {
        self.finish_reason = Some(word(reason));
        self.ended = true;
    }

    /// Keeps this usage object in place of any before.
    pub fn report(&mut self, usage: &RawValue) {
        if usage.get().len() > MAX_USAGE_BYTES {
            self.note("usage_too_long");
        } else {
            self.usage = Some(usage.to_owned());
        }
    }

    /// An error came. The first one stands.
    pub fn fail(&mut self, error: ChatError) {
        self.error.get_or_insert(error);
    }

    /// Forgets what was said so far: it is said anew.
    pub fn start_over(&mut self) {
        let said = [&mut self.text, &mut self.reasoning, &mut self.refusal, &mut self.audio_transcript];
        said.into_iter().for_each(String::clear);
        self.tool_calls.clear();
        self.server_tool_calls = 0;
        self.room = MAX_RECORDED_BYTES;
        self.truncated = false;
    }

    /// Notes something odd, once.
    pub fn note(&mut self, note: &'static str) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Whether there is anything of an answer.
    pub fn has_answer(&self) -> bool {
        let said = [&self.text, &self.reasoning, &self.refusal, &self.audio_transcript];
        said.iter().any(|text| !text.is_empty())
            || !self.tool_calls.is_empty()
            || self.server_tool_calls > 0
            || self.others.iter().any(|(_, other)| other.has_answer())
    }

    /// The message that this comes to.
    pub fn message(&mut self, id: MessageId) -> AssistantMessage {
        AssistantMessage {
            id,
            text: std::mem::take(&mut self.text),
            reasoning: filled(&mut self.reasoning),
            refusal: filled(&mut self.refusal),
            audio_transcript: filled(&mut self.audio_transcript),
            tool_calls: std::mem::take(&mut self.tool_calls),
            server_tool_calls: self.server_tool_calls,
            truncated: self.truncated || self.others.iter().any(|(_, other)| other.truncated),
            other_choices: self.others.drain(..).map(|(index, choice)| choice.into_other(index)).collect(),
            finish_reason: self.finish_reason.take(),
        }
    }

    fn into_other(mut self, index: u64) -> OtherChoice {
        OtherChoice {
            index,
            text: self.text,
            reasoning: filled(&mut self.reasoning),
            refusal: filled(&mut self.refusal),
            audio_transcript: filled(&mut self.audio_transcript),
            tool_calls: self.tool_calls,
            finish_reason: self.finish_reason,
        }
    }

    /// As much of the text as there is room for.
    fn take_room<'a>(&mut self, text: &'a str) -> &'a str {
        let text = if text.len() <= self.room {
            text
        } else {
            self.truncated = true;
            &text[..text.floor_char_boundary(self.room)]
        };
        self.room -= text.len();
        text
    }
}

fn filled(text: &mut String) -> Option<String> {
    Some(std::mem::take(text)).filter(|text| !text.is_empty())
}

fn word(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_WORD_BYTES)].to_owned()
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

    #[test]
    fn calls_choices_and_words_are_bounded_too() {
        let mut transcript = Transcript::default();
        assert!((0..2_000).filter_map(|_| transcript.open_call()).count() == MAX_TOOL_CALLS);
        transcript.name_call(0, Some(&"i".repeat(MAX_RECORDED_BYTES)), Some("name"));
        assert_eq!(transcript.tool_calls[0].name, "", "no room is left");
        assert!((1..100).filter_map(|index| transcript.other(index).map(|_| ())).count() == MAX_OTHERS);
        transcript.identify(Some(&"é".repeat(1_000)), None);
        assert_eq!(transcript.response_id.as_ref().map(String::len), Some(MAX_WORD_BYTES));
        assert!(transcript.message(MessageId(uuid::Uuid::nil())).truncated);
    }
}
