//! The OpenAI Chat Completions dialect, as sent by OpenAI and by all providers that call their API compatible.
//!
//! The fold is more lenient than any SDK: unreadable chunks are skipped and noted. The rules for differences between
//! providers:
//!
//! - The text is that of choice 0; the other choices are kept apart. Of a content in parts the text parts are taken, of
//!   an object its compact JSON.
//! - Reasoning is, per delta, the first non-empty one of `reasoning_content`, `reasoning`, `reasoning_text`, the
//!   thinking parts of the content, and the texts or summaries of `reasoning_details`.
//! - The id and name of a tool call are the first non-empty ones. Another non-empty id on a known index opens a new
//!   call. A delta without an index opens a call if the delta has an id, else extends the last call.
//! - Usage is the last usage object, never a sum. The top level takes precedence over a choice, and a choice over
//!   `x_groq`.
//! - An error in the stream is the end: clients raise the error and stop reading. Clients ignore an error in a choice,
//!   so such an error is no end.

mod chunk_template;
mod plain_chunk;
mod shape;

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::error_shape::{error_from_text, find_error, parse_error_member};
use super::event_disposition::EventDisposition;
use super::json_values::for_each_value;
use crate::json::lenient::{Text, compact};
use crate::json::repair::repair;
use crate::response::sse::{SseEvent, is_done_data};
use crate::response::transcript::{Transcript, TranscriptPart};
use chunk_template::ChunkTemplate;
use plain_chunk::PlainChunk;
use shape::{ChatChunk, ChoiceDelta, ChunkChoice, DeltaContent, FunctionDelta};

/// The fold of one response.
#[derive(Debug, Default)]
pub struct ChatCompletionsFold {
    /// The transcript so far.
    pub transcript: Transcript,
    /// The tool calls of choice 0.
    calls: ToolCallIndexes,
    /// The tool calls of the other choices, each with the index of its choice.
    other_calls: Vec<(u64, ToolCallIndexes)>,
    /// The location of the usage object in the transcript.
    usage_location: Option<UsageLocation>,
    /// The template of the stream's chunks, for fast parsing.
    template: ChunkTemplate,
}

/// The `index` with which each tool call of a choice was opened.
type ToolCallIndexes = Vec<Option<u64>>;

