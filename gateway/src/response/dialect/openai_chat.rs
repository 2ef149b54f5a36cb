//! The OpenAI Chat Completions dialect, as sent by OpenAI and by all providers that call their API compatible.
//!
//! The fold is more lenient than any SDK: unreadable chunks are skipped and noted. The rules for differences between
//! providers:
//!
//! - The text is that of choice 0; the other choices are kept apart. Of a content in parts the text parts are taken, of
//!   an object its compact JSON.
//! - Reasoning is, per delta, the first non-empty one of `reasoning_content`, `reasoning`, `reasoning_text`, `thinking`,
//!   `cot_summary`, `thinking_content`, `reasoning_summary`, `thought`, the reasoning parts of the content, `reasoning_details` and
//!   `thinking_blocks`, also within `provider_specific_fields`. Each is a text, a list of parts or an object.
//! - The pieces of tool calls are assigned to calls by `ToolCallTable`.
//! - A complete message in a stream adds only what no delta has said.
//! - Usage is the merged usage object, never a sum. The top level takes precedence over a choice, a choice over its message, and
//!   the message over `x_groq` and `meta`.
//! - The model is that of the last chunk with a choice. An upstream that falls back to another model names both.
//! - An error in the stream is the end: clients raise the error and stop reading. Clients ignore an error in a choice,
//!   so such an error is no end, and neither is a message with a code and without an `error`.

mod chunk_template;
mod other_shapes;
mod plain_chunk;
mod shape;
mod tool_calls;
mod words;

use serde_json::value::RawValue;
use shared::event::ChatError;

use super::error_shape::{error_from_text, find_error, find_reported_error, parse_error_member};
use super::event_disposition::EventDisposition;
use super::json_values::for_each_value;
use crate::json::lenient::Object;
use crate::json::repair::repair;
use crate::response::sse::{SseEvent, is_done_data};
use crate::response::transcript::{Transcript, TranscriptPart};
use chunk_template::ChunkTemplate;
use other_shapes::{OtherShape, read_other_shape};
use plain_chunk::PlainChunk;
use shape::{ChatChunk, ChoiceDelta, ChunkChoice, FunctionDelta, Meta};
use tool_calls::ToolCallTable;

/// The fold of one response.
#[derive(Debug, Default)]
pub struct ChatCompletionsFold {
    /// The transcript so far.
    pub transcript: Transcript,
    /// The state of choice 0.
    choice: ChoiceState,
    /// The states of the other choices, each with the index of its choice.
    other_choices: Vec<(u64, ChoiceState)>,
    /// The location of the usage object in the transcript.
    usage_location: Option<UsageLocation>,
    /// The template of the stream's chunks, for fast parsing.
    template: ChunkTemplate,
    /// The error in the transcript may turn out to be a status message.
    is_error_tentative: bool,
}

/// The state of a choice between two chunks.
#[derive(Debug, Default)]
struct ChoiceState {
    calls: ToolCallTable,
    /// The content of the choice came in messages, although the response is a stream.
    is_made_of_messages: bool,
}

/// The locations of usage objects. A later variant takes precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum UsageLocation {
    Meta,
    Groq,
    Message,
    Choice,
    Top,
}

/// The form of a choice's content. Some providers send both members in one chunk and fill only the appropriate one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentForm {
    /// The content of a stream: `delta`, an addition.
    Delta,
    /// The content of a document: `message`, complete.
    Complete,
}

impl ChatCompletionsFold {
    /// Folds one event of a stream.
    pub fn fold_event(&mut self, event: &SseEvent<'_>) -> EventDisposition {
        let Some(data) = event.data else { return EventDisposition::Forward };
        if is_done_data(data) {
            self.transcript.is_ended = true;
            return EventDisposition::End;
        }
        if event.name == "error" && find_reported_error(data).is_none() {
            self.set_error(find_error(data).or_else(|| error_in(data)).unwrap_or_else(|| error_from_text(data)));
            return EventDisposition::End;
        }
        self.fold_chunk(data, ContentForm::Delta)
    }

