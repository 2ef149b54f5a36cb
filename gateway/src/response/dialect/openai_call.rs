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

use super::error_shape::{find_error, parse_error_member};
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
        if self.transcript.error.is_some() {
            return EventDisposition::End;
        }
        self.fold_choices(&value.choices);
        match value.kind.non_empty().unwrap_or_default() {
            "transcript.text.delta" => self.append_text(value.delta.non_empty()),
            "transcript.text.done" => {
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
        if let Some(error) = value.error.and_then(parse_error_member) {
            self.transcript.set_error(error);
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
mod tests {
    use shared::usage::UsageSource;

    use super::*;

    fn document(operation: Operation, body: &str) -> (Transcript, Usage) {
        let mut fold = CallFold::new(operation, 1);
        fold.fold_document(body.as_bytes());
        let usage = fold.take_usage();
        (fold.transcript, usage)
    }

    #[test]
    fn documents_are_counted_and_their_usage_is_read() {
        let cases = [
            (
                Operation::Embeddings,
                r#"{"object":"list","data":[{"embedding":[]},{"embedding":[]}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
                (Some(2), Some(8), Some(8)),
            ),
            (Operation::Rerank, r#"{"results":[{"index":0}],"usage":{"total_tokens":5}}"#, (Some(1), Some(5), Some(5))),
            (
                Operation::Rerank,
                r#"{"id":"r","results":[{},{}],"meta":{"tokens":{"input_tokens":7},"billed_units":{"search_units":1}}}"#,
                (Some(2), Some(7), Some(7)),
            ),
            (
                Operation::Embeddings,
                r#"{"embedding":{"values":[]},"usageMetadata":{"promptTokenCount":6,"totalTokenCount":6}}"#,
                (Some(1), Some(6), Some(6)),
            ),
            (Operation::Embeddings, r#"{"embeddings":[{"values":[]},{"values":[]}]}"#, (Some(2), None, None)),
            (Operation::Moderation, r#"{"id":"m","results":[{"flagged":true}]}"#, (Some(1), None, None)),
            (
                Operation::ImageGeneration,
                r#"{"data":[{"b64_json":"AA"}],"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}"#,
                (Some(1), Some(3), Some(7)),
            ),
            (Operation::Rerank, r#"[{"index":0,"score":0.5},{"index":1,"score":0.1}]"#, (Some(2), None, None)),
        ];
        for (operation, body, expected) in cases {
            let (transcript, usage) = document(operation, body);
            let found = (transcript.media.output_items, usage.prompt_tokens, usage.total_tokens);
            assert_eq!(found, expected, "{body}");
            assert!(transcript.is_ended && transcript.error.is_none() && !transcript.has_content(), "{body}");
        }
    }

    #[test]
    fn transcripts_are_text_in_every_format() {
        let cases = [
            (r#"{"text":"Hello.","usage":{"type":"duration","seconds":3}}"#, "Hello.", Some(3.0)),
            (r#"{"task":"transcribe","duration":2.5,"text":"Hello.","segments":[{"tokens":[]}]}"#, "Hello.", Some(2.5)),
            ("1\n00:00:00,000 --> 00:00:01,000\nHello.\n", "1\n00:00:00,000 --> 00:00:01,000\nHello.\n", None),
            ("Hello.\n", "Hello.\n", None),
        ];
        for (body, text, seconds) in cases {
            let (transcript, _) = document(Operation::Transcription, body);
            assert_eq!((transcript.text.as_str(), transcript.media.input_seconds), (text, seconds), "{body}");
        }
    }

    #[test]
    fn an_error_with_a_success_status_is_an_error() {
        let (transcript, usage) = document(Operation::Embeddings, r#"{"error":{"message":"m","type":"t"}}"#);
        assert_eq!(transcript.error.unwrap().message, "m");
        assert_eq!(usage.source, UsageSource::Unknown);
        assert!(document(Operation::Embeddings, "<html>").0.error.is_some());
    }
}
