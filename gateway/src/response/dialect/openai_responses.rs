//! OpenAI responses: `/v1/responses` of OpenAI, and of everyone who imitates it.
//!
//! A stream says everything up to three times: in deltas, when an item is done, and in the response that the last event
//! carries. Deltas are folded as they come; what an item says when it is done fills in what no delta said; the `output` of
//! the last response, where there is any (some leave it empty though items came), is the final word.
//!
//! - Text is that of all `output_text` parts, reasoning the summaries, else the reasoning text.
//! - Client tools are `function_call` and `custom_tool_call` items. Every other item that is no message and no reasoning is
//!   a server tool's, or one that this gateway cannot know, and is counted.
//! - The finish reason is the status, or why the response is incomplete.

mod shape;

use super::error_shape::{error_in, error_object, spoken};
use super::json_values::each_value;
use super::signal::Signal;
use crate::json::repair::righted;
use crate::response::sse::{Length, SseEvent, is_done};
use crate::response::transcript::{Part, Transcript};
use shape::{EventData, Item, Response};

/// How many parts and items are told apart.
const MAX_PLACES: usize = 4096;

/// The most reasoning text that is kept aside.
const MAX_ASIDE_BYTES: usize = 1 << 20;

/// The fold of one answer.
#[derive(Debug, Default)]
pub struct Fold {
    /// What it has come to so far.
    pub transcript: Transcript,
    /// The parts that deltas have spoken of, the latest last.
    spoken: Vec<Place>,
    /// The tool calls, by the index of their item, in the order of the transcript's.
    calls: Vec<u64>,
    /// Items of server tools, by their index.
    server_items: Vec<u64>,
    /// Reasoning text: it counts where no summary comes.
    reasoning_text: String,
}

/// A part of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    what: What,
    item: u64,
    part: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Text,
    Refusal,
    Summary,
    Reasoning,
    Arguments,
}