    /// Folds a response that is one JSON document, or several in a row.
    pub fn fold_document(&mut self, body: &[u8]) {
        for_each_value(body, |json| {
            self.fold_chunk(json, ContentForm::Complete);
        });
    }

    fn fold_chunk(&mut self, json: &[u8], form: ContentForm) -> EventDisposition {
        if form == ContentForm::Delta
            && let Some((part, text)) = self.template.text(json)
        {
            self.drop_tentative_error();
            self.transcript.append(part, &text);
            return EventDisposition::Forward;
        }
        // UTF-8 is validated once for the chunk instead of once per string.
        let text = std::str::from_utf8(json);
        if let (Ok(text), ContentForm::Delta) = (text, form)
            && let Some(plain) = PlainChunk::read(text)
        {
            self.fold_plain_chunk(&plain);
            self.template.learn(text, &plain);
            return EventDisposition::Forward;
        }
        self.fold_any_chunk(json, text.ok(), form)
    }

    /// Folds a plain chunk, the most common kind.
    fn fold_plain_chunk(&mut self, chunk: &PlainChunk<'_>) {
        self.drop_tentative_error();
        let transcript = &mut self.transcript;
        transcript.set_identity(non_empty(chunk.id), None);
        transcript.set_answering_model(non_empty(chunk.model));
        if let Some(reason) = non_empty(chunk.finish_reason) {
            transcript.set_finish_reason(reason);
        }
        transcript.append(TranscriptPart::Text, &chunk.content);
        let reasoning = chunk.reasoning.iter().find(|reasoning| !reasoning.is_empty());
        transcript.append(TranscriptPart::Reasoning, reasoning.map_or("", |reasoning| reasoning.as_ref()));
        transcript.append(TranscriptPart::Refusal, &chunk.refusal);
    }

