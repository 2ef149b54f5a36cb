//! A parser of a JSON list that streams, for a byte stream cut at any position. Reports each element as soon as the element
//! is complete. Gemini streams such a list where the client does not ask for server-sent events.
//!
//! Pure: bytes in, elements out.

use std::ops::ControlFlow;

use crate::response::bounded_buffer::BoundedBuffer;
use crate::response::sse::{EventCompleteness, SseEvent};

/// The maximum size of an element that is kept. [`BoundedBuffer`] shortens longer elements. Less in the unit tests.
const MAX_ELEMENT_BYTES: usize = if cfg!(test) { 4 << 20 } else { 24 << 20 };

/// The depth within the list, but outside its elements.
const LIST_DEPTH: u32 = 1;

/// A complete element of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListElement<'a> {
    /// The JSON of the element. `None` for an element that is too long.
    pub data: Option<&'a [u8]>,
    /// Tells if the JSON is complete.
    pub completeness: EventCompleteness,
    /// The position after the element in the current chunk.
    pub end: usize,
}

impl<'a> ListElement<'a> {
    /// The element as the data of an event without a name.
    pub fn as_event(&self) -> SseEvent<'a> {
        let Self { data, completeness, end } = *self;
        SseEvent { name: "", data, completeness, span: 0..end, next_event_bytes: 0 }
    }
}

/// The state of the parser between two chunks.
#[derive(Debug, Default)]
pub struct JsonListParser {
    /// The number of brackets that are open.
    depth: u32,
    /// True within a string.
    in_string: bool,
    /// The last byte was a backslash within a string.
    is_escaped: bool,
    /// The bytes of an incomplete element.
    element: BoundedBuffer,
    in_element: bool,
    is_closed: bool,
    has_trailing_content: bool,
}

impl JsonListParser {
    /// Parses one chunk. The first chunk begins with the bracket that opens the list. `on_element` is called with each element
    /// that the chunk completes, and can stop the parser.
    pub fn feed(&mut self, chunk: &[u8], mut on_element: impl FnMut(ListElement<'_>) -> ControlFlow<()>) {
        let mut element_start = 0;
        let mut at = 0;
        while at < chunk.len() {
            if self.in_string {
                at = self.skip_string(chunk, at);
                continue;
            }
            let byte = chunk[at];
            let is_between = self.depth == LIST_DEPTH && !self.in_element;
            // The end of an element that this byte completes.
            let mut end = None;
            match byte {
                _ if self.is_closed => self.has_trailing_content |= !byte.is_ascii_whitespace(),
                b',' if self.depth == LIST_DEPTH => end = self.in_element.then_some(at),
                b']' | b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.is_closed = self.depth < LIST_DEPTH;
                    // A number or a word ends before the bracket, and an object ends with its own.
                    let is_end = self.in_element && self.depth <= LIST_DEPTH;
                    end = is_end.then_some(if self.is_closed { at } else { at + 1 });
                }
                byte if byte.is_ascii_whitespace() || (byte == b'[' && self.depth < LIST_DEPTH) => {
                    self.depth = self.depth.max(LIST_DEPTH);
                }
                byte => {
                    if is_between {
                        (self.in_element, element_start) = (true, at);
                    }
                    self.in_string = byte == b'"';
                    self.depth = self.depth.saturating_add(u32::from(matches!(byte, b'[' | b'{')));
                }
            }
            at += 1;
            if let Some(end) = end {
                self.element.push(&chunk[element_start..end], MAX_ELEMENT_BYTES);
                if self.report_element(end, &mut on_element).is_break() {
                    return;
                }
                element_start = at;
            }
        }
        if self.in_element {
            self.element.push(&chunk[element_start..], MAX_ELEMENT_BYTES);
        }
    }

