//! The OpenAI Responses dialect: `/v1/responses` of OpenAI and of providers that imitate OpenAI's API.
//!
//! A stream contains all content up to three times: in deltas, in completed items, and in the response that the last
//! event carries. Deltas are folded as they arrive. A completed item adds only content that no delta has delivered. The
//! `output` of the last response replaces all content, unless empty (some providers leave `output` empty although there
//! were items).
//!
//! - Text is that of all `output_text` parts. Reasoning is that of the summaries, else the reasoning text.
//! - Calls that the client carries out or answers are recorded as tool calls; calls of the provider's own tools are
//!   counted; outputs, lists of tools and compacted context are neither. See `item_kind.rs`.
//! - Events are assigned to items by ids, output index and order, because imitations leave out some of these. See
//!   `item_table.rs`.
//! - The finish reason is the status, or the reason for which the response is incomplete.

mod item_kind;
mod item_table;
mod output_fold;
mod part;
mod shape;

use shared::event::ChatError;

use super::error_shape::{error_from_text, find_error, parse_error_member};
use super::event_disposition::EventDisposition;
use super::json_values::for_each_value;
use crate::json::repair::repair;
use crate::response::sse::{EventCompleteness, SseEvent, is_done_data};
use crate::response::transcript::{Transcript, TranscriptPart};
use output_fold::{ContentSource, OutputFold};
use part::PartKind;
use shape::{OutputItem, ResponseEvent, ResponseObject};

/// The fold of one response.
#[derive(Debug, Default)]
pub struct ResponsesFold {
    /// The transcript so far.
    pub transcript: Transcript,
    output: OutputFold,
    /// The sequence number of the last event that has one.
    sequence_number: Option<u64>,
}

