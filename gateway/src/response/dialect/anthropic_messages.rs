//! The Anthropic Messages dialect: `/v1/messages` of Anthropic, of clouds that resell Anthropic's models, and of
//! proxies.
//!
//! - Text is that of all text blocks, reasoning that of all thinking blocks. Redacted thinking is noted.
//! - Client tools are `tool_use` blocks. Other blocks of tool use belong to server tools and are only counted.
//! - The arguments of a tool call are its deltas, joined; without deltas, the input with which the block was opened.
//! - Usage is that of all events, merged member by member. Never a sum.
//! - The model is the one that a `fallback` block names last, else that of the first event.
//! - A second `message_start` starts the content over. The first id is kept.

mod shape;

use serde_json::value::RawValue;

use super::error_shape::{error_from_text, find_error, parse_error_member};
use super::event_disposition::EventDisposition;
use super::json_values::for_each_value;
use crate::json::lenient::List;
use crate::json::repair::repair;
use crate::response::sse::{SseEvent, is_done_data};
use crate::response::transcript::{Transcript, TranscriptPart};
use shape::{BlockDelta, ContentBlock, MessageContent, MessageEvent, MessageObject};

/// The maximum number of distinct blocks.
const MAX_BLOCKS: usize = 4096;

/// The fold of one response.
#[derive(Debug, Default)]
pub struct MessagesFold {
    /// The transcript so far.
    pub transcript: Transcript,
    /// The open blocks with their indexes. If an index is repeated, deltas extend the last block.
    blocks: Vec<(u64, OpenBlock)>,
    has_started: bool,
    /// True once an event after the first has reported usage: the usage of the first event does not count the answer.
    has_counted_answer: bool,
    /// The index of the last block of a stream that was opened and not closed.
    open_index: Option<u64>,
}

/// The kind of an open block, which determines the handling of its deltas.
#[derive(Debug)]
enum OpenBlock {
    /// Text or thinking, or a block whose deltas name their own kind.
    Text,
    /// A call of a client's tool, with its index in the transcript.
    Call(usize, ArgumentsSource),
    /// A block of a server tool. Its deltas are not recorded.
    Server,
}

/// The source of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockSource {
    /// A stream: deltas follow.
    Stream,
    /// A document: the block is complete.
    Document,
}

/// The source of a tool call's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArgumentsSource {
    /// No arguments yet: the block was opened without input, or in a stream with an empty object. Deltas follow.
    Empty,
    /// The input with which the block was opened.
    Given,
    /// The deltas of the block.
    Deltas,
}

