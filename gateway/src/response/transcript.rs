//! The transcript: the content of a response, independent of its dialect.

mod content;

use serde_json::value::RawValue;
use shared::event::{AssistantMessage, ChatError, Media, OtherChoice, ToolCall};
use shared::id::MessageId;

use crate::response::bounded_buffer::has_shortened_run;
use crate::response::large_buffers::{FREE_BYTES, LargeBuffer};
use crate::response::usage_merge::{MAX_USAGE_BYTES, merge_usage, shorten_usage};

/// The maximum size of text, reasoning and tool arguments recorded for one response, in bytes. Content beyond the
/// maximum is still forwarded to the client, and the record is marked as truncated.
const MAX_RECORDED_BYTES: usize = 16 << 20;

/// The same maximum for each further choice, and the maximum number of further choices.
const MAX_OTHER_CHOICE_BYTES: usize = 64 << 10;
const MAX_OTHER_CHOICES: usize = 15;

/// The maximum number of tool calls recorded for one response.
const MAX_TOOL_CALLS: usize = 1024;

/// The maximum length of a recorded id, model or finish reason, in bytes.
const MAX_IDENTIFIER_BYTES: usize = 1024;

/// The content of a response, built up by a fold.
#[derive(Debug)]
pub struct Transcript {
    /// The assistant's text, joined from all deltas.
    pub text: String,
    /// The reasoning text, if the provider sends any.
    pub reasoning: String,
    /// The refusal, if sent apart from the text.
    pub refusal: String,
    /// The transcript of an audio response.
    pub audio_transcript: String,
    /// The calls of the client's tools.
    pub tool_calls: Vec<ToolCall>,
    /// The number of calls of the provider's own tools.
    pub server_tool_calls: u64,
    /// The further choices, each with its index. The first choice is this transcript.
    pub other_choices: Vec<(u64, Transcript)>,
    /// The reason for the end of the response, in the provider's words.
    pub finish_reason: Option<String>,
    /// The model, as named by the provider.
    pub model: Option<String>,
    /// The provider's id of the response.
    pub response_id: Option<String>,
    /// The usage object that the provider sent. The objects of several events are merged member by member.
    pub usage: Option<Box<RawValue>>,
    /// True if `usage` was merged from several objects.
    pub is_usage_merged: bool,
    /// An error reported within the response.
    pub error: Option<ChatError>,
    /// True if the provider has marked the end of the response.
    pub is_ended: bool,
    /// Counts and durations of a response that is no chat's.
    pub media: Media,
    /// True if a chat's response has content of a kind that is not recorded: pictures, sounds, files.
    pub has_unrecorded_content: bool,
    /// True if a response that is no chat's came to its end: vectors, pictures and sounds are no content.
    pub has_output: bool,
    /// Irregularities of the response, as note words.
    pub notes: Vec<&'static str>,
    /// The number of bytes that are recorded, and the maximum.
    recorded_bytes: usize,
    max_recorded_bytes: usize,
    /// The memory of the texts beyond the size that each transcript may have.
    share: LargeBuffer,
    is_truncated: bool,
    /// The bytes and the pieces of text that have arrived, recorded or not.
    arrived_bytes: u64,
    arrived_pieces: u64,
}

/// The text of a transcript that a piece is appended to.
#[derive(Clone, Copy, Debug)]
pub enum TranscriptPart {
    /// The text in [`Transcript::text`].
    Text,
    /// The text in [`Transcript::reasoning`].
    Reasoning,
    /// The text in [`Transcript::refusal`].
    Refusal,
    /// The text in [`Transcript::audio_transcript`].
    AudioTranscript,
    /// The arguments of the tool call with this index.
    Arguments(usize),
}

impl Default for Transcript {
    fn default() -> Self {
        Self::with_limit(MAX_RECORDED_BYTES)
    }
}

impl Transcript {
    fn with_limit(max_recorded_bytes: usize) -> Self {
        Self {
            text: String::new(),
            reasoning: String::new(),
            refusal: String::new(),
            audio_transcript: String::new(),
            tool_calls: Vec::new(),
            server_tool_calls: 0,
            other_choices: Vec::new(),
            finish_reason: None,
            model: None,
            response_id: None,
            usage: None,
            is_usage_merged: false,
            error: None,
            is_ended: false,
            media: Media::default(),
            has_unrecorded_content: false,
            has_output: false,
            notes: Vec::new(),
            recorded_bytes: 0,
            max_recorded_bytes,
            share: LargeBuffer::default(),
            is_truncated: false,
            arrived_bytes: 0,
            arrived_pieces: 0,
        }
    }

