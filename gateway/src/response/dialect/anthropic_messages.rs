//! Anthropic messages: `/v1/messages` of Anthropic itself, of clouds that resell it, and of proxies that imitate it.
//!
//! - Text is that of all text blocks, reasoning that of all thinking blocks; redacted thinking is noted.
//! - Client tools are `tool_use` blocks. Every other block of a tool's use is a server tool's and only counted.
//! - A tool call's arguments are its deltas, joined; where none come, the input that its block was opened with.
//! - Usage is that of `message_start`, overlaid field by field with that of each `message_delta`. Never a sum.
//! - A second `message_start` says everything anew; the first id stands.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error_shape::{error_in, error_object, spoken};
use super::json_values::each_value;
use super::signal::Signal;
use crate::json::lenient::{Count, List, Members, Object, Text, compact};
use crate::json::repair::righted;
use crate::response::sse::{SseEvent, is_done};
use crate::response::transcript::{Part, Transcript};

/// How many fields of usage are kept.
const MAX_USAGE_FIELDS: usize = 64;

/// How long each may be.
const MAX_USAGE_FIELD_BYTES: usize = 4096;

/// How many blocks are told apart.
const MAX_BLOCKS: usize = 4096;

/// The fold of one answer.
#[derive(Debug, Default)]
pub struct Fold {
    /// What it has come to so far.
    pub transcript: Transcript,
    /// The blocks that deltas go on with, by their index; the last of an index stands.
    blocks: Vec<(u64, Block)>,
    /// Usage so far, field by field.
    usage: Vec<(String, Box<RawValue>)>,
    has_started: bool,
}

/// What a block is, as far as its deltas are concerned.
#[derive(Debug)]
enum Block {
    /// Text, thinking, or something that says itself what its deltas are.
    Spoken,
    /// A call of a client's tool, at this place.
    Call(usize, Input),
    /// Something of a server tool's.
    Server,
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// In a stream: its deltas are to come.
    Stream,
    /// In a document: it is whole.
    Document,
}

/// Where a call's arguments come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// It was opened with none, or an empty object in a stream: deltas are to come.
    Empty,
    /// It was opened with all of them.
    Given,
    /// Deltas.
    Deltas,
}

#[derive(Deserialize)]
struct EventData<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(default)]
    index: Count,
    #[serde(default, borrow)]
    message: Object<Message<'a>>,
    #[serde(default, borrow)]
    content_block: Object<ContentBlock<'a>>,
    #[serde(default, borrow)]
    delta: Object<Delta<'a>>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(default, borrow)]
    id: Text<'a>,
    #[serde(default, borrow)]
    model: Text<'a>,
    #[serde(default, borrow)]
    content: Option<Content<'a>>,
    #[serde(default, borrow)]
    stop_reason: Text<'a>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
}

/// A content: blocks, or a plain text from some.
enum Content<'a> {
    Text(Cow<'a, str>),
    Blocks(List<Object<ContentBlock<'a>>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&'a RawValue>::deserialize(deserializer)?.get();
        let read = if json.starts_with('"') {
            serde_json::from_str::<Text<'_>>(json).map(|text| Self::Text(text.0.unwrap_or_default()))
        } else {
            serde_json::from_str(json).map(Self::Blocks)
        };
        read.map_err(serde::de::Error::custom)
    }
}

#[derive(Deserialize)]
struct ContentBlock<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    thinking: Text<'a>,
    #[serde(default, borrow)]
    id: Text<'a>,
    #[serde(default, borrow)]
    name: Text<'a>,
    #[serde(default, borrow)]
    input: Option<&'a RawValue>,
}

/// What is new in a block, or in the message.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    thinking: Text<'a>,
    #[serde(default, borrow)]
    partial_json: Text<'a>,
    #[serde(default, borrow)]
    stop_reason: Text<'a>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
}

