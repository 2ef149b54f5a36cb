//! The OpenAI Responses dialect: `/v1/responses` of OpenAI and of providers that imitate OpenAI's API.
//!
//! A stream contains all content up to three times: in deltas, in completed items, and in the response that the last
//! event carries. Deltas are folded as they arrive. A completed item adds only content that no delta has delivered. The
//! `output` of the last response replaces all content, unless empty (some providers leave `output` empty although there
//! were items).
//!
//! - Text is that of all `output_text` parts. Reasoning is that of the summaries, else the reasoning text.
//! - Client tools are `function_call` and `custom_tool_call` items. All other items except messages and reasoning are
//!   counted as calls of server tools, including items of unknown types.
//! - The finish reason is the status, or the reason for which the response is incomplete.

mod shape;

use super::error_shape::{error_from_text, find_error, parse_error_member};
use super::event_disposition::EventDisposition;
use super::json_values::for_each_value;
use crate::json::repair::repair;
use crate::response::sse::{EventCompleteness, SseEvent, is_done_data};
use crate::response::transcript::{Transcript, TranscriptPart};
use shape::{OutputItem, ResponseEvent, ResponseObject};

/// The maximum number of distinct parts and items.
const MAX_PARTS: usize = 4096;

/// The maximum size of reasoning text held aside, in bytes.
const MAX_REASONING_TEXT_BYTES: usize = 1 << 20;

/// The fold of one response.
#[derive(Debug, Default)]
pub struct ResponsesFold {
    /// The transcript so far.
    pub transcript: Transcript,
    /// The parts that deltas have delivered, the latest last.
    delivered_parts: Vec<PartKey>,
    /// The output indexes of the tool calls, in the order of the transcript's tool calls.
    calls: Vec<u64>,
    /// The output indexes of the server tools' items.
    server_items: Vec<u64>,
    /// The reasoning text. Used only if there is no summary.
    reasoning_text: String,
}

