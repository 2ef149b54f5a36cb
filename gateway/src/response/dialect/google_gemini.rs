//! The Gemini dialect: `generateContent` and `streamGenerateContent` of Google, and of services that imitate them.
//!
//! - Text is that of all text parts, reasoning that of the parts marked as `thought`. Pictures and sounds are not recorded.
//! - Client tools are `functionCall` parts, complete or in pieces (`partialArgs`), which are joined. Code that the provider
//!   runs and calls of its own tools are only counted.
//! - The first candidate is the response; further candidates are further choices. A response without `index` is the first.
//! - Without `alt=sse`, a stream is a JSON list. Each element is folded as an event when it is complete.
//! - No event marks the end. Any chunk with a finish reason may be the last, so each one is held back until the next
//!   chunk arrives or the body ends.
//! - A prompt that was blocked has no candidate: the finish reason is the reason for the block.

mod function_calls;
mod json_path;
mod partial_arguments;
mod shape;

use super::error_shape::{error_from_text, find_error, parse_error_member};
use super::event_disposition::EventDisposition;
use super::json_values::for_each_value;
use crate::json::repair::repair;
use crate::response::sse::{EventCompleteness, SseEvent, is_done_data};
use crate::response::transcript::{Transcript, TranscriptPart};
use function_calls::FunctionCalls;
use shape::{Candidate, ContentPart, ResponseChunk};

/// The fold of one response.
#[derive(Debug, Default)]
pub struct GenerateContentFold {
    /// The transcript so far.
    pub transcript: Transcript,
    /// The function calls of the first candidate.
    calls: FunctionCalls,
    /// The function calls of the other candidates, each with the index of its candidate.
    other_calls: Vec<(u64, FunctionCalls)>,
}

impl GenerateContentFold {
    /// Folds one event of a stream.
    pub fn fold_event(&mut self, event: &SseEvent<'_>) -> EventDisposition {
        let Some(data) = event.data else {
            // A chunk that is too long to be read may have the finish reason.
            let is_unread = event.completeness == EventCompleteness::TooLong;
            return if is_unread { EventDisposition::PossibleEnd } else { EventDisposition::Forward };
        };
        if is_done_data(data) {
            self.transcript.note("done_sent");
            return EventDisposition::End;
        }
        match self.fold_chunk(data) {
            ChunkEffect::Error => EventDisposition::End,
            ChunkEffect::Finished => EventDisposition::PossibleEnd,
            ChunkEffect::Continued => EventDisposition::Forward,
            ChunkEffect::Unreadable if event.name == "error" => {
                self.transcript.set_error(error_from_text(data));
                EventDisposition::End
            }
            ChunkEffect::Unreadable => {
                if !data.is_empty() {
                    self.transcript.note("unreadable_event");
                }
                EventDisposition::Forward
            }
        }
    }

    /// Folds a response that is one JSON document, or a list of chunks.
    pub fn fold_document(&mut self, body: &[u8]) {
        for_each_value(body, |json| {
            if self.fold_chunk(json) == ChunkEffect::Unreadable {
                self.transcript.note("unreadable_document");
            }
        });
    }

    /// Completes the transcript after the end of the response, also of a response that broke off.
    pub(super) fn finish(&mut self) {
        self.calls.finish(&mut self.transcript);
        for (index, calls) in &mut self.other_calls {
            if let Some(other) = self.transcript.other_choice(*index) {
                calls.finish(other);
            }
        }
        let is_shortened =
            |note: &&str| matches!(*note, "event_shortened_to_be_read" | "document_shortened_to_be_read");
        if self.transcript.notes.iter().any(is_shortened) {
            self.transcript.mark_shortened();
        }
    }

    fn fold_chunk(&mut self, json: &[u8]) -> ChunkEffect {
        let Ok(chunk) = serde_json::from_slice::<ResponseChunk<'_>>(json) else {
            if let Some((repaired, note)) = repair(json) {
                self.transcript.note(note);
                return self.fold_chunk(repaired.as_bytes());
            }
            return match find_error(json) {
                Some(error) => {
                    self.transcript.set_error(error);
                    ChunkEffect::Error
                }
                None => ChunkEffect::Unreadable,
            };
        };
        // Code Assist, Vertex proxies and others wrap the chunk.
        if let Some(wrapped) = chunk.response.filter(|_| chunk.candidates.0.is_empty()) {
            return self.fold_chunk(wrapped.get().as_bytes());
        }
        if let Some(error) = chunk.error.and_then(parse_error_member) {
            self.transcript.set_error(error);
            return ChunkEffect::Error;
        }
        self.transcript.set_identity(chunk.response_id.non_empty(), chunk.model_version.non_empty());
        if let Some(usage) = chunk.usage_metadata {
            self.transcript.set_usage(usage);
        }
        let mut effect = ChunkEffect::Continued;
        for candidate in chunk.candidates.0.iter().filter_map(|candidate| candidate.0.as_ref()) {
            self.fold_candidate(candidate);
            if candidate.finish_reason().is_some() {
                effect = ChunkEffect::Finished;
            }
        }
        let block = chunk.prompt_feedback.0.as_ref().and_then(|feedback| feedback.block_reason());
        if let Some(reason) = block {
            self.transcript.set_finish_reason(reason);
            self.transcript.note("prompt_blocked");
            effect = ChunkEffect::Finished;
        }
        effect
    }

    fn fold_candidate(&mut self, candidate: &Candidate<'_>) {
        let index = candidate.index.0.unwrap_or(0);
        if index == 0 {
            return fold_candidate(&mut self.transcript, &mut self.calls, candidate);
        }
        self.transcript.note("several_choices");
        let Some(other) = self.transcript.other_choice(index) else { return };
        let known = self.other_calls.iter().position(|(number, _)| *number == index);
        let position = known.unwrap_or_else(|| {
            self.other_calls.push((index, FunctionCalls::default()));
            self.other_calls.len() - 1
        });
        fold_candidate(other, &mut self.other_calls[position].1, candidate);
    }
}

/// The effect of a chunk on the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkEffect {
    Continued,
    /// A candidate has its finish reason, or the prompt was blocked.
    Finished,
    Error,
    Unreadable,
}

fn fold_candidate(transcript: &mut Transcript, calls: &mut FunctionCalls, candidate: &Candidate<'_>) {
    let parts = candidate.content.0.iter().flat_map(|content| &content.parts.0).filter_map(|part| part.0.as_ref());
    for part in parts {
        fold_part(transcript, calls, part);
    }
    if let Some(reason) = candidate.finish_reason() {
        transcript.set_finish_reason(reason);
        calls.record_complete(transcript);
    }
}

fn fold_part(transcript: &mut Transcript, calls: &mut FunctionCalls, part: &ContentPart<'_>) {
    if let Some(text) = part.text.non_empty() {
        let target = if part.thought.0 { TranscriptPart::Reasoning } else { TranscriptPart::Text };
        transcript.append(target, text);
    }
    if let Some(call) = &part.function_call.0 {
        calls.fold(transcript, call);
    }
    if part.executable_code.0.is_some() || part.tool_call.0.is_some() {
        transcript.server_tool_calls += 1;
    }
    transcript.has_unrecorded_content |= part.has_unrecorded_content();
    if let Some(spoken) = part.audio_transcription.0.as_ref().and_then(|transcription| transcription.text.non_empty()) {
        transcript.append(TranscriptPart::AudioTranscript, spoken);
    }
}