impl ResponsesFold {
    /// Folds one event of a stream.
    pub fn fold_event(&mut self, event: &SseEvent<'_>) -> EventDisposition {
        let Some(data) = event.data else { return self.event_without_data(event) };
        if is_done_data(data) {
            self.transcript.note("done_sent");
            return EventDisposition::End;
        }
        let Ok(read) = serde_json::from_slice::<ResponseEvent<'_>>(data) else {
            if let Some((repaired, note)) = repair(data) {
                self.transcript.note(note);
                return self.fold_event(&SseEvent { data: Some(repaired.as_bytes()), ..event.clone() });
            }
            if event.name == "error" || find_error(data).is_some() {
                self.transcript.set_error(find_error(data).unwrap_or_else(|| error_from_text(data)));
                return EventDisposition::End;
            }
            if !data.is_empty() {
                self.transcript.note("unreadable_event");
            }
            return EventDisposition::Forward;
        };
        self.sequence_number = read.sequence_number.0.or(self.sequence_number);
        let kind = read.kind.non_empty().unwrap_or(event.name);
        match kind {
            "response.output_item.added" => self.output.open_item(&mut self.transcript, &read),
            "response.output_item.done" => self.output.finish_item(&mut self.transcript, &read),
            "response.content_part.added"
            | "response.reasoning_part.added"
            | "response.reasoning_summary_part.added" => {
                self.output.part_event(&mut self.transcript, kind, &read, ContentSource::Opening);
            }
            "response.content_part.done" | "response.reasoning_part.done" | "response.reasoning_summary_part.done" => {
                self.output.part_event(&mut self.transcript, kind, &read, ContentSource::Complete);
            }
            "response.completed"
            | "response.incomplete"
            | "response.failed"
            | "response.cancelled"
            | "response.done" => {
                // Some providers send the error beside the response, or in its place.
                if let Some(error) = read.error.and_then(parse_error_member) {
                    self.transcript.set_error(error);
                }
                if let Some(usage) = read.usage {
                    self.transcript.set_usage(usage);
                }
                match read.response.0 {
                    Some(response) => self.finish_response(response, kind),
                    None if kind == "response.failed" => {
                        self.transcript.set_finish_reason("failed");
                        self.transcript.set_error(error_from_text(b"the response failed"));
                    }
                    None => {}
                }
                self.transcript.is_ended = true;
                return EventDisposition::End;
            }
            "error" | "response.error" => return self.other_event(kind, &read, data),
            _ => {
                if let Some(part_kind) = PartKind::of_event(kind) {
                    self.output.text_event(&mut self.transcript, kind, part_kind, &read);
                } else if let Some(response) = &read.response.0 {
                    self.update_response(response);
                } else if is_sound_or_picture(kind) {
                    self.transcript.has_unrecorded_content = true;
                } else if !kind.starts_with("response.") {
                    return self.other_event(kind, &read, data);
                }
            }
        }
        EventDisposition::Forward
    }

    /// Folds an event without data. An event that was too long to be kept may still be the end, as its name tells.
    fn event_without_data(&mut self, event: &SseEvent<'_>) -> EventDisposition {
        match event.name.strip_prefix("response.") {
            Some(status @ ("completed" | "incomplete" | "failed" | "cancelled" | "done"))
                if event.completeness == EventCompleteness::TooLong =>
            {
                self.transcript.set_finish_reason(if status == "done" { "completed" } else { status });
                if status == "failed" {
                    self.transcript.set_error(error_from_text(b"the response failed"));
                }
                EventDisposition::End
            }
            _ => EventDisposition::Forward,
        }
    }

    /// The sequence number of an event after those of the stream so far.
    pub(super) fn next_sequence_number(&self) -> u64 {
        self.sequence_number.map_or(0, |last| last.saturating_add(1))
    }

    /// Folds a response that is one JSON document.
    pub fn fold_document(&mut self, body: &[u8]) {
        for_each_value(body, |json| self.fold_response(json));
    }

    fn fold_response(&mut self, json: &[u8]) {
        match serde_json::from_slice::<ResponseObject<'_>>(json) {
            Ok(response) if response.output.is_some() || response.status.non_empty().is_some() => {
                self.finish_response(response, "");
            }
            Err(_) if let Some((repaired, note)) = repair(json) => {
                self.transcript.note(note);
                self.fold_response(repaired.as_bytes());
            }
            _ => match find_error(json) {
                Some(error) => self.transcript.set_error(error),
                None => self.transcript.note("unreadable_document"),
            },
        }
    }

    /// Adds the content held aside to the transcript. Called once, after the end.
    pub fn finish(&mut self) {
        self.output.finish(&mut self.transcript);
    }

    /// Folds an error, or an event outside the dialect.
    fn other_event(&mut self, kind: &str, read: &ResponseEvent<'_>, data: &[u8]) -> EventDisposition {
        let error = read.error.and_then(parse_error_member).or_else(|| find_error(data));
        match error.or_else(|| matches!(kind, "error" | "response.error").then(|| error_from_text(data))) {
            Some(error) => {
                self.transcript.set_error(error);
                EventDisposition::End
            }
            None => {
                if !matches!(kind, "keepalive" | "ping" | "") && !kind.starts_with("codex.") {
                    self.transcript.note("unknown_event");
                }
                EventDisposition::Forward
            }
        }
    }

    /// Takes id, model and usage from a response object, before the end or at the end.
    fn update_response(&mut self, response: &ResponseObject<'_>) {
        self.transcript.set_identity(response.id.non_empty(), response.model.non_empty());
        if let Some(usage) = response.usage {
            self.transcript.set_usage(usage);
        }
    }

    /// Folds the complete response object. Its id replaces an earlier one, because clients refer to the last id in later
    /// requests; its model does too, because a router names the model that has answered at the end.
    fn finish_response(&mut self, response: ResponseObject<'_>, kind: &str) {
        if response.id.non_empty().is_some() {
            self.transcript.response_id = None;
        }
        if response.model.non_empty().is_some() {
            self.transcript.model = None;
        }
        self.update_response(&response);
        let output = response.output.unwrap_or_default().0;
        let items: Vec<OutputItem<'_>> = output.into_iter().filter_map(|item| item.0).collect();
        if !items.is_empty() {
            self.output.replace(&mut self.transcript, &items);
        } else if self.transcript.has_content() {
            self.transcript.note("final_output_empty");
        } else if let Some(text) = response.output_text.non_empty() {
            self.transcript.append(TranscriptPart::Text, text);
        }
        let why = response.incomplete_details.0.as_ref().and_then(|details| details.reason.non_empty());
        let status =
            response.status.non_empty().or_else(|| kind.strip_prefix("response.").filter(|kind| *kind != "done"));
        match status {
            Some("incomplete") => self.transcript.set_finish_reason(why.unwrap_or("incomplete")),
            Some("queued" | "in_progress") => {
                self.transcript.note("answered_in_background");
                self.transcript.set_finish_reason(status.unwrap_or_default());
            }
            Some(status) => self.transcript.set_finish_reason(status),
            None => {}
        }
        if let Some(error) = response.error.and_then(parse_error_member) {
            self.transcript.set_error(error);
        } else if status == Some("failed") {
            self.transcript.set_error(error_from_text(b"the response failed"));
        } else if status == Some("cancelled") {
            self.transcript.set_error(ChatError::new("cancelled", "the response was cancelled"));
        }
    }
}

/// True for events with a piece of content that is not recorded.
fn is_sound_or_picture(kind: &str) -> bool {
    matches!(
        kind,
        "response.audio.delta" | "response.output_audio.delta" | "response.image.delta" | "response.output_image.delta"
    )
}