    /// Folds a chunk or a whole response of any content.
    fn fold_any_chunk(&mut self, json: &[u8], text: Option<&str>, form: ContentForm) -> EventDisposition {
        let read = match text {
            Some(text) => serde_json::from_str(text),
            None => serde_json::from_slice(json),
        };
        let chunk: ChatChunk<'_> = match read {
            Ok(chunk) => chunk,
            Err(_) => return self.fold_unreadable(json, form),
        };
        self.transcript.set_identity(chunk.id.non_empty(), chunk.model.non_empty());
        let groq = chunk.x_groq.0;
        let has_choices = !chunk.choices.0.is_empty();
        let is_error_named = [chunk.error, chunk.base_resp, chunk.error_msg].iter().any(Option::is_some);
        let error = if let Some(error) = groq.as_ref().and_then(|groq| groq.error).and_then(parse_error_member) {
            Some(error)
        } else if !has_choices && chunk.usage.is_none() {
            self.find_error(json)
        } else {
            is_error_named.then(|| find_reported_error(json)).flatten()
        };
        if has_choices {
            self.transcript.set_answering_model(chunk.model.non_empty());
            self.drop_tentative_error();
        }
        if let Some(usage) = chunk.meta.0.as_ref().and_then(Meta::usage) {
            self.set_usage(UsageLocation::Meta, usage);
        }
        if let Some(usage) = groq.and_then(|groq| groq.usage) {
            self.set_usage(UsageLocation::Groq, usage);
        }
        for choice in chunk.choices.0.into_iter().filter_map(|choice| choice.0) {
            for usage in [&choice.delta, &choice.message].into_iter().filter_map(|content| content.0.as_ref()?.usage) {
                self.set_usage(UsageLocation::Message, usage);
            }
            if let Some(usage) = choice.usage {
                self.set_usage(UsageLocation::Choice, usage);
            }
            self.fold_choice(choice, form);
        }
        if let Some(usage) = chunk.usage {
            self.set_usage(UsageLocation::Top, usage);
        }
        match error {
            Some(error) => {
                self.set_error(error);
                EventDisposition::End
            }
            None if !has_choices && let Some(disposition) = self.fold_other_shape(json, form) => disposition,
            None if !has_choices && chunk.usage.is_some() => EventDisposition::UsageOnly,
            None => EventDisposition::Forward,
        }
    }

    /// Folds a chunk without choices in the format of another API. `None` if the chunk has no such format. Such a chunk is never
    /// taken for the usage that the gateway asked for, because the client gets its text.
    fn fold_other_shape(&mut self, json: &[u8], form: ContentForm) -> Option<EventDisposition> {
        let json = std::str::from_utf8(json).ok()?;
        let repaired;
        let shape = match read_other_shape(json) {
            Ok(shape) => shape?,
            // A text with half a surrogate pair.
            Err(_) => {
                let note;
                (repaired, note) = repair(json.as_bytes())?;
                self.transcript.note(note);
                read_other_shape(&repaired).ok()??
            }
        };
        let disposition = match shape {
            OtherShape::Wrapped(chunk) => self.fold_any_chunk(chunk.as_bytes(), Some(chunk), form),
            OtherShape::Content(mut choice, usage) => {
                if let Some(usage) = usage {
                    self.set_usage(UsageLocation::Top, &usage);
                }
                self.drop_tentative_error();
                if form == ContentForm::Complete {
                    choice.message = Object(choice.message.0.or(choice.delta.0.take()));
                }
                self.fold_choice(*choice, form);
                EventDisposition::Forward
            }
        };
        self.transcript.note("other_format");
        Some(if disposition == EventDisposition::End { disposition } else { EventDisposition::Forward })
    }

    fn fold_unreadable(&mut self, json: &[u8], form: ContentForm) -> EventDisposition {
        if let Some((repaired, note)) = repair(json) {
            self.transcript.note(note);
            return self.fold_chunk(repaired.as_bytes(), form);
        }
        if let Some(error) = find_error(json) {
            self.set_error(error);
            return EventDisposition::End;
        }
        self.transcript.note("unreadable_chunk");
        EventDisposition::Forward
    }

    /// Finds an error in a chunk without choices. A message with a code and without an `error` becomes the error of the
    /// transcript, but is not returned: clients do not stop there, and choices may follow.
    fn find_error(&mut self, json: &[u8]) -> Option<ChatError> {
        if let Some(error) = find_reported_error(json) {
            return Some(error);
        }
        if self.transcript.error.is_none()
            && let Some(error) = find_error(json)
        {
            self.transcript.set_error(error);
            self.is_error_tentative = true;
        }
        None
    }

    fn set_error(&mut self, error: ChatError) {
        self.drop_tentative_error();
        self.transcript.set_error(error);
    }

    fn drop_tentative_error(&mut self) {
        if std::mem::take(&mut self.is_error_tentative) {
            self.transcript.error = None;
        }
    }

    fn set_usage(&mut self, location: UsageLocation, usage: &RawValue) {
        if self.usage_location <= Some(location) {
            self.usage_location = Some(location);
            self.transcript.set_usage(usage);
        } else {
            self.transcript.set_missing_usage(usage);
        }
    }

    fn fold_choice(&mut self, choice: ChunkChoice<'_>, form: ContentForm) {
        let index = choice.index.0.unwrap_or(0);
        let (transcript, state) = if index == 0 {
            (&mut self.transcript, &mut self.choice)
        } else {
            self.transcript.note("several_choices");
            let Some(transcript) = self.transcript.other_choice(index) else { return };
            let known = self.other_choices.iter().position(|(number, _)| *number == index);
            let position = known.unwrap_or_else(|| {
                self.other_choices.push((index, ChoiceState::default()));
                self.other_choices.len() - 1
            });
            (transcript, &mut self.other_choices[position].1)
        };
        if let Some(error) = choice.error.and_then(parse_error_member) {
            transcript.set_error(error);
        }
        match (choice.delta.0, choice.message.0, form) {
            (_, Some(message), ContentForm::Complete) => {
                state.fold_content(transcript, message, Addition::Complete);
            }
            (delta, message, _) => {
                if delta.is_none() && message.is_none() {
                    transcript.append(TranscriptPart::Text, choice.text.non_empty().unwrap_or(""));
                }
                let is_last = choice.finish_reason.non_empty().is_some();
                match (delta, message) {
                    (Some(delta), Some(message))
                        if !delta.is_filled() || is_repetition(&delta, &message, transcript) =>
                    {
                        state.fold_content(transcript, message, Addition::Whole);
                    }
                    (Some(delta), _) => state.fold_content(transcript, delta, Addition::Delta),
                    (None, Some(message)) => state.fold_message(transcript, message, is_last),
                    (None, None) => {}
                }
            }
        }
        if let Some(reason) = choice.finish_reason.non_empty() {
            transcript.set_finish_reason(reason);
        }
    }
}

