//! Answers of the endpoints of OpenAI's API that are no chats: text completions, embeddings, images, audio and others.
//!
//! - Text completions and transcripts are text. Vectors, pictures and sounds are counted, and not kept.
//! - Usage is the last usage object. Cohere reports usage in `meta`: tokens, or else billed units.
//! - A stream of images ends with the last of the images that the request asks for; the other streams end with `[DONE]`
//!   or with an event `....done`.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use shared::event::{ChatError, Operation};
use shared::usage::Usage;

use super::error_shape::{find_error, find_reported_error};
use super::event_disposition::EventDisposition;
use super::usage::{DOES_NOT_ADD_UP, from_gemini, from_openai};
use crate::json::lenient::{Count, List, Object, Text};
use crate::json::repair::repair;
use crate::response::sse::{SseEvent, is_done_data};
use crate::response::transcript::{Transcript, TranscriptPart};

/// The fold of one response.
#[derive(Debug)]
pub struct CallFold {
    /// The transcript so far.
    pub transcript: Transcript,
    operation: Operation,
    /// The number of images that the request asks for.
    images_asked: u64,
    images: u64,
    /// The usage has the names of Google's API.
    has_google_usage: bool,
}

/// A document, or the data of an event.
#[derive(Deserialize)]
struct CallValue<'a> {
    #[serde(default, rename = "type", borrow)]
    kind: Text<'a>,
    #[serde(default, borrow)]
    id: Text<'a>,
    #[serde(default, borrow)]
    model: Text<'a>,
    #[serde(default, borrow)]
    choices: List<Object<CompletionChoice<'a>>>,
    #[serde(default)]
    data: List<IgnoredAny>,
    #[serde(default)]
    results: List<IgnoredAny>,
    #[serde(default)]
    embeddings: List<IgnoredAny>,
    #[serde(default)]
    output: List<IgnoredAny>,
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    delta: Text<'a>,
    #[serde(default, borrow)]
    duration: Option<&'a RawValue>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default, borrow, rename = "usageMetadata")]
    google_usage: Option<&'a RawValue>,
    /// The vector of a Gemini model.
    #[serde(default)]
    embedding: Object<IgnoredAny>,
    #[serde(default, borrow)]
    meta: Object<CohereMeta<'a>>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    /// Other members for errors, see `error_shape.rs`.
    #[serde(default, borrow)]
    errors: Option<&'a RawValue>,
    #[serde(default, borrow)]
    detail: Option<&'a RawValue>,
    #[serde(default, borrow)]
    base_resp: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error_msg: Option<&'a RawValue>,
}

impl CallValue<'_> {
    /// The error that the value is or has. `json` is the value itself. Without any output, a message beside a code is an
    /// error too.
    fn find_error(&self, json: &[u8]) -> Option<ChatError> {
        let members = [self.error, self.errors, self.detail, self.base_resp, self.error_msg];
        // The types of events have a dot, and those of errors have not.
        let is_event = self.kind.non_empty().is_some_and(|kind| kind.contains('.'));
        let has_output = is_event
            || [&self.data, &self.results, &self.embeddings, &self.output].iter().any(|list| !list.0.is_empty())
            || !self.choices.0.is_empty()
            || self.embedding.0.is_some()
            || self.text.0.is_some();
        match (members.iter().any(Option::is_some), has_output) {
            (_, false) => find_error(json),
            (true, true) => find_reported_error(json),
            (false, true) => None,
        }
    }
}

#[derive(Deserialize)]
struct CompletionChoice<'a> {
    #[serde(default)]
    index: Count,
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    finish_reason: Text<'a>,
}

#[derive(Deserialize)]
struct CohereMeta<'a> {
    #[serde(default, borrow)]
    tokens: Option<&'a RawValue>,
    #[serde(default, borrow)]
    billed_units: Option<&'a RawValue>,
}

