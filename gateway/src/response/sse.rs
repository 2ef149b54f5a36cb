//! A parser of server-sent events that follows the WHATWG algorithm, for a byte stream cut at any position. Reports the
//! position of each event in the bytes.
//!
//! One deviation: some servers send a line for each event, and no blank lines. Where the data of an event consists of
//! complete JSON objects, one a line, each line is an event.
//!
//! Pure: bytes in, events out.

use std::ops::{ControlFlow, Range};

use serde::de::IgnoredAny;

use crate::response::bounded_buffer::BoundedBuffer;

/// The maximum length of a line, and of the data of one event, that is kept. Less in the unit tests, which are quicker so.
const MAX_EVENT_BYTES: usize = if cfg!(test) { 4 << 20 } else { 24 << 20 };

/// The maximum length of an event's name that is kept.
const MAX_NAME_BYTES: usize = 256;

/// The first bytes of most events.
const DATA_PREFIX: &[u8] = b"data: ";

/// The data of the final event of an OpenAI chat completion stream.
const DONE_DATA: &[u8] = b"[DONE]";

/// True for the data that ends an OpenAI chat completion stream. Some providers send spaces after the data.
pub fn is_done_data(data: &[u8]) -> bool {
    data.trim_ascii() == DONE_DATA
}

/// A server-sent event, or another block of lines that ends with a blank line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The `event:` field; empty if absent. `error` also for the `error:` field that llama.cpp sends.
    pub name: &'a str,
    /// The `data:` lines, joined by line feeds. `None` for comments and blank lines, which clients ignore, and for data
    /// that is too long.
    pub data: Option<&'a [u8]>,
    /// Tells if the data is complete.
    pub completeness: EventCompleteness,
    /// The position in the current chunk, including the blank line. Starts at 0 if the event began in an earlier chunk, and
    /// ends at 0 if the event also ended there.
    pub span: Range<usize>,
    /// The number of bytes of the next event that came before the current chunk.
    pub next_event_bytes: usize,
}

/// The completeness of an event's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventCompleteness {
    /// All of the data is there.
    #[default]
    Whole,
    /// Long base64 runs, such as images, are shortened. The rest is there.
    Shortened,
    /// The event exceeds the maximum length and has no data.
    TooLong,
}

/// The state of the parser between two chunks.
#[derive(Debug, Default)]
pub struct SseParser {
    /// The bytes of an incomplete line.
    line: BoundedBuffer,
    /// The fields of an incomplete event.
    event: PartialEvent,
    /// The last chunk ended with a carriage return. A line feed at the start of the next chunk belongs to the same line
    /// end.
    after_cr: bool,
    /// The first line is complete. A byte order mark is recognized at the start of the first line only.
    past_first_line: bool,
}

#[derive(Debug, Default)]
struct PartialEvent {
    name: String,
    data: BoundedBuffer,
    has_data: bool,
    completeness: EventCompleteness,
    /// The `event:` field after the data: the name of this event, or of the next one if no blank line follows.
    later_name: Option<String>,
}