/// The way in which content is added to a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addition {
    /// The content continues the transcript.
    Delta,
    /// The content is complete, and follows the transcript.
    Complete,
    /// The content is complete, and contains what the transcript has already.
    Whole,
}

impl ChoiceState {
    /// Folds a message in a stream, without a delta beside it. A message after deltas is complete and repeats their content, wholly or as far as it
    /// has come. In a stream without deltas, each message continues the one before or repeats it.
    fn fold_message(&mut self, transcript: &mut Transcript, message: ChoiceDelta<'_>, is_last: bool) {
        let text = message.content.text.as_ref();
        let has_grown = text.len() > transcript.text.len() && text.starts_with(&transcript.text);
        self.is_made_of_messages |= !transcript.has_content();
        if self.is_made_of_messages && !has_grown && !(is_last && text == transcript.text) {
            self.fold_content(transcript, message, Addition::Complete);
        } else {
            self.fold_content(transcript, message, Addition::Whole);
        }
    }

    fn fold_content(&mut self, transcript: &mut Transcript, delta: ChoiceDelta<'_>, addition: Addition) {
        let texts = [
            (TranscriptPart::Text, delta.content.text.as_ref()),
            (TranscriptPart::Reasoning, delta.reasoning()),
            (TranscriptPart::Refusal, delta.refusal.non_empty().unwrap_or(&delta.content.refusal)),
            (TranscriptPart::AudioTranscript, delta.audio_transcript()),
        ];
        transcript.has_unrecorded_content |= delta.has_unrecorded_content();
        for (part, text) in texts {
            match addition {
                Addition::Delta | Addition::Complete => transcript.append(part, text),
                Addition::Whole => transcript.append_missing(part, text),
            }
        }
        let mut pieces = delta.tool_calls.0;
        // Some providers send a call under the old name as well.
        if pieces.is_empty()
            && let Some(function) = delta.function_call.0.filter(FunctionDelta::is_filled)
        {
            pieces.push(function.into_piece());
        }
        match addition {
            Addition::Delta => self.calls.fold_pieces(transcript, &pieces),
            Addition::Complete => self.calls.fold_complete(transcript, &pieces),
            Addition::Whole => self.calls.fill_in(transcript, &pieces),
        }
    }
}

/// True if a delta and the message beside it both repeat the whole text so far, as in the last chunk of some providers.
fn is_repetition(delta: &ChoiceDelta<'_>, message: &ChoiceDelta<'_>, transcript: &Transcript) -> bool {
    let text = transcript.text.as_str();
    !text.is_empty() && [delta, message].iter().all(|content| content.content.text == text)
}

/// The error that the data of an event with the name `error` is, as an object under `error` would be.
fn error_in(data: &[u8]) -> Option<ChatError> {
    serde_json::from_slice::<&RawValue>(data).ok().and_then(parse_error_member)
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