/// The key of a part within an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PartKey {
    kind: PartKind,
    item: u64,
    part: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartKind {
    Text,
    Refusal,
    Summary,
    Reasoning,
    Arguments,
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
        let kind = read.kind.non_empty().unwrap_or(event.name);
        let (item, delta) = (read.output_index.0.unwrap_or(0), read.delta.non_empty().unwrap_or(""));
        let part = read.content_index.0.or(read.summary_index.0).unwrap_or(0);
        match kind {
            "response.output_text.delta" => self.append_part(PartKey { kind: PartKind::Text, item, part }, delta),
            "response.refusal.delta" => self.append_part(PartKey { kind: PartKind::Refusal, item, part }, delta),
            "response.reasoning_summary_text.delta" => {
                self.append_part(PartKey { kind: PartKind::Summary, item, part }, delta);
            }
            "response.reasoning_text.delta" => {
                self.append_part(PartKey { kind: PartKind::Reasoning, item, part }, delta);
            }
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                self.append_part(PartKey { kind: PartKind::Arguments, item, part: 0 }, delta);
            }
            "response.output_item.added" => {
                if let Some(added) = &read.item.0 {
                    self.open_item(item, added);
                }
            }
            "response.output_item.done" => {
                if let Some(done) = &read.item.0 {
                    self.finish_item(item, done);
                }
            }
            "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
                // Some providers send the error beside the response, or in its place.
                if let Some(error) = read.error.and_then(parse_error_member) {
                    self.transcript.set_error(error);
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
                if let Some(response) = &read.response.0 {
                    self.update_response(response);
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
            Some(status @ ("completed" | "incomplete" | "failed" | "cancelled"))
                if event.completeness == EventCompleteness::TooLong =>
            {
                self.transcript.set_finish_reason(status);
                if status == "failed" {
                    self.transcript.set_error(error_from_text(b"the response failed"));
                }
                EventDisposition::End
            }
            _ => EventDisposition::Forward,
        }
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
        let text = std::mem::take(&mut self.reasoning_text);
        if self.transcript.reasoning.is_empty() {
            self.transcript.append(TranscriptPart::Reasoning, &text);
        }
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

    /// Folds the complete response object. Its id replaces an earlier one: clients refer to the last id in later
    /// requests.
    fn finish_response(&mut self, response: ResponseObject<'_>, kind: &str) {
        if response.id.non_empty().is_some() {
            self.transcript.response_id = None;
        }
        self.update_response(&response);
        let output = response.output.unwrap_or_default().0;
        let items: Vec<OutputItem<'_>> = output.into_iter().filter_map(|item| item.0).collect();
        if items.is_empty() {
            if self.transcript.has_content() {
                self.transcript.note("final_output_empty");
            }
        } else {
            self.transcript.clear_content();
            self.delivered_parts.clear();
            self.calls.clear();
            self.server_items.clear();
            self.reasoning_text.clear();
            for (index, item) in (0..).zip(&items) {
                self.finish_item(index, item);
            }
        }
        let why = response.incomplete_details.0.as_ref().and_then(|details| details.reason.non_empty());
        let status = response.status.non_empty().or_else(|| kind.strip_prefix("response."));
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
        }
    }

    /// Opens an item, once per output index.
    fn open_item(&mut self, index: u64, item: &OutputItem<'_>) {
        match item.kind.non_empty().unwrap_or("") {
            "message" | "reasoning" => {}
            "function_call" | "custom_tool_call" => {
                if let Some(key) = self.call_position(index) {
                    self.transcript.name_tool_call(
                        key,
                        item.call_id.non_empty().or(item.id.non_empty()),
                        item.name.non_empty(),
                    );
                }
            }
            _ => {
                if !self.server_items.contains(&index) && self.server_items.len() < MAX_PARTS {
                    self.server_items.push(index);
                    self.transcript.server_tool_calls += 1;
                }
            }
        }
    }

    /// Folds a complete item: content that no delta has delivered is taken from the item.
    fn finish_item(&mut self, index: u64, item: &OutputItem<'_>) {
        self.open_item(index, item);
        let kind = item.kind.non_empty().unwrap_or("");
        if matches!(kind, "function_call" | "custom_tool_call") {
            let arguments = if kind == "function_call" { item.arguments() } else { item.input() };
            return self.append_if_missing(PartKey { kind: PartKind::Arguments, item: index, part: 0 }, &arguments);
        }
        for (part, content) in (0..).zip(item.contents()) {
            let part_kind = match content.kind.non_empty().unwrap_or("") {
                "refusal" => PartKind::Refusal,
                "reasoning_text" => PartKind::Reasoning,
                _ if kind == "reasoning" => PartKind::Reasoning,
                "output_text" | "text" if kind == "message" => PartKind::Text,
                _ => continue,
            };
            let words = if part_kind == PartKind::Refusal { &content.refusal } else { &content.text };
            self.append_if_missing(PartKey { kind: part_kind, item: index, part }, words.non_empty().unwrap_or(""));
        }
        if kind == "reasoning" {
            for (part, summary) in (0..).zip(item.summaries()) {
                self.append_if_missing(
                    PartKey { kind: PartKind::Summary, item: index, part },
                    summary.text.non_empty().unwrap_or(""),
                );
            }
        }
    }

    /// Appends the text of a part, unless deltas have delivered the part.
    fn append_if_missing(&mut self, key: PartKey, words: &str) {
        if !self.delivered_parts.contains(&key) {
            self.append_part(key, words);
        }
    }

    fn append_part(&mut self, key: PartKey, words: &str) {
        if self.delivered_parts.last() != Some(&key) && !self.delivered_parts.contains(&key) {
            if self.delivered_parts.len() == MAX_PARTS {
                return self.transcript.note("too_many_parts");
            }
            self.delivered_parts.push(key);
        }
        match key.kind {
            PartKind::Text => self.transcript.append(TranscriptPart::Text, words),
            PartKind::Refusal => self.transcript.append(TranscriptPart::Refusal, words),
            PartKind::Summary => self.transcript.append(TranscriptPart::Reasoning, words),
            PartKind::Reasoning => {
                let room = MAX_REASONING_TEXT_BYTES.saturating_sub(self.reasoning_text.len());
                self.reasoning_text.push_str(&words[..words.floor_char_boundary(room)]);
            }
            PartKind::Arguments => {
                if let Some(call) = self.call_position(key.item) {
                    self.transcript.append(TranscriptPart::Arguments(call), words);
                }
            }
        }
    }

    /// The index of the tool call for an item. Opens the tool call if necessary.
    fn call_position(&mut self, item: u64) -> Option<usize> {
        if let Some(key) = self.calls.iter().rposition(|known| *known == item) {
            return Some(key);
        }
        let key = self.transcript.open_tool_call()?;
        self.calls.push(item);
        Some(key)
    }
}