impl MessagesFold {
    /// Folds one event of a stream.
    pub fn fold_event(&mut self, event: &SseEvent<'_>) -> EventDisposition {
        let Some(data) = event.data else { return EventDisposition::Forward };
        if is_done_data(data) {
            // `[DONE]` is not part of this dialect, and clients do not take it for the end. Some proxies send it
            // anyway.
            self.transcript.note("done_sent");
            return if self.transcript.is_ended { EventDisposition::End } else { EventDisposition::Forward };
        }
        let data_read = serde_json::from_slice::<MessageEvent<'_>>(data);
        let Ok(read) = data_read else {
            if let Some((repaired, note)) = repair(data) {
                self.transcript.note(note);
                return self.fold_event(&SseEvent { data: Some(repaired.as_bytes()), ..event.clone() });
            }
            if event.name == "error" || find_error(data).is_some() {
                self.transcript.set_error(find_error(data).unwrap_or_else(|| error_from_text(data)));
                return EventDisposition::End;
            }
            if event.name == "message_stop" {
                self.transcript.is_ended = true;
                return EventDisposition::End;
            }
            if !data.is_empty() {
                self.transcript.note("unreadable_event");
            }
            return EventDisposition::Forward;
        };
        let kind = read.kind.non_empty().unwrap_or(event.name);
        match kind {
            "message_start" => {
                self.start_message(read.message.0, BlockSource::Stream);
                self.set_usage(read.usage);
            }
            "content_block_start" => {
                self.open_index = Some(read.index.0.unwrap_or(0));
                if let Some(block) = read.content_block.0 {
                    self.open_block(read.index.0.unwrap_or(0), &block, BlockSource::Stream);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = read.delta.0 {
                    self.block_delta(read.index.0.unwrap_or(0), &delta);
                }
            }
            "message_delta" => {
                let delta = read.delta.0;
                let within = delta.as_ref().and_then(|delta| delta.usage);
                self.has_counted_answer |= read.usage.or(within).is_some();
                self.set_usage(read.usage.or(within));
                if let Some(reason) = delta.as_ref().and_then(|delta| delta.stop_reason.non_empty()) {
                    self.transcript.set_finish_reason(reason);
                }
            }
            "message_stop" => {
                self.set_usage(read.usage.or(read.message.0.and_then(|message| message.usage)));
                if let Some(metrics) = read.invocation_metrics.0 {
                    self.set_usage(metrics.to_usage().as_deref());
                }
                self.transcript.is_ended = true;
                return EventDisposition::End;
            }
            "content_block_stop" => self.open_index = None,
            "ping" => {}
            // Google tells the usage of Claude on Vertex AI a second time, in an event of its own.
            "vertex_event" => {
                if let Some(usage) = read.usage {
                    self.transcript.set_missing_usage(usage);
                }
            }
            _ => {
                let error = read.error.and_then(parse_error_member).or_else(|| find_error(data));
                if let Some(error) = error.or_else(|| (kind == "error").then(|| error_from_text(data))) {
                    self.transcript.set_error(error);
                    return EventDisposition::End;
                }
                self.transcript.note("unknown_event");
            }
        }
        EventDisposition::Forward
    }

    /// True for a stream that ended early, without an error of the provider, and with content that no reported usage counts.
    pub(super) fn is_answer_uncounted(&self) -> bool {
        let is_early = self.has_started && !self.transcript.is_ended && self.transcript.error.is_none();
        is_early && !self.has_counted_answer && self.transcript.has_content()
    }

    /// True after the event that opens the message.
    pub(super) fn has_started(&self) -> bool {
        self.has_started
    }

    /// The index of the block that is open in the stream.
    pub(super) fn open_index(&self) -> Option<u64> {
        self.open_index
    }

    /// Folds a response that is one JSON document.
    pub fn fold_document(&mut self, body: &[u8]) {
        for_each_value(body, |json| self.fold_message(json));
    }

    fn fold_message(&mut self, json: &[u8]) {
        match serde_json::from_slice::<MessageObject<'_>>(json) {
            Ok(message) if message.kind.non_empty() != Some("error") && !is_error(&message, json) => {
                self.start_message(Some(message), BlockSource::Document);
            }
            Err(_) if let Some((repaired, note)) = repair(json) => {
                self.transcript.note(note);
                self.fold_message(repaired.as_bytes());
            }
            _ => match find_error(json) {
                Some(error) => self.transcript.set_error(error),
                None => self.transcript.note("unreadable_document"),
            },
        }
    }

    fn start_message(&mut self, message: Option<MessageObject<'_>>, source: BlockSource) {
        let Some(message) = message else { return };
        if std::mem::replace(&mut self.has_started, true) {
            self.transcript.note("started_twice");
            self.transcript.clear_content();
            self.blocks.clear();
        }
        self.transcript.set_identity(message.id.non_empty(), message.model.non_empty());
        self.set_usage(message.usage);
        if let Some(content) = message.content {
            match content {
                MessageContent::Text(text) => self.transcript.append(TranscriptPart::Text, &text),
                MessageContent::Blocks(List(blocks)) => {
                    for (index, block) in (0..).zip(blocks) {
                        if let Some(block) = block.0 {
                            self.open_block(index, &block, source);
                        }
                    }
                }
            }
        }
        if let Some(reason) = message.stop_reason.non_empty() {
            self.transcript.set_finish_reason(reason);
        }
    }