    /// Ends the list. Reports an incomplete element, if there is one.
    pub fn finish(&mut self, mut on_element: impl FnMut(ListElement<'_>) -> ControlFlow<()>) {
        if self.in_element {
            // Nothing follows, so a request to stop makes no difference.
            let _ = self.report_element(0, &mut on_element);
        }
    }

    /// True within an element.
    pub fn in_element(&self) -> bool {
        self.in_element
    }

    /// True if the bracket that closes the list has arrived.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// True if other content than white space follows the list.
    pub fn has_trailing_content(&self) -> bool {
        self.has_trailing_content
    }

    /// Skips the rest of a string, or the bytes up to a backslash and the byte after it. Returns the position after.
    fn skip_string(&mut self, chunk: &[u8], at: usize) -> usize {
        if std::mem::take(&mut self.is_escaped) {
            return at + 1;
        }
        let Some(length) = memchr::memchr2(b'"', b'\\', &chunk[at..]) else { return chunk.len() };
        self.is_escaped = chunk[at + length] == b'\\';
        self.in_string = self.is_escaped;
        at + length + 1
    }

    fn report_element(
        &mut self,
        end: usize,
        on_element: &mut impl FnMut(ListElement<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let completeness = match (self.element.is_truncated(), self.element.is_shortened()) {
            (true, _) => EventCompleteness::TooLong,
            (false, true) => EventCompleteness::Shortened,
            (false, false) => EventCompleteness::Whole,
        };
        let data = (completeness != EventCompleteness::TooLong).then(|| self.element.bytes().trim_ascii_end());
        let flow = on_element(ListElement { data, completeness, end });
        self.element.clear();
        self.in_element = false;
        flow
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The elements of a list that arrives in these pieces, and the state after the last piece.
    fn elements<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, bool, bool) {
        let mut parser = JsonListParser::default();
        let mut elements = Vec::new();
        let mut on_element = |element: ListElement<'_>| {
            elements.push(String::from_utf8_lossy(element.data.unwrap_or(b"too long")).into_owned());
            ControlFlow::Continue(())
        };
        pieces.into_iter().for_each(|piece| parser.feed(piece, &mut on_element));
        parser.finish(&mut on_element);
        (elements, parser.is_closed(), parser.has_trailing_content())
    }

    #[test]
    fn elements_are_reported_however_the_list_is_cut() {
        let cases: [(&str, &[&str], bool); 7] = [
            (r#"[{"a":"]}\"\\"},{"b":[1,{}]}]"#, &[r#"{"a":"]}\"\\"}"#, r#"{"b":[1,{}]}"#], true),
            ("[\n{\"a\":1}\r\n,\r\n{}\n]\n", &["{\"a\":1}", "{}"], true),
            ("[]", &[], true),
            ("[1 , \"a,]\" , null ]", &["1", "\"a,]\"", "null"], true),
            ("[[{}],[[]]]", &["[{}]", "[[]]"], true),
            (r#"[{"a":1},{"b":"#, &[r#"{"a":1}"#, r#"{"b":"#], false),
            ("[,,{},]", &["{}"], true),
        ];
        for (list, expected, is_closed) in cases {
            for size in 1..=list.len() {
                let (elements, closed, trailing) = elements(list.as_bytes().chunks(size));
                assert_eq!(
                    (elements, closed, trailing),
                    (expected.iter().map(ToString::to_string).collect(), is_closed, false),
                    "{list} in pieces of {size}"
                );
            }
        }
        assert!(elements([&b"[{}] x"[..]]).2);
    }

    #[test]
    fn a_long_element_is_bounded() {
        let list = format!(r#"[{{"a":"{}"}},{{}}]"#, "so on and ".repeat(MAX_ELEMENT_BYTES / 8));
        assert_eq!(elements(list.as_bytes().chunks(100_000)).0, ["too long", "{}"]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_elements_however_they_are_cut(
            body in "\\[[\\[\\]{}\",:\\\\a1 \n]{0,60}", size in 1..20_usize,
        ) {
            prop_assert_eq!(elements([body.as_bytes()]), elements(body.as_bytes().chunks(size)));
        }
    }
}