impl Fold {
    /// Folds one event of a stream.
    pub fn event(&mut self, event: &SseEvent<'_>) -> Signal {
        let Some(data) = event.data else { return Signal::Pass };
        if is_done(data) {
            // No part of this dialect, and no end to its clients; some proxies send it all the same.
            self.transcript.note("done_sent");
            return if self.transcript.ended { Signal::End } else { Signal::Pass };
        }
        let data_read = serde_json::from_slice::<EventData<'_>>(data);
        let Ok(read) = data_read else {
            if let Some((righted, note)) = righted(data) {
                self.transcript.note(note);
                return self.event(&SseEvent { data: Some(righted.as_bytes()), ..event.clone() });
            }
            if event.name == "error" || error_in(data).is_some() {
                self.transcript.fail(error_in(data).unwrap_or_else(|| spoken(data)));
                return Signal::End;
            }
            if event.name == "message_stop" {
                self.transcript.ended = true;
                return Signal::End;
            }
            if !data.is_empty() {
                self.transcript.note("unreadable_event");
            }
            return Signal::Pass;
        };
        let kind = read.kind.filled().unwrap_or(event.name);
        match kind {
            "message_start" => self.message_start(read.message.0, Said::Stream),
            "content_block_start" => {
                if let Some(block) = read.content_block.0 {
                    self.open_block(read.index.0.unwrap_or(0), &block, Said::Stream);
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
                self.overlay(read.usage.or(within));
                if let Some(reason) = delta.as_ref().and_then(|delta| delta.stop_reason.filled()) {
                    self.transcript.finish(reason);
                }
            }
            "message_stop" => {
                self.transcript.ended = true;
                return Signal::End;
            }
            "content_block_stop" | "ping" => {}
            _ => {
                let error = read.error.and_then(error_object).or_else(|| error_in(data));
                if let Some(error) = error.or_else(|| (kind == "error").then(|| spoken(data))) {
                    self.transcript.fail(error);
                    return Signal::End;
                }
                self.transcript.note("unknown_event");
            }
        }
        Signal::Pass
    }

    /// Folds an answer that is one JSON document.
    pub fn document(&mut self, body: &[u8]) {
        each_value(body, |json| self.whole(json));
    }

    fn whole(&mut self, json: &[u8]) {
        match serde_json::from_slice::<Message<'_>>(json) {
            Ok(message) if message.kind.filled() != Some("error") && !is_error(&message, json) => {
                self.message_start(Some(message), Said::Document);
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
        if !self.usage.is_empty() {
            let members = self.usage.iter().map(|(name, value)| (name.as_str(), value.get()));
            if let Ok(usage) = RawValue::from_string(Members::write(members)) {
                self.transcript.report(&usage);
            }
            self.usage.clear();
        }
    }

    fn message_start(&mut self, message: Option<Message<'_>>, said: Said) {
        let Some(message) = message else { return };
        if std::mem::replace(&mut self.has_started, true) {
            self.transcript.note("started_twice");
            self.transcript.start_over();
            self.blocks.clear();
        }
        self.transcript.identify(message.id.filled(), message.model.filled());
        self.overlay(message.usage);
        if let Some(content) = message.content {
            match content {
                Content::Text(text) => self.transcript.push(Part::Text, &text),
                Content::Blocks(List(blocks)) => {
                    for (index, block) in (0..).zip(blocks) {
                        if let Some(block) = block.0 {
                            self.open_block(index, &block, said);
                        }
                    }
                }
            }
        }
        if let Some(reason) = message.stop_reason.filled() {
            self.transcript.finish(reason);
        }
    }

    fn open_block(&mut self, index: u64, block: &ContentBlock<'_>, said: Said) {
        let kind = block.kind.filled().unwrap_or("text");
        let opened = match kind {
            "text" => {
                self.transcript.push(Part::Text, block.text.filled().unwrap_or(""));
                Block::Spoken
            }
            "thinking" => {
                self.transcript.push(Part::Reasoning, block.thinking.filled().unwrap_or(""));
                Block::Spoken
            }
            "redacted_thinking" => {
                self.transcript.note("redacted_thinking");
                Block::Spoken
            }
            "tool_use" => {
                let Some(place) = self.transcript.open_call() else { return };
                self.transcript.name_call(place, block.id.filled(), block.name.filled());
                let input = block.input.map(compact).filter(|input| match said {
                    Said::Stream => !matches!(input.as_str(), "{}" | "null" | "\"\""),
                    Said::Document => input != "null",
                });
                self.transcript.push(Part::Arguments(place), input.as_deref().unwrap_or(""));
                Block::Call(place, if input.is_some() { Input::Given } else { Input::Empty })
            }
            "server_tool_use" | "mcp_tool_use" => {
                self.transcript.server_tool_calls += 1;
                Block::Server
            }
            _ => Block::Server,
        };
        if self.blocks.len() < MAX_BLOCKS {
            self.blocks.push((index, opened));
        } else {
            self.transcript.note("too_many_blocks");
        }
    }

    fn block_delta(&mut self, index: u64, delta: &Delta<'_>) {
        match self.blocks.iter_mut().rfind(|(known, _)| *known == index) {
            Some((_, Block::Server)) => return,
            Some((_, Block::Call(place, input))) => {
                let arguments = delta.partial_json.filled().unwrap_or("");
                if !arguments.is_empty() && std::mem::replace(input, Input::Deltas) == Input::Given {
                    self.transcript.forget_arguments(*place);
                }
                self.transcript.push(Part::Arguments(*place), arguments);
            }
            Some((_, Block::Spoken)) => {}
            None => self.transcript.note("delta_without_block"),
        }
        self.transcript.push(Part::Text, delta.text.filled().unwrap_or(""));
        self.transcript.push(Part::Reasoning, delta.thinking.filled().unwrap_or(""));
    }

    /// Lays these fields of usage over those before.
    fn overlay(&mut self, usage: Option<&RawValue>) {
        let Some(Ok(Members(fields))) = usage.map(|usage| serde_json::from_str::<Members<'_>>(usage.get())) else {
            return;
        };
        for (name, value) in fields.into_iter().filter(|(_, value)| is_kept(value)) {
            if let Some((_, before)) = self.usage.iter_mut().find(|(known, _)| *known == name) {
                *before = value.to_owned();
            } else if self.usage.len() < MAX_USAGE_FIELDS {
                self.usage.push((name.into_owned(), value.to_owned()));
            }
        }
    }
}

/// Whether a field of usage says anything, and not too much.
fn is_kept(value: &RawValue) -> bool {
    value.get() != "null" && value.get().len() <= MAX_USAGE_FIELD_BYTES
}

/// Whether a document is an error and not a message.
fn is_error(message: &Message<'_>, json: &[u8]) -> bool {
    message.content.is_none() && message.stop_reason.filled().is_none() && error_in(json).is_some()
}