    fn open_block(&mut self, index: u64, block: &ContentBlock<'_>, source: BlockSource) {
        let kind = block.kind.non_empty().unwrap_or("text");
        let opened = match kind {
            "text" => {
                self.transcript.append(TranscriptPart::Text, block.text.non_empty().unwrap_or(""));
                OpenBlock::Text
            }
            "thinking" => {
                self.transcript.append(TranscriptPart::Reasoning, block.thinking.non_empty().unwrap_or(""));
                OpenBlock::Text
            }
            "redacted_thinking" => {
                self.transcript.note("redacted_thinking");
                self.transcript.has_unrecorded_content = true;
                OpenBlock::Text
            }
            "tool_use" => {
                let Some(call_index) = self.transcript.open_tool_call() else { return };
                self.transcript.name_tool_call(call_index, block.id.non_empty(), block.name.non_empty());
                // Some imitations send a string with the JSON in place of an object.
                let input = block.input.non_empty().filter(|input| source == BlockSource::Document || *input != "{}");
                self.transcript.append(TranscriptPart::Arguments(call_index), input.unwrap_or(""));
                OpenBlock::Call(
                    call_index,
                    if input.is_some() { ArgumentsSource::Given } else { ArgumentsSource::Empty },
                )
            }
            "fallback" => {
                if let Some(model) = block.to.0.as_ref().and_then(|to| to.model.non_empty()) {
                    self.transcript.model = None;
                    self.transcript.set_identity(None, Some(model));
                }
                OpenBlock::Server
            }
            // `server_tool_use`, `mcp_tool_use`, and the like of other makers.
            kind if kind.ends_with("_tool_use") => {
                self.transcript.server_tool_calls += 1;
                OpenBlock::Server
            }
            _ => {
                self.transcript.has_unrecorded_content = true;
                OpenBlock::Server
            }
        };
        if self.blocks.len() < MAX_BLOCKS {
            self.blocks.push((index, opened));
        } else {
            self.transcript.note("too_many_blocks");
        }
    }

    fn block_delta(&mut self, index: u64, delta: &BlockDelta<'_>) {
        match self.blocks.iter_mut().rfind(|(known, _)| *known == index) {
            Some((_, OpenBlock::Server)) => return,
            Some((_, OpenBlock::Call(call_index, input))) => {
                let arguments = delta.partial_json.non_empty().unwrap_or("");
                if !arguments.is_empty() && std::mem::replace(input, ArgumentsSource::Deltas) == ArgumentsSource::Given
                {
                    self.transcript.forget_arguments(*call_index);
                }
                self.transcript.append(TranscriptPart::Arguments(*call_index), arguments);
            }
            Some((_, OpenBlock::Text)) => {}
            None => {
                self.transcript.note("delta_without_block");
                // Some imitations leave out the event that opens a block.
                let arguments = delta.partial_json.non_empty().unwrap_or("");
                if !arguments.is_empty()
                    && self.blocks.len() < MAX_BLOCKS
                    && let Some(call_index) = self.transcript.open_tool_call()
                {
                    self.blocks.push((index, OpenBlock::Call(call_index, ArgumentsSource::Deltas)));
                    self.transcript.append(TranscriptPart::Arguments(call_index), arguments);
                }
            }
        }
        self.transcript.append(TranscriptPart::Text, delta.text.non_empty().unwrap_or(""));
        self.transcript.append(TranscriptPart::Reasoning, delta.thinking.non_empty().unwrap_or(""));
    }

    fn set_usage(&mut self, usage: Option<&RawValue>) {
        if let Some(usage) = usage {
            self.transcript.set_usage(usage);
        }
    }
}

/// True if a document is an error instead of a message.
fn is_error(message: &MessageObject<'_>, json: &[u8]) -> bool {
    message.content.is_none() && message.stop_reason.non_empty().is_none() && find_error(json).is_some()
}