/// The locations of usage objects. A later variant takes precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum UsageLocation {
    Groq,
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
        if event.name == "error" && find_error(data).is_none() {
            self.transcript.set_error(error_from_text(data));
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
        let transcript = &mut self.transcript;
        transcript.set_identity(non_empty(chunk.id), non_empty(chunk.model));
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
        let error = match chunk.error.or(groq.as_ref().and_then(|groq| groq.error)) {
            Some(raw) => parse_error_member(raw).and_then(|error| find_error(json).or(Some(error))),
            None if !has_choices && chunk.usage.is_none() => find_error(json),
            None => None,
        };
        if let Some(usage) = groq.and_then(|groq| groq.usage) {
            self.set_usage(UsageLocation::Groq, usage);
        }
        for choice in chunk.choices.0.into_iter().filter_map(|choice| choice.0) {
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
                self.transcript.set_error(error);
                EventDisposition::End
            }
            None if !has_choices && chunk.usage.is_some() => EventDisposition::UsageOnly,
            None => EventDisposition::Forward,
        }
    }

    fn fold_unreadable(&mut self, json: &[u8], form: ContentForm) -> EventDisposition {
        if let Some((repaired, note)) = repair(json) {
            self.transcript.note(note);
            return self.fold_chunk(repaired.as_bytes(), form);
        }
        if let Some(error) = find_error(json) {
            self.transcript.set_error(error);
            return EventDisposition::End;
        }
        self.transcript.note("unreadable_chunk");
        EventDisposition::Forward
    }

    fn set_usage(&mut self, location: UsageLocation, usage: &RawValue) {
        if self.usage_location <= Some(location) {
            self.usage_location = Some(location);
            self.transcript.set_usage(usage);
        }
    }

    fn fold_choice(&mut self, choice: ChunkChoice<'_>, form: ContentForm) {
        let index = choice.index.0.unwrap_or(0);
        let (transcript, calls) = if index == 0 {
            (&mut self.transcript, &mut self.calls)
        } else {
            self.transcript.note("several_choices");
            let Some(transcript) = self.transcript.other_choice(index) else { return };
            let known = self.other_calls.iter().position(|(number, _)| *number == index);
            let position = known.unwrap_or_else(|| {
                self.other_calls.push((index, ToolCallIndexes::new()));
                self.other_calls.len() - 1
            });
            (transcript, &mut self.other_calls[position].1)
        };
        if let Some(reason) = choice.finish_reason.non_empty() {
            transcript.set_finish_reason(reason);
        }
        if let Some(error) = choice.error.and_then(parse_error_member) {
            transcript.set_error(error);
        }
        match (choice.delta.0, choice.message.0, form) {
            (_, Some(message), ContentForm::Complete) | (None, Some(message), ContentForm::Delta) => {
                fold_delta(transcript, calls, message, ContentForm::Complete);
            }
            (Some(delta), _, _) => fold_delta(transcript, calls, delta, ContentForm::Delta),
            (None, None, _) => {}
        }
    }
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn fold_delta(transcript: &mut Transcript, calls: &mut ToolCallIndexes, delta: ChoiceDelta<'_>, form: ContentForm) {
    let (text, thinking) = match delta.content {
        Some(DeltaContent::Text(text)) => (text, String::new()),
        Some(DeltaContent::Parts { text, thinking }) => (Cow::Owned(text), thinking),
        Some(DeltaContent::Nothing) | None => (Cow::Borrowed(""), String::new()),
    };
    transcript.append(TranscriptPart::Text, &text);
    let reasoning = [&delta.reasoning_content, &delta.reasoning, &delta.reasoning_text]
        .into_iter()
        .find_map(Text::non_empty)
        .or(Some(thinking.as_str()).filter(|thinking| !thinking.is_empty()));
    if let Some(reasoning) = reasoning {
        transcript.append(TranscriptPart::Reasoning, reasoning);
    } else {
        for detail in delta.reasoning_details.0.iter().filter_map(|detail| detail.0.as_ref()) {
            let words = detail.text.non_empty().or(detail.summary.non_empty()).unwrap_or("");
            transcript.append(TranscriptPart::Reasoning, words);
        }
    }
    transcript.append(TranscriptPart::Refusal, delta.refusal.non_empty().unwrap_or(""));
    if let Some(audio) = &delta.audio.0 {
        transcript.append(TranscriptPart::AudioTranscript, audio.transcript.non_empty().unwrap_or(""));
    }
    for mut call in delta.tool_calls.0.into_iter().filter_map(|call| call.0) {
        let (index, id) = (call.index.0, std::mem::take(&mut call.id));
        let known = match form {
            ContentForm::Delta => find_call(transcript, calls, index, id.non_empty()),
            ContentForm::Complete => None,
        };
        fold_call(transcript, calls, known, index, id.non_empty(), call.into_function().as_ref());
    }
    // Some providers send every member of the schema, with empty values.
    if let Some(function) = delta.function_call.0.as_ref().filter(|function| function.is_filled()) {
        let known = find_call(transcript, calls, Some(0), None);
        fold_call(transcript, calls, known, Some(0), None, Some(function));
    }
}

/// The index of the tool call that a delta extends. `None` if the delta opens a call.
fn find_call(transcript: &Transcript, calls: &ToolCallIndexes, index: Option<u64>, id: Option<&str>) -> Option<usize> {
    let position = match index {
        Some(_) => calls.iter().rposition(|known| *known == index),
        None if id.is_some() => None,
        None => calls.len().checked_sub(1),
    }?;
    let known = &transcript.tool_calls[position].id;
    id.is_none_or(|id| known.is_empty() || known == id).then_some(position)
}

fn fold_call(
    transcript: &mut Transcript,
    calls: &mut ToolCallIndexes,
    known: Option<usize>,
    index: Option<u64>,
    id: Option<&str>,
    function: Option<&FunctionDelta<'_>>,
) {
    let Some(position) = known.or_else(|| {
        calls.push(index);
        transcript.open_tool_call()
    }) else {
        calls.pop();
        return;
    };
    transcript.name_tool_call(position, id, function.and_then(|function| function.name.non_empty()));
    if let Some(arguments) = function.and_then(|function| function.arguments) {
        // Arguments are a string. Some providers send the object itself.
        let text = serde_json::from_str::<Cow<'_, str>>(arguments.get());
        let text = text.unwrap_or_else(|_| Cow::Owned(compact(arguments)));
        transcript.append(TranscriptPart::Arguments(position), &text);
    }
}