impl Fold {
    /// Folds one event of a stream.
    pub fn event(&mut self, event: &SseEvent<'_>) -> Signal {
        let Some(data) = event.data else { return self.unread(event) };
        if is_done(data) {
            self.transcript.note("done_sent");
            return Signal::End;
        }
        let Ok(read) = serde_json::from_slice::<EventData<'_>>(data) else {
            if let Some((righted, note)) = righted(data) {
                self.transcript.note(note);
                return self.event(&SseEvent { data: Some(righted.as_bytes()), ..event.clone() });
            }
            if event.name == "error" || error_in(data).is_some() {
                self.transcript.fail(error_in(data).unwrap_or_else(|| spoken(data)));
                return Signal::End;
            }
            if !data.is_empty() {
                self.transcript.note("unreadable_event");
            }
            return Signal::Pass;
        };
        let kind = read.kind.filled().unwrap_or(event.name);
        let (item, delta) = (read.output_index.0.unwrap_or(0), read.delta.filled().unwrap_or(""));
        let part = read.content_index.0.or(read.summary_index.0).unwrap_or(0);
        match kind {
            "response.output_text.delta" => self.say(Place { what: What::Text, item, part }, delta),
            "response.refusal.delta" => self.say(Place { what: What::Refusal, item, part }, delta),
            "response.reasoning_summary_text.delta" => self.say(Place { what: What::Summary, item, part }, delta),
            "response.reasoning_text.delta" => self.say(Place { what: What::Reasoning, item, part }, delta),
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                self.say(Place { what: What::Arguments, item, part: 0 }, delta);
            }
            "response.output_item.added" => {
                if let Some(added) = &read.item.0 {
                    self.open_item(item, added);
                }
            }
            "response.output_item.done" => {
                if let Some(done) = &read.item.0 {
                    self.item_done(item, done);
                }
            }
            "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
                // Some have the error beside the response, or in its place.
                if let Some(error) = read.error.and_then(error_object) {
                    self.transcript.fail(error);
                }
                match read.response.0 {
                    Some(response) => self.response(response, kind),
                    None if kind == "response.failed" => {
                        self.transcript.finish("failed");
                        self.transcript.fail(spoken(b"the response failed"));
                    }
                    None => {}
                }
                self.transcript.ended = true;
                return Signal::End;
            }
            "error" | "response.error" => return self.other_event(kind, &read, data),
            _ => {
                if let Some(response) = &read.response.0 {
                    self.identify(response);
                } else if !kind.starts_with("response.") {
                    return self.other_event(kind, &read, data);
                }
            }
        }
        Signal::Pass
    }

    /// An event without data. One that was too long to be read may be the end all the same.
    fn unread(&mut self, event: &SseEvent<'_>) -> Signal {
        match event.name.strip_prefix("response.") {
            Some(status @ ("completed" | "incomplete" | "failed" | "cancelled")) if event.length == Length::TooLong => {
                self.transcript.finish(status);
                if status == "failed" {
                    self.transcript.fail(spoken(b"the response failed"));
                }
                Signal::End
            }
            _ => Signal::Pass,
        }
    }

    /// Folds an answer that is one JSON document.
    pub fn document(&mut self, body: &[u8]) {
        each_value(body, |json| self.whole(json));
    }

    fn whole(&mut self, json: &[u8]) {
        match serde_json::from_slice::<Response<'_>>(json) {
            Ok(response) if response.output.is_some() || response.status.filled().is_some() => {
                self.response(response, "");
            }
            Err(_) if let Some((righted, note)) = righted(json) => {
                self.transcript.note(note);
                self.whole(righted.as_bytes());
            }
            _ => match error_in(json) {
                Some(error) => self.transcript.fail(error),
                None => self.transcript.note("unreadable_document"),
            },
        }
    }

    /// What was kept apart until now goes into the transcript.
    pub fn settle(&mut self) {
        let text = std::mem::take(&mut self.reasoning_text);
        if self.transcript.reasoning.is_empty() {
            self.transcript.push(Part::Reasoning, &text);
        }
    }

    /// An error, or something that is no part of this dialect.
    fn other_event(&mut self, kind: &str, read: &EventData<'_>, data: &[u8]) -> Signal {
        let error = read.error.and_then(error_object).or_else(|| error_in(data));
        match error.or_else(|| matches!(kind, "error" | "response.error").then(|| spoken(data))) {
            Some(error) => {
                self.transcript.fail(error);
                Signal::End
            }
            None => {
                if !matches!(kind, "keepalive" | "ping" | "") && !kind.starts_with("codex.") {
                    self.transcript.note("unknown_event");
                }
                Signal::Pass
            }
        }
    }

    /// What a response says of itself, before its end or at it.
    fn identify(&mut self, response: &Response<'_>) {
        self.transcript.identify(response.id.filled(), response.model.filled());
        if let Some(usage) = response.usage {
            self.transcript.report(usage);
        }
    }

    /// The whole response. Its id is the one that a client goes on with, should the first event have had another.
    fn response(&mut self, response: Response<'_>, kind: &str) {
        if response.id.filled().is_some() {
            self.transcript.response_id = None;
        }
        self.identify(&response);
        let output = response.output.unwrap_or_default().0;
        let items: Vec<Item<'_>> = output.into_iter().filter_map(|item| item.0).collect();
        if items.is_empty() {
            if self.transcript.has_answer() {
                self.transcript.note("final_output_empty");
            }
        } else {
            self.transcript.start_over();
            self.spoken.clear();
            self.calls.clear();
            self.server_items.clear();
            self.reasoning_text.clear();
            for (index, item) in (0..).zip(&items) {
                self.item_done(index, item);
            }
        }
        let why = response.incomplete_details.0.as_ref().and_then(|details| details.reason.filled());
        let status = response.status.filled().or_else(|| kind.strip_prefix("response."));
        match status {
            Some("incomplete") => self.transcript.finish(why.unwrap_or("incomplete")),
            Some("queued" | "in_progress") => {
                self.transcript.note("answered_in_background");
                self.transcript.finish(status.unwrap_or_default());
            }
            Some(status) => self.transcript.finish(status),
            None => {}
        }
        if let Some(error) = response.error.and_then(error_object) {
            self.transcript.fail(error);
        } else if status == Some("failed") {
            self.transcript.fail(spoken(b"the response failed"));
        }
    }

    /// An item begins.
    fn open_item(&mut self, index: u64, item: &Item<'_>) {
        match item.kind.filled().unwrap_or("") {
            "message" | "reasoning" => {}
            "function_call" | "custom_tool_call" => {
                if let Some(place) = self.call(index) {
                    self.transcript.name_call(place, item.call_id.filled().or(item.id.filled()), item.name.filled());
                }
            }
            _ => {
                if !self.server_items.contains(&index) && self.server_items.len() < MAX_PLACES {
                    self.server_items.push(index);
                    self.transcript.server_tool_calls += 1;
                }
            }
        }
    }

    /// An item is complete: what no delta has said of it is taken from it.
    fn item_done(&mut self, index: u64, item: &Item<'_>) {
        self.open_item(index, item);
        let kind = item.kind.filled().unwrap_or("");
        if matches!(kind, "function_call" | "custom_tool_call") {
            let arguments = if kind == "function_call" { item.arguments() } else { item.input() };
            return self.fill(Place { what: What::Arguments, item: index, part: 0 }, &arguments);
        }
        for (part, content) in (0..).zip(item.contents()) {
            let what = match content.kind.filled().unwrap_or("") {
                "refusal" => What::Refusal,
                "reasoning_text" => What::Reasoning,
                _ if kind == "reasoning" => What::Reasoning,
                "output_text" | "text" if kind == "message" => What::Text,
                _ => continue,
            };
            let words = if what == What::Refusal { &content.refusal } else { &content.text };
            self.fill(Place { what, item: index, part }, words.filled().unwrap_or(""));
        }
        if kind == "reasoning" {
            for (part, summary) in (0..).zip(item.summaries()) {
                self.fill(Place { what: What::Summary, item: index, part }, summary.text.filled().unwrap_or(""));
            }
        }
    }

    /// Says this in its place, unless deltas have.
    fn fill(&mut self, place: Place, words: &str) {
        if !self.spoken.contains(&place) {
            self.say(place, words);
        }
    }

    fn say(&mut self, place: Place, words: &str) {
        if self.spoken.last() != Some(&place) && !self.spoken.contains(&place) {
            if self.spoken.len() == MAX_PLACES {
                return self.transcript.note("too_many_parts");
            }
            self.spoken.push(place);
        }
        match place.what {
            What::Text => self.transcript.push(Part::Text, words),
            What::Refusal => self.transcript.push(Part::Refusal, words),
            What::Summary => self.transcript.push(Part::Reasoning, words),
            What::Reasoning => {
                let room = MAX_ASIDE_BYTES.saturating_sub(self.reasoning_text.len());
                self.reasoning_text.push_str(&words[..words.floor_char_boundary(room)]);
            }
            What::Arguments => {
                if let Some(call) = self.call(place.item) {
                    self.transcript.push(Part::Arguments(call), words);
                }
            }
        }
    }

    /// The place of the tool call of this item, which is opened where it is not yet.
    fn call(&mut self, item: u64) -> Option<usize> {
        if let Some(place) = self.calls.iter().rposition(|known| *known == item) {
            return Some(place);
        }
        let place = self.transcript.open_call()?;
        self.calls.push(item);
        Some(place)
    }
}
