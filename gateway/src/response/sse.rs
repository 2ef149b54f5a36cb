//! Reads server-sent events out of a byte stream that may be cut anywhere, by the WHATWG algorithm, and says where in the
//! bytes each event lies.
//!
//! Pure: bytes in, events out.

use std::ops::{ControlFlow, Range};

use crate::response::bounded_buffer::Kept;

/// The longest line, and the most data of one event, that is kept.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// The most of an event's name that is kept.
const MAX_NAME_BYTES: usize = 256;

/// What most events begin with.
const DATA: &[u8] = b"data: ";

/// The data that ends a stream of OpenAI chat completions.
const DONE: &[u8] = b"[DONE]";

/// Whether this data ends a stream of OpenAI chat completions. Some have spaces after it.
pub fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == DONE
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The `event:` field; empty where there is none. `error` also for the `error:` field that llama.cpp sends.
    pub name: &'a str,
    /// The `data:` lines, joined by line feeds; none for a block of comments or a blank line, which clients pass over.
    pub data: Option<&'a [u8]>,
    /// How much of it was kept.
    pub length: Length,
    /// Where it lies in the current chunk, its blank line included; from 0 where it began in an earlier one.
    pub span: Range<usize>,
}

/// How much of an event was kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Length {
    /// All of it.
    #[default]
    Whole,
    /// All but most of a picture or a sound.
    Shortened,
    /// It was too long to be kept: there is no data for that reason.
    TooLong,
}

/// What is kept between two chunks.
#[derive(Debug, Default)]
pub struct SseReader {
    /// The part of a line whose end has not come.
    line: Kept,
    /// What has come of the event whose end has not.
    event: Partial,
    /// The last chunk ended in a carriage return: a line feed right after it belongs to it.
    after_cr: bool,
    /// The byte order mark can only be at the very beginning.
    past_first_line: bool,
}

#[derive(Debug, Default)]
struct Partial {
    name: String,
    data: Kept,
    has_data: bool,
    length: Length,
}

impl SseReader {
    /// Reads one chunk. `on` gets each event, and each other block of lines, that it completes, and may break off.
    ///
    /// `[DONE]` is handed over as soon as it is there, with or without the end of its line: that is when clients take it
    /// for the end.
    pub fn feed(&mut self, chunk: &[u8], mut on: impl FnMut(SseEvent<'_>) -> ControlFlow<()>) {
        let mut at = 0;
        if !chunk.is_empty() && std::mem::take(&mut self.after_cr) && chunk[0] == b'\n' {
            at = 1;
        }
        let mut event_start = if self.in_event() { 0 } else { at };
        loop {
            if !self.in_event()
                && self.event.length == Length::Whole
                && let Some(data) = one_line(&chunk[at..])
            {
                at += DATA.len() + data.len() + 2;
                self.past_first_line = true;
                let event = SseEvent { name: "", data: Some(data), length: Length::Whole, span: event_start..at };
                if on(event).is_break() {
                    return;
                }
                event_start = at;
                continue;
            }
            let Some(length) = memchr::memchr2(b'\n', b'\r', &chunk[at..]) else { break };
            let end = at + length;
            let next = match (chunk[end], chunk.get(end + 1)) {
                (b'\r', Some(b'\n')) => end + 2,
                (b'\r', None) => {
                    self.after_cr = true;
                    end + 1
                }
                _ => end + 1,
            };
            let is_end = if self.line.bytes().is_empty() {
                self.event.line(&chunk[at..end], self.past_first_line);
                length == 0 || self.event.is_done()
            } else {
                self.keep(&chunk[at..end]);
                self.event.line(self.line.bytes(), self.past_first_line);
                self.line.clear();
                self.event.is_done()
            };
            self.past_first_line = true;
            at = next;
            if is_end {
                if self.event.dispatch(event_start..next, &mut on).is_break() {
                    return;
                }
                event_start = next;
            }
        }
        if at < chunk.len() {
            self.keep(&chunk[at..]);
            if !self.event.has_data && is_done_line(self.line.bytes()) {
                self.event.line(self.line.bytes(), true);
                self.line.clear();
                // What breaking off means here, at the end of the chunk, is up to the caller.
                let _ = self.event.dispatch(event_start..chunk.len(), &mut on);
            }
        }
    }

    /// The stream has ended: hands over an event that came without its blank line, which clients would drop.
    pub fn finish(&mut self, mut on: impl FnMut(SseEvent<'_>) -> ControlFlow<()>) {
        if !self.line.bytes().is_empty() {
            self.event.line(self.line.bytes(), self.past_first_line);
            self.line.clear();
        }
        if self.event.has_data {
            let _ = self.event.dispatch(0..0, &mut on);
        }
    }

    /// Whether part of an event has been read, comments apart.
    pub fn in_event(&self) -> bool {
        !self.line.bytes().is_empty() || self.event.has_data || !self.event.name.is_empty()
    }

    /// How much of this chunk, the next to be fed, belongs to what has been handed over: the line feed of a line end that was
    /// cut in two.
    pub fn belongs_to_last(&self, chunk: &[u8]) -> usize {
        usize::from(self.after_cr && !self.in_event() && chunk.first() == Some(&b'\n'))
    }

    fn keep(&mut self, part: &[u8]) {
        self.line.push(part, MAX_EVENT_BYTES);
        self.event.length = self.event.length.max(length(&self.line));
    }
}

impl Partial {
    fn line(&mut self, line: &[u8], past_first_line: bool) {
        let line = if past_first_line { line } else { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) };
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..])),
            None => (line, &b""[..]),
        };
        match field {
            b"data" => self.data(value),
            b"event" => {
                self.name.clear();
                self.name.push_str(&String::from_utf8_lossy(&value[..value.len().min(MAX_NAME_BYTES)]));
            }
            b"error" => {
                "error".clone_into(&mut self.name);
                self.data(value);
            }
            _ => {}
        }
    }

    fn data(&mut self, value: &[u8]) {
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b"\n", MAX_EVENT_BYTES);
        }
        self.data.push(value, MAX_EVENT_BYTES);
        self.length = self.length.max(length(&self.data));
    }

    fn is_done(&self) -> bool {
        is_done(self.data.bytes())
    }

    fn dispatch(
        &mut self,
        span: Range<usize>,
        on: &mut impl FnMut(SseEvent<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let data = (self.has_data && self.length != Length::TooLong).then_some(self.data.bytes());
        // Where the chunk ended before the spaces, nobody waits for them; so they are not there where it ended behind them.
        let data = data.map(|data| if is_done(data) { DONE } else { data });
        let flow = on(SseEvent { name: &self.name, data, length: self.length, span });
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        self.length = Length::Whole;
        flow
    }
}

