//! A parser of server-sent events that follows the WHATWG algorithm, for a byte stream cut at any position. Reports the
//! position of each event in the bytes.
//!
//! Pure: bytes in, events out.

use std::ops::{ControlFlow, Range};

use crate::response::bounded_buffer::BoundedBuffer;

/// The maximum length of a line, and of the data of one event, that is kept.
const MAX_EVENT_BYTES: usize = 4 << 20;

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
    /// The position in the current chunk, including the blank line. Starts at 0 if the event began in an earlier chunk.
    pub span: Range<usize>,
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
                self.event.process_line(&chunk[offset..end], self.past_first_line);
                length == 0 || self.event.is_done_data()
            } else {
                self.buffer_line(&chunk[offset..end]);
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
            self.buffer_line(&chunk[offset..]);
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
                self.name.clear();
                self.name.push_str(&String::from_utf8_lossy(&value[..value.len().min(MAX_NAME_BYTES)]));
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

    fn dispatch(
        &mut self,
        span: Range<usize>,
        on_event: &mut impl FnMut(SseEvent<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let data = (self.has_data && self.completeness != EventCompleteness::TooLong).then_some(self.data.bytes());
        // `[DONE]` is reported without the spaces after it: depending on the cut of the chunks the spaces may not have
        // arrived.
        let data = data.map(|data| if is_done_data(data) { DONE_DATA } else { data });
        let flow = on_event(SseEvent { name: &self.name, data, completeness: self.completeness, span });
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

fn is_done_line(line: &[u8]) -> bool {
    line.strip_prefix(b"data:").is_some_and(is_done_data)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut reader = SseParser::default();
        let mut events = Vec::new();
        let mut on_event = |event: SseEvent<'_>| {
            if let Some(data) = event.data {
                events.push((event.name.to_owned(), String::from_utf8_lossy(data).into_owned()));
            }
            ControlFlow::Continue(())
        };
        for chunk in chunks {
            reader.feed(chunk, &mut on_event);
        }
        reader.finish(&mut on_event);
        events
    }

    fn check(stream: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(n, d)| ((*n).to_owned(), (*d).to_owned())).collect();
        assert_eq!(read(&[stream.as_bytes()]), expected, "whole: {stream:?}");
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes), expected, "byte by byte: {stream:?}");
    }

    #[test]
    fn events_are_read_by_the_whatwg_algorithm() {
        check("data: a\n\ndata:b\n\n", &[("", "a"), ("", "b")]);
        check("data: a\r\n\r\ndata: b\r\rdata: c\n\n", &[("", "a"), ("", "b"), ("", "c")]);
        check("\u{feff}data: a\n\n", &[("", "a")]);
        check("\n\n: comment\n\nid: 7\nretry: 10\nevent: x\ndata: 1\ndata: 2\n\n", &[("x", "1\n2")]);
        check("data\n\nevent: lonely\n\n", &[("", "")]);
        check("data:  two spaces\n\n", &[("", " two spaces")]);
    }

    #[test]
    fn some_violations_of_the_algorithm_are_read_too() {
        check("data: no blank line\n", &[("", "no blank line")]);
        check("data: no line end", &[("", "no line end")]);
        check("data: a\n\ndata: [DONE]", &[("", "a"), ("", "[DONE]")]);
        check("data: a\n\ndata: [DONE] \n\n", &[("", "a"), ("", "[DONE]")]);
        check("data:  [DONE]\t\r\n\r\n", &[("", "[DONE]")]);
        check("error: {\"code\":500}\n\n", &[("error", "{\"code\":500}")]);
    }

    #[test]
    fn done_is_reported_before_its_blank_line_with_its_span() {
        let mut reader = SseParser::default();
        let mut spans = Vec::new();
        reader.feed(b"data: x\n\ndata: [DONE]", |event| {
            spans.push(event.span);
            ControlFlow::Continue(())
        });
        assert_eq!(spans, [0..9, 9..21]);
    }

    #[test]
    fn an_event_that_is_too_long_is_skipped_and_the_next_is_read() {
        let long = format!("data: {}\n\ndata: ok\n\n", "x ".repeat(MAX_EVENT_BYTES));
        let chunks: Vec<&[u8]> = long.as_bytes().chunks(100_000).collect();
        assert_eq!(read(&chunks), [(String::new(), "ok".to_owned())]);
        assert_eq!(read(&[long.as_bytes()]), [(String::new(), "ok".to_owned())]);
    }

    #[test]
    fn long_base64_in_an_event_is_shortened() {
        let long = format!("data: {{\"x\":\"{}\"}}\n\ndata: ok\n\n", "x".repeat(MAX_EVENT_BYTES));
        for size in [1_000, 100_000, long.len()] {
            let chunks: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
            let events = read(&chunks);
            assert_eq!(events.len(), 2, "in chunks of {size}");
            let data = &events[0].1;
            let is_shortened = data.len() < 100_000 && data.starts_with("{\"x\":\"xx") && data.ends_with("x\"}");
            assert!(is_shortened, "in chunks of {size}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_events(
            text in "(data: [a-zé\\[\\]DONE]{0,6}|event: x|: c|error: e|\n|\r|\r\n|\n\n){0,30}",
            cuts in proptest::collection::vec(0..200_usize, 0..12),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            chunks.push(&bytes[from..]);
            // Only a line that begins with [DONE] depends on the cut, on purpose.
            prop_assume!(!text.contains("data: [DONE]"));
            prop_assert_eq!(read(&chunks), read(&[bytes]));
        }

        #[test]
        fn never_panics(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..10)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let _ = read(&chunks);
        }
    }
}