impl SseParser {
    /// Parses one chunk. `on_event` is called with each event, and each other block of lines, completed by the chunk,
    /// and can stop the parser.
    ///
    /// `[DONE]` is reported without waiting for its line end, because clients stop there too.
    pub fn feed(&mut self, chunk: &[u8], mut on_event: impl FnMut(SseEvent<'_>) -> ControlFlow<()>) {
        let mut offset = 0;
        if !chunk.is_empty() && std::mem::take(&mut self.after_cr) && chunk[0] == b'\n' {
            offset = 1;
        }
        let mut event_start = if self.in_event() { 0 } else { offset };
        loop {
            if !self.in_event()
                && self.event.completeness == EventCompleteness::Whole
                && let Some(data) = single_line_event_data(&chunk[offset..])
            {
                offset += DATA_PREFIX.len() + data.len() + 2;
                self.past_first_line = true;
                let event = SseEvent {
                    name: "",
                    data: Some(data),
                    completeness: EventCompleteness::Whole,
                    span: event_start..offset,
                    next_event_bytes: 0,
                };
                if on_event(event).is_break() {
                    return;
                }
                event_start = offset;
                continue;
            }
            let Some(length) = memchr::memchr2(b'\n', b'\r', &chunk[offset..]) else { break };
            let end = offset + length;
            let next_line = match (chunk[end], chunk.get(end + 1)) {
                (b'\r', Some(b'\n')) => end + 2,
                (b'\r', None) => {
                    self.after_cr = true;
                    end + 1
                }
                _ => end + 1,
            };
            let is_end = if self.line.bytes().is_empty() {
                if self.event.ends_before(&chunk[offset..end]) {
                    if self.event.dispatch_line(event_start..offset, 0, &mut on_event).is_break() {
                        return;
                    }
                    event_start = offset;
                }
                self.event.process_line(&chunk[offset..end], self.past_first_line);
                length == 0 || self.event.is_done_data()
            } else {
                let bytes_before = self.line.bytes().len();
                self.buffer_line(&chunk[offset..end]);
                if self.event.ends_before(self.line.bytes()) {
                    if self.event.dispatch_line(0..0, bytes_before, &mut on_event).is_break() {
                        return;
                    }
                    self.event.completeness = completeness(&self.line);
                }
                self.event.process_line(self.line.bytes(), self.past_first_line);
                self.line.clear();
                self.event.is_done_data()
            };
            self.past_first_line = true;
            offset = next_line;
            if is_end {
                if self.event.dispatch(event_start..next_line, &mut on_event).is_break() {
                    return;
                }
                event_start = next_line;
            }
        }
        if offset < chunk.len() {
            let bytes_before = self.line.bytes().len();
            self.buffer_line(&chunk[offset..]);
            if self.event.ends_before(self.line.bytes()) {
                let span = if bytes_before == 0 { event_start..offset } else { 0..0 };
                if self.event.dispatch_line(span, bytes_before, &mut on_event).is_break() {
                    return;
                }
                self.event.completeness = completeness(&self.line);
                event_start = offset;
            }
            if !self.event.has_data && is_done_line(self.line.bytes()) {
                self.event.process_line(self.line.bytes(), true);
                self.line.clear();
                // The chunk ends here, so a request to stop makes no difference.
                let _ = self.event.dispatch(event_start..chunk.len(), &mut on_event);
            }
        }
    }

    /// Ends the stream. Reports an event without its blank line, which clients would drop.
    pub fn finish(&mut self, mut on_event: impl FnMut(SseEvent<'_>) -> ControlFlow<()>) {
        if !self.line.bytes().is_empty() {
            self.event.process_line(self.line.bytes(), self.past_first_line);
            self.line.clear();
        }
        if self.event.has_data {
            let _ = self.event.dispatch(0..0, &mut on_event);
        }
    }

    /// True if an event is incomplete. Comments do not count.
    pub fn in_event(&self) -> bool {
        !self.line.bytes().is_empty() || self.event.has_data || !self.event.name.is_empty()
    }

    /// The number of bytes at the start of the next chunk that belong to an event already reported: 1 for the line feed
    /// of a line end split between two chunks, else 0.
    pub fn split_line_end_length(&self, chunk: &[u8]) -> usize {
        usize::from(self.after_cr && !self.in_event() && chunk.first() == Some(&b'\n'))
    }

    fn buffer_line(&mut self, part: &[u8]) {
        self.line.push(part, MAX_EVENT_BYTES);
        self.event.completeness = self.event.completeness.max(completeness(&self.line));
    }
}

impl PartialEvent {
    fn process_line(&mut self, line: &[u8], past_first_line: bool) {
        let line = if past_first_line { line } else { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) };
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..])),
            None => (line, &b""[..]),
        };
        match field {
            b"data" => self.append_data(value),
            b"event" => {
                let name = String::from_utf8_lossy(&value[..value.len().min(MAX_NAME_BYTES)]);
                if self.has_data {
                    self.later_name = Some(name.into_owned());
                } else {
                    self.name.clear();
                    self.name.push_str(&name);
                }
            }
            b"error" => {
                "error".clone_into(&mut self.name);
                self.append_data(value);
            }
            _ => {}
        }
    }

    fn append_data(&mut self, value: &[u8]) {
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b"\n", MAX_EVENT_BYTES);
        }
        self.data.push(value, MAX_EVENT_BYTES);
        self.completeness = self.completeness.max(completeness(&self.data));
    }

    fn is_done_data(&self) -> bool {
        is_done_data(self.data.bytes())
    }

    /// True if the data is a complete JSON object, and the line begins the data of the next event.
    fn ends_before(&self, line: &[u8]) -> bool {
        self.has_data
            && [&b"data:"[..], b"error:"].iter().find_map(|field| line.strip_prefix(*field)).is_some_and(|value| {
                (value.trim_ascii_start().starts_with(b"{") || is_done_data(value)) && is_json_object(self.data.bytes())
            })
    }

    /// Dispatches an event without a blank line, before the next event.
    fn dispatch_line(
        &mut self,
        span: Range<usize>,
        next_event_bytes: usize,
        on_event: &mut impl FnMut(SseEvent<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let next_name = self.later_name.take().unwrap_or_default();
        let completeness = completeness(&self.data);
        let event = SseEvent { name: &self.name, data: Some(self.data.bytes()), completeness, span, next_event_bytes };
        let flow = on_event(event);
        self.name = next_name;
        self.data.clear();
        self.has_data = false;
        self.completeness = EventCompleteness::Whole;
        flow
    }

    fn dispatch(
        &mut self,
        span: Range<usize>,
        on_event: &mut impl FnMut(SseEvent<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let data = (self.has_data && self.completeness != EventCompleteness::TooLong).then_some(self.data.bytes());
        // `[DONE]` is reported without the spaces after it: depending on the cut of the chunks the spaces may not have
        // arrived.
        let data = data.map(|data| if is_done_data(data) { DONE_DATA } else { data });
        if let Some(name) = self.later_name.take() {
            self.name = name;
        }
        let completeness = self.completeness;
        let flow = on_event(SseEvent { name: &self.name, data, completeness, span, next_event_bytes: 0 });
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        self.completeness = EventCompleteness::Whole;
        flow
    }
}

/// The data of the first event in `rest`, if the event consists of a single data line and a blank line, as most events
/// do. Such an event needs no buffering. `[DONE]` is left to the general path.
fn single_line_event_data(rest: &[u8]) -> Option<&[u8]> {
    let data = rest.strip_prefix(DATA_PREFIX)?;
    let end = memchr::memchr2(b'\n', b'\r', data)?;
    let is_one = data[end..].starts_with(b"\n\n") && end <= MAX_EVENT_BYTES;
    Some(&data[..end]).filter(|data| is_one && !is_done_data(data))
}

fn completeness(buffer: &BoundedBuffer) -> EventCompleteness {
    match (buffer.is_truncated(), buffer.is_shortened()) {
        (true, _) => EventCompleteness::TooLong,
        (false, true) => EventCompleteness::Shortened,
        (false, false) => EventCompleteness::Whole,
    }
}

/// True for a complete JSON object.
fn is_json_object(data: &[u8]) -> bool {
    data.trim_ascii_start().starts_with(b"{")
        && data.trim_ascii_end().ends_with(b"}")
        && serde_json::from_slice::<IgnoredAny>(data).is_ok()
}

fn is_done_line(line: &[u8]) -> bool {
    line.strip_prefix(b"data:").is_some_and(is_done_data)
}

#[cfg(test)]
mod tests;