/// The usage of a provider that charges by time.
#[derive(Deserialize)]
struct DurationUsage {
    #[serde(default)]
    seconds: Option<f64>,
}

impl CallFold {
    /// Makes a fold for the answer of a call of this kind that asks for a number of outputs.
    pub fn new(operation: Operation, outputs_asked: u64) -> Self {
        // Nothing is read of an answer that passes as it is, so the end of its body is its end.
        let mut transcript = Transcript::default();
        transcript.is_ended = operation == Operation::PassThrough;
        Self { transcript, operation, images_asked: outputs_asked.max(1), images: 0, has_google_usage: false }
    }

    /// The kind of the call.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Folds one event of a stream.
    pub fn fold_event(&mut self, event: &SseEvent<'_>) -> EventDisposition {
        let Some(data) = event.data else { return EventDisposition::Forward };
        if is_done_data(data) {
            self.transcript.is_ended = true;
            return EventDisposition::End;
        }
        if event.name == "error" {
            let unnamed = || ChatError::new("error", &String::from_utf8_lossy(data));
            self.transcript.set_error(find_error(data).unwrap_or_else(unnamed));
            return EventDisposition::End;
        }
        let repaired;
        let value = match serde_json::from_slice::<Object<CallValue<'_>>>(data) {
            Ok(Object(value)) => value,
            Err(_) => {
                repaired = repair(data);
                repaired.as_ref().and_then(|(json, note)| {
                    self.transcript.note(note);
                    serde_json::from_str::<Object<CallValue<'_>>>(json).ok()?.0
                })
            }
        };
        let Some(value) = value else {
            self.transcript.note("unreadable_chunk");
            return EventDisposition::Forward;
        };
        self.fold_common(&value);
        if let Some(error) = value.find_error(data) {
            self.transcript.set_error(error);
            return EventDisposition::End;
        }
        self.fold_choices(&value.choices);
        match value.kind.non_empty().unwrap_or_default() {
            "transcript.text.delta" => self.append_text(value.delta.non_empty()),
            // The names of Mistral's events.
            "transcription.text.delta" => self.append_text(value.text.non_empty()),
            "transcript.text.done" | "transcription.done" => {
                if self.transcript.text.is_empty() {
                    self.append_text(value.text.non_empty());
                }
                return self.end();
            }
            "speech.audio.done" => return self.end(),
            "image_generation.completed" | "image_edit.completed" => {
                self.images += 1;
                self.transcript.media.output_items = Some(self.images);
                if self.images >= self.images_asked {
                    return self.end();
                }
            }
            _ => {}
        }
        EventDisposition::Forward
    }

    /// Folds a response that is one document: JSON, or the text of a transcript.
    pub fn fold_document(&mut self, body: &[u8]) {
        let repaired;
        let value = match serde_json::from_slice::<Object<CallValue<'_>>>(body) {
            Ok(Object(value)) => value,
            Err(_) => {
                repaired = repair(body);
                repaired.as_ref().and_then(|(json, note)| {
                    self.transcript.note(note);
                    serde_json::from_str::<Object<CallValue<'_>>>(json).ok()?.0
                })
            }
        };
        match value {
            Some(value) => {
                self.fold_common(&value);
                if let Some(error) = value.find_error(body) {
                    self.transcript.set_error(error);
                }
                self.fold_choices(&value.choices);
                if self.is_spoken() {
                    self.append_text(value.text.non_empty());
                }
                self.transcript.media.output_items = self.count_outputs(&value);
            }
            // Transcripts may be plain text or subtitles.
            None if self.is_spoken() => self.append_text(Some(&String::from_utf8_lossy(body))),
            None if serde_json::from_slice::<List<IgnoredAny>>(body).is_ok_and(|list| !list.0.is_empty()) => {
                let outputs = serde_json::from_slice::<List<IgnoredAny>>(body).map_or(0, |list| list.0.len());
                self.transcript.media.output_items = Some(outputs as u64);
            }
            None => {
                let message = "the answer is no JSON document";
                return self.transcript.set_error(ChatError::new("unreadable_answer", message));
            }
        }
        self.transcript.is_ended = true;
    }

    /// Takes out the usage that the upstream reported.
    pub fn take_usage(&mut self) -> Usage {
        self.transcript.has_output = self.transcript.is_ended && self.operation != Operation::TextCompletion;
        let read_usage = if self.has_google_usage { from_gemini } else { from_openai };
        let mut usage = read_usage(&mut self.transcript);
        // Providers of embeddings and of rankings report nothing but the total, which is all input.
        if usage.prompt_tokens.is_none() && usage.completion_tokens.is_none() && usage.total_tokens.is_some() {
            usage.prompt_tokens = usage.total_tokens;
            usage.parts.uncached_input = usage.total_tokens.unwrap_or(0);
            self.transcript.notes.retain(|note| *note != DOES_NOT_ADD_UP);
        }
        usage
    }

    fn fold_common(&mut self, value: &CallValue<'_>) {
        self.transcript.set_identity(value.id.non_empty(), value.model.non_empty());
        let meta = value.meta.0.as_ref().and_then(|meta| meta.tokens.or(meta.billed_units));
        if let Some(usage) = value.usage.filter(|usage| usage.get() != "null").or(meta) {
            self.transcript.set_usage(usage);
            let seconds = serde_json::from_str::<DurationUsage>(usage.get()).ok().and_then(|usage| usage.seconds);
            self.transcript.media.input_seconds = seconds.or(self.transcript.media.input_seconds);
        }
        // Whisper sends a number, imitators a text.
        let duration = value.duration.and_then(|raw| raw.get().trim_matches('"').parse::<f64>().ok());
        if let Some(seconds) = duration.filter(|seconds| seconds.is_finite() && *seconds >= 0.0) {
            self.transcript.media.input_seconds = Some(seconds);
        }
        if let Some(usage) = value.google_usage.filter(|usage| usage.get() != "null") {
            self.has_google_usage = true;
            self.transcript.set_usage(usage);
        }
    }

    fn fold_choices(&mut self, choices: &List<Object<CompletionChoice<'_>>>) {
        for (place, choice) in choices.0.iter().enumerate() {
            let Some(choice) = &choice.0 else { continue };
            let index = choice.index.0.unwrap_or(place as u64);
            let transcript = match index {
                0 => &mut self.transcript,
                other => match self.transcript.other_choice(other) {
                    Some(other) => other,
                    None => continue,
                },
            };
            transcript.append(TranscriptPart::Text, choice.text.non_empty().unwrap_or_default());
            if let Some(reason) = choice.finish_reason.non_empty() {
                transcript.set_finish_reason(reason);
            }
        }
    }

    fn append_text(&mut self, text: Option<&str>) {
        self.transcript.append(TranscriptPart::Text, text.unwrap_or_default());
    }

    fn end(&mut self) -> EventDisposition {
        self.transcript.is_ended = true;
        EventDisposition::End
    }

    /// True if the answer is the text of spoken audio.
    fn is_spoken(&self) -> bool {
        matches!(self.operation, Operation::Transcription | Operation::Translation)
    }

    fn count_outputs(&self, value: &CallValue<'_>) -> Option<u64> {
        let outputs = match self.operation {
            Operation::TextCompletion => value.choices.0.len(),
            Operation::Moderation => value.results.0.len(),
            Operation::Rerank => value.results.0.len().max(value.data.0.len()),
            Operation::Embeddings => {
                value.data.0.len().max(value.embeddings.0.len()).max(usize::from(value.embedding.0.is_some()))
            }
            Operation::ImageGeneration | Operation::ImageEdit | Operation::ImageVariation => value.data.0.len(),
            Operation::ResponseCompaction => value.output.0.len(),
            _ => return None,
        };
        Some(outputs as u64)
    }
}

#[cfg(test)]
mod tests;