/// The data of the event that this begins with, if it is what most are: one line of data, and a blank line. Nothing of it has
/// to be kept. The end is read with more care.
fn one_line(rest: &[u8]) -> Option<&[u8]> {
    let data = rest.strip_prefix(DATA)?;
    let end = memchr::memchr2(b'\n', b'\r', data)?;
    let is_one = data[end..].starts_with(b"\n\n") && end <= MAX_EVENT_BYTES;
    Some(&data[..end]).filter(|data| is_one && !is_done(data))
}

fn length(kept: &Kept) -> Length {
    match (kept.is_too_long(), kept.is_shortened()) {
        (true, _) => Length::TooLong,
        (false, true) => Length::Shortened,
        (false, false) => Length::Whole,
    }
}

fn is_done_line(line: &[u8]) -> bool {
    line.strip_prefix(b"data:").is_some_and(is_done)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut reader = SseReader::default();
        let mut events = Vec::new();
        let mut on = |event: SseEvent<'_>| {
            if let Some(data) = event.data {
                events.push((event.name.to_owned(), String::from_utf8_lossy(data).into_owned()));
            }
            ControlFlow::Continue(())
        };
        for chunk in chunks {
            reader.feed(chunk, &mut on);
        }
        reader.finish(&mut on);
        events
    }

    fn check(stream: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(n, d)| ((*n).to_owned(), (*d).to_owned())).collect();
        assert_eq!(read(&[stream.as_bytes()]), expected, "whole: {stream:?}");
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes), expected, "byte by byte: {stream:?}");
    }

    #[test]
    fn the_whatwg_algorithm() {
        check("data: a\n\ndata:b\n\n", &[("", "a"), ("", "b")]);
        check("data: a\r\n\r\ndata: b\r\rdata: c\n\n", &[("", "a"), ("", "b"), ("", "c")]);
        check("\u{feff}data: a\n\n", &[("", "a")]);
        check("\n\n: comment\n\nid: 7\nretry: 10\nevent: x\ndata: 1\ndata: 2\n\n", &[("x", "1\n2")]);
        check("data\n\nevent: lonely\n\n", &[("", "")]);
        check("data:  two spaces\n\n", &[("", " two spaces")]);
    }

    #[test]
    fn looser_than_the_algorithm() {
        check("data: no blank line\n", &[("", "no blank line")]);
        check("data: no line end", &[("", "no line end")]);
        check("data: a\n\ndata: [DONE]", &[("", "a"), ("", "[DONE]")]);
        check("data: a\n\ndata: [DONE] \n\n", &[("", "a"), ("", "[DONE]")]);
        check("data:  [DONE]\t\r\n\r\n", &[("", "[DONE]")]);
        check("error: {\"code\":500}\n\n", &[("error", "{\"code\":500}")]);
    }

    #[test]
    fn done_is_seen_before_its_blank_line_and_its_place_is_told() {
        let mut reader = SseReader::default();
        let mut spans = Vec::new();
        reader.feed(b"data: x\n\ndata: [DONE]", |event| {
            spans.push(event.span);
            ControlFlow::Continue(())
        });
        assert_eq!(spans, [0..9, 9..21]);
    }

    #[test]
    fn too_long_an_event_is_passed_over_and_the_next_is_read() {
        let long = format!("data: {}\n\ndata: ok\n\n", "x ".repeat(MAX_EVENT_BYTES));
        let chunks: Vec<&[u8]> = long.as_bytes().chunks(100_000).collect();
        assert_eq!(read(&chunks), [(String::new(), "ok".to_owned())]);
        assert_eq!(read(&[long.as_bytes()]), [(String::new(), "ok".to_owned())]);
    }

    #[test]
    fn of_a_picture_in_an_event_only_the_beginning_is_kept() {
        let long = format!("data: {{\"x\":\"{}\"}}\n\ndata: ok\n\n", "x".repeat(MAX_EVENT_BYTES));
        for size in [1_000, 100_000, long.len()] {
            let chunks: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
            let events = read(&chunks);
            assert_eq!(events.len(), 2);
            assert!(
                events[0].1.len() < 100_000 && events[0].1.starts_with("{\"x\":\"xx") && events[0].1.ends_with("x\"}")
            );
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
            // A line that merely begins with [DONE] is the one thing that depends on the cut, on purpose.
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