    /// Appends to one of the texts, within the maximum size.
    pub fn append(&mut self, part: TranscriptPart, text: &str) {
        if text.is_empty() {
            return;
        }
        self.arrived_bytes += text.len() as u64;
        self.arrived_pieces += 1;
        let text = self.truncate_to_room(text);
        match part {
            TranscriptPart::Text => self.text.push_str(text),
            TranscriptPart::Reasoning => self.reasoning.push_str(text),
            TranscriptPart::Refusal => self.refusal.push_str(text),
            TranscriptPart::AudioTranscript => self.audio_transcript.push_str(text),
            TranscriptPart::Arguments(index) => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.arguments.push_str(text);
                }
            }
        }
    }

    /// Appends the rest of a complete text of which the transcript has the beginning. A text that begins otherwise adds
    /// nothing.
    pub fn append_missing(&mut self, part: TranscriptPart, text: &str) {
        let known = match part {
            TranscriptPart::Text => &self.text,
            TranscriptPart::Reasoning => &self.reasoning,
            TranscriptPart::Refusal => &self.refusal,
            TranscriptPart::AudioTranscript => &self.audio_transcript,
            TranscriptPart::Arguments(index) => match self.tool_calls.get(index) {
                Some(call) => &call.arguments,
                None => return,
            },
        };
        if let Some(rest) = text.strip_prefix(known.as_str()) {
            self.append(part, rest);
        }
    }

    /// Adds an empty tool call and returns its index. `None` if the maximum number is reached.
    pub fn open_tool_call(&mut self) -> Option<usize> {
        if self.tool_calls.len() == MAX_TOOL_CALLS {
            self.is_truncated = true;
            return None;
        }
        self.tool_calls.push(ToolCall::default());
        Some(self.tool_calls.len() - 1)
    }

    /// Sets the id and the name of a tool call, unless already set.
    pub fn name_tool_call(&mut self, index: usize, id: Option<&str>, name: Option<&str>) {
        let Some(call) = self.tool_calls.get(index) else { return };
        let (needs_id, needs_name) = (call.id.is_empty(), call.name.is_empty());
        if let Some(id) = id.filter(|_| needs_id) {
            let id = self.truncate_to_room(id).to_owned();
            self.tool_calls[index].id = id;
        }
        if let Some(name) = name.filter(|_| needs_name) {
            let name = self.truncate_to_room(name).to_owned();
            self.tool_calls[index].name = name;
        }
    }

    /// Removes the arguments of a tool call.
    pub fn forget_arguments(&mut self, index: usize) {
        if let Some(call) = self.tool_calls.get_mut(index) {
            self.recorded_bytes -= call.arguments.len();
            call.arguments.clear();
        }
    }

    /// Takes room for arguments of a tool call that are kept elsewhere until they are complete. Returns false, and marks the
    /// content as incomplete, if there is not that much room.
    pub fn take_room(&mut self, bytes: usize) -> bool {
        let needed = self.recorded_bytes + bytes;
        let is_taken = needed <= self.max_recorded_bytes && self.share.grow_to(needed);
        self.recorded_bytes = if is_taken { needed } else { self.recorded_bytes };
        self.is_truncated |= !is_taken;
        is_taken
    }

    /// Sets the arguments of a tool call that has none. `room` is what was taken for them, at least their length.
    pub fn set_arguments(&mut self, index: usize, arguments: String, room: usize) {
        self.recorded_bytes = self.recorded_bytes.saturating_sub(room) + arguments.len();
        if let Some(call) = self.tool_calls.get_mut(index) {
            call.arguments = arguments;
        }
    }

    /// The further choice with this index. `None` if the maximum number is reached.
    pub fn other_choice(&mut self, index: u64) -> Option<&mut Self> {
        let known = self.other_choices.iter().position(|(number, _)| *number == index);
        let index = match known {
            Some(index) => index,
            None if self.other_choices.len() == MAX_OTHER_CHOICES => {
                self.is_truncated = true;
                return None;
            }
            None => {
                self.other_choices.push((index, Self::with_limit(MAX_OTHER_CHOICE_BYTES)));
                self.other_choices.len() - 1
            }
        };
        Some(&mut self.other_choices[index].1)
    }

    /// Sets the response id and the model, unless already set.
    pub fn set_identity(&mut self, response_id: Option<&str>, model: Option<&str>) {
        if self.response_id.is_none() {
            self.response_id = response_id.map(bounded_identifier);
        }
        if self.model.is_none() {
            self.model = model.map(bounded_identifier);
        }
    }

    /// Sets the model from a chunk with content. A later model replaces an earlier one: an upstream that falls back to another
    /// model names that model from there on.
    pub fn set_answering_model(&mut self, model: Option<&str>) {
        if let Some(model) = model.filter(|model| self.model.as_deref() != Some(*model)) {
            self.model = Some(bounded_identifier(model));
        }
    }

    /// Sets the finish reason and marks the response as ended.
    pub fn set_finish_reason(&mut self, reason: &str) {
        self.finish_reason = Some(bounded_identifier(reason));
        self.is_ended = true;
    }

    /// Adds a usage object. The objects of several events are merged: a later count of 0 and a missing member replace
    /// nothing that was positive, because counts within a response are cumulative.
    pub fn set_usage(&mut self, usage: &RawValue) {
        match self.usage.take() {
            None => self.keep_usage(usage.to_owned()),
            Some(earlier) => self.keep_merged_usage(&earlier, usage),
        }
    }

    /// Adds a usage object of a place that counts for less than the place of the usage so far: only what is missing or 0
    /// is taken from it.
    pub fn set_missing_usage(&mut self, usage: &RawValue) {
        match self.usage.take() {
            None => self.keep_usage(usage.to_owned()),
            Some(known) => self.keep_merged_usage(usage, &known),
        }
    }

    fn keep_merged_usage(&mut self, earlier: &RawValue, later: &RawValue) {
        let Some(merged) = merge_usage(earlier, later) else { return self.keep_usage(earlier.to_owned()) };
        self.is_usage_merged = true;
        if merged.has_cache_in_input {
            self.note("usage_input_includes_cache");
        }
        self.keep_usage(merged.raw);
    }

    fn keep_usage(&mut self, usage: Box<RawValue>) {
        if usage.get().len() <= MAX_USAGE_BYTES {
            self.usage = Some(usage);
        } else {
            self.note("usage_too_long");
            self.usage = shorten_usage(&usage);
        }
    }

    /// Sets the error. The first error is kept.
    pub fn set_error(&mut self, error: ChatError) {
        self.error.get_or_insert(error);
    }

    /// Removes all content, because the provider sends the content again from the start.
    pub fn clear_content(&mut self) {
        let texts = [&mut self.text, &mut self.reasoning, &mut self.refusal, &mut self.audio_transcript];
        texts.into_iter().for_each(String::clear);
        self.tool_calls.clear();
        self.server_tool_calls = 0;
        self.has_unrecorded_content = false;
        self.recorded_bytes = 0;
        self.is_truncated = false;
    }

    /// Marks the content as incomplete, because a part of the response could not be parsed.
    pub fn mark_truncated(&mut self) {
        self.is_truncated = true;
    }

    /// Marks the content as incomplete if a text or the arguments of a tool call have a run of base64 that may have been
    /// shortened.
    pub fn mark_shortened(&mut self) {
        let texts = [&self.text, &self.reasoning, &self.refusal, &self.audio_transcript].into_iter();
        let arguments = self.tool_calls.iter().map(|call| &call.arguments);
        self.is_truncated |= texts.chain(arguments).any(|text| has_shortened_run(text));
    }

    /// Adds a note, unless already present.
    pub fn note(&mut self, note: &'static str) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Takes the content out of the transcript as an assistant message.
    pub fn message(&mut self, id: MessageId) -> AssistantMessage {
        AssistantMessage {
            id,
            text: std::mem::take(&mut self.text),
            reasoning: take_non_empty(&mut self.reasoning),
            refusal: take_non_empty(&mut self.refusal),
            audio_transcript: take_non_empty(&mut self.audio_transcript),
            tool_calls: std::mem::take(&mut self.tool_calls),
            server_tool_calls: self.server_tool_calls,
            truncated: self.is_truncated || self.other_choices.iter().any(|(_, other)| other.is_truncated),
            other_choices: self
                .other_choices
                .drain(..)
                .map(|(index, choice)| choice.into_other_choice(index))
                .collect(),
            finish_reason: self.finish_reason.take(),
        }
    }

    fn into_other_choice(mut self, index: u64) -> OtherChoice {
        OtherChoice {
            index,
            text: self.text,
            reasoning: take_non_empty(&mut self.reasoning),
            refusal: take_non_empty(&mut self.refusal),
            audio_transcript: take_non_empty(&mut self.audio_transcript),
            tool_calls: self.tool_calls,
            finish_reason: self.finish_reason,
        }
    }

    /// The part of the text that fits into the remaining size.
    fn truncate_to_room<'a>(&mut self, text: &'a str) -> &'a str {
        let room = self.max_recorded_bytes - self.recorded_bytes;
        let has_memory = self.share.grow_to(self.recorded_bytes + text.len().min(room));
        let room = if has_memory { room } else { FREE_BYTES.saturating_sub(self.recorded_bytes) };
        let text = if text.len() <= room {
            text
        } else {
            self.is_truncated = true;
            &text[..text.floor_char_boundary(room)]
        };
        self.recorded_bytes += text.len();
        text
    }
}

fn take_non_empty(text: &mut String) -> Option<String> {
    Some(std::mem::take(text)).filter(|text| !text.is_empty())
}

fn bounded_identifier(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_IDENTIFIER_BYTES)].to_owned()
}

#[cfg(test)]
mod tests;
