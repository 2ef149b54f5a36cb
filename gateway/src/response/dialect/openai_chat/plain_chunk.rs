//! A fast parser for plain chunks, the kind of nearly all chunks in nearly all streams. One pass, without backtracking.
//!
//! A plain chunk has one choice, the first, with text, reasoning or nothing in its delta, and no usage, error or tool
//! call. All other chunks are left to the general parser, [`ChatChunk`](super::shape::ChatChunk). So are chunks for
//! which the result of the general parser is not certain, such as text with an unpaired surrogate, or a repeated
//! member. Both parsers give the same result for a plain chunk; a test compares them.

use std::borrow::Cow;

/// The maximum nesting depth of a skipped value.
const MAX_DEPTH: u32 = 8;

/// The maximum number of skipped strings that are remembered.
const MAX_SKIPPED_STRINGS: usize = 12;

/// The contents of a plain chunk. Absent texts are empty.
#[derive(Debug, Default)]
pub(super) struct PlainChunk<'a> {
    pub(super) id: &'a str,
    pub(super) model: &'a str,
    pub(super) finish_reason: &'a str,
    pub(super) content: Cow<'a, str>,
    pub(super) refusal: Cow<'a, str>,
    /// The texts of `reasoning_content`, `reasoning` and `reasoning_text`.
    pub(super) reasoning: [Cow<'a, str>; 3],
    /// The strings that were skipped, in order.
    pub(super) skipped_strings: SkippedStrings<'a>,
}

/// Strings of a chunk that were skipped. Bounded.
#[derive(Debug, Default)]
pub(super) struct SkippedStrings<'a> {
    strings: [&'a str; MAX_SKIPPED_STRINGS],
    /// The number of skipped strings, including those beyond the bound.
    count: usize,
}

impl<'a> SkippedStrings<'a> {
    fn push(&mut self, string: &'a str) {
        if let Some(slot) = self.strings.get_mut(self.count) {
            *slot = string;
        }
        self.count += 1;
    }

    /// All skipped strings. `None` if there were more than the maximum.
    pub(super) fn all(&self) -> Option<&[&'a str]> {
        self.strings.get(..self.count)
    }
}

impl<'a> PlainChunk<'a> {
    /// Parses a chunk. `None` if the chunk is not plain.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        // JSON allows no characters below space in strings. Between tokens, tabs and line ends are allowed, but a chunk with
        // such white space is left to the general parser.
        let smallest_byte = json.bytes().fold(u8::MAX, u8::min);
        if smallest_byte < b' ' {
            return None;
        }
        let mut chunk = Self::default();
        let mut reader = TokenReader { json, offset: 0, skipped_strings: SkippedStrings::default() };
        chunk.read_members(&mut reader)?;
        let is_read = reader.is_at_end();
        chunk.skipped_strings = reader.skipped_strings;
        is_read.then_some(chunk)
    }

    fn read_members(&mut self, reader: &mut TokenReader<'a>) -> Option<()> {
        let mut seen = SeenMembers::default();
        let mut has_choice = false;
        reader.object(|reader, name| match name {
            "id" => reader.unescaped_string_or_null(seen.mark_first(0)?).map(|id| self.id = id),
            "model" => reader.unescaped_string_or_null(seen.mark_first(1)?).map(|model| self.model = model),
            "choices" => {
                seen.mark_first(2)?;
                reader.expect(b'[')?;
                self.read_choice(reader)?;
                has_choice = true;
                reader.expect(b']')
            }
            "usage" => reader.null(seen.mark_first(3)?),
            "error" => reader.null(seen.mark_first(4)?),
            "x_groq" => reader.empty_or_null(seen.mark_first(5)?),
            "base_resp" | "error_msg" | "meta" => None,
            _ => reader.skip_value(MAX_DEPTH),
        })?;
        has_choice.then_some(())
    }

    fn read_choice(&mut self, reader: &mut TokenReader<'a>) -> Option<()> {
        let mut seen = SeenMembers::default();
        reader.object(|reader, name| match name {
            "index" => {
                seen.mark_first(0)?;
                (reader.number()? == "0").then_some(())
            }
            "delta" => {
                seen.mark_first(1)?;
                self.read_delta(reader)
            }
            "finish_reason" => {
                reader.unescaped_string_or_null(seen.mark_first(2)?).map(|reason| self.finish_reason = reason)
            }
            "message" => reader.null(seen.mark_first(3)?),
            "usage" => reader.null(seen.mark_first(4)?),
            "error" => reader.null(seen.mark_first(5)?),
            "text" => reader.empty_or_null(seen.mark_first(6)?),
            _ => reader.skip_value(MAX_DEPTH),
        })
    }

    fn read_delta(&mut self, reader: &mut TokenReader<'a>) -> Option<()> {
        let mut seen = SeenMembers::default();
        reader.object(|reader, name| match name {
            "content" => reader.string_or_null(seen.mark_first(0)?).map(|string| self.content = string),
            "reasoning_content" => reader.string_or_null(seen.mark_first(1)?).map(|string| self.reasoning[0] = string),
            "reasoning" => reader.string_or_null(seen.mark_first(2)?).map(|string| self.reasoning[1] = string),
            "reasoning_text" => reader.string_or_null(seen.mark_first(3)?).map(|string| self.reasoning[2] = string),
            "refusal" => reader.string_or_null(seen.mark_first(4)?).map(|string| self.refusal = string),
            "reasoning_details" => reader.empty_or_null(seen.mark_first(5)?),
            "audio" => reader.empty_or_null(seen.mark_first(6)?),
            "tool_calls" => reader.empty_or_null(seen.mark_first(7)?),
            "function_call" => reader.empty_or_null(seen.mark_first(8)?),
            "thinking" => reader.empty_or_null(seen.mark_first(9)?),
            "cot_summary" => reader.empty_or_null(seen.mark_first(10)?),
            "thinking_blocks" => reader.empty_or_null(seen.mark_first(11)?),
            "images" => reader.empty_or_null(seen.mark_first(12)?),
            "image" => reader.empty_or_null(seen.mark_first(13)?),
            "videos" => reader.empty_or_null(seen.mark_first(14)?),
            "files" => reader.empty_or_null(seen.mark_first(15)?),
            "audio_content" => reader.empty_or_null(seen.mark_first(16)?),
            "thinking_content" => reader.empty_or_null(seen.mark_first(17)?),
            "reasoning_summary" => reader.empty_or_null(seen.mark_first(18)?),
            "thought" => reader.empty_or_null(seen.mark_first(19)?),
            "provider_specific_fields" => reader.empty_or_null(seen.mark_first(20)?),
            "usage" => reader.null(seen.mark_first(21)?),
            _ => reader.skip_value(MAX_DEPTH),
        })
    }
}

/// The set of members already read in an object.
#[derive(Debug, Default)]
struct SeenMembers(u32);

impl SeenMembers {
    /// Marks a member as read. `None` if the member is repeated.
    fn mark_first(&mut self, member: u32) -> Option<()> {
        let is_first = self.0 & (1 << member) == 0;
        self.0 |= 1 << member;
        is_first.then_some(())
    }
}

/// A reader of JSON tokens. `None` means that the general parser is needed, and not that the JSON is invalid.
struct TokenReader<'a> {
    json: &'a str,
    offset: usize,
    skipped_strings: SkippedStrings<'a>,
}

impl<'a> TokenReader<'a> {
    /// The next byte after spaces. `None` at the end.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.json.as_bytes().get(self.offset)? {
                b' ' => self.offset += 1,
                byte => return Some(*byte),
            }
        }
    }

    fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    fn consume(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.offset += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.consume(byte).then_some(())
    }

    /// Reads an object; `on_member` reads the value of each member.
    fn object(&mut self, mut on_member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.consume(b'}') {
            return Some(());
        }
        loop {
            let name = self.unescaped_string()?;
            self.expect(b':')?;
            on_member(self, name)?;
            if !self.consume(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// Reads a string without escapes.
    fn unescaped_string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let begin = self.offset;
        let end = begin + memchr::memchr2(b'"', b'\\', &self.json.as_bytes()[begin..])?;
        self.offset = end + 1;
        (self.json.as_bytes()[end] == b'"').then(|| &self.json[begin..end])
    }

    /// Reads a string and resolves its escapes.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let quote = self.offset;
        if let Some(unescaped_string) = self.unescaped_string() {
            return Some(Cow::Borrowed(unescaped_string));
        }
        self.offset = quote;
        self.expect(b'"')?;
        let bytes = self.json.as_bytes();
        loop {
            self.offset += memchr::memchr2(b'"', b'\\', &bytes[self.offset..])?;
            if bytes[self.offset] == b'"' {
                break;
            }
            // Skips the backslash and the byte after it. `serde_json` validates the escape below.
            self.offset += 2;
            if self.offset > bytes.len() {
                return None;
            }
        }
        self.offset += 1;
        serde_json::from_str(self.json.get(quote..self.offset)?).ok().map(Cow::Owned)
    }

    fn unescaped_string_or_null(&mut self, (): ()) -> Option<&'a str> {
        if self.peek()? == b'"' { self.unescaped_string() } else { self.null(()).map(|()| "") }
    }

    fn string_or_null(&mut self, (): ()) -> Option<Cow<'a, str>> {
        if self.peek()? == b'"' { self.string() } else { self.null(()).map(|()| Cow::Borrowed("")) }
    }

    fn null(&mut self, (): ()) -> Option<()> {
        self.peek()?;
        self.literal("null")
    }

    /// Reads `null`, an empty string, an empty object or an empty list.
    fn empty_or_null(&mut self, (): ()) -> Option<()> {
        match self.peek()? {
            b'{' => self.expect(b'{').and_then(|()| self.expect(b'}')),
            b'[' => self.expect(b'[').and_then(|()| self.expect(b']')),
            b'"' => self.literal("\"\""),
            _ => self.literal("null"),
        }
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        let is_next = self.json.as_bytes()[self.offset..].starts_with(literal.as_bytes());
        self.offset += literal.len();
        is_next.then_some(())
    }

    /// Reads a non-negative whole number and returns its digits.
    fn number(&mut self) -> Option<&'a str> {
        self.peek()?;
        let rest = &self.json[self.offset..];
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.split_at(length);
        let is_whole = !matches!(after.as_bytes().first(), Some(b'.' | b'e' | b'E'));
        let is_canonical = length == 1 || (length > 1 && digits.as_bytes()[0] != b'0');
        self.offset += length;
        (is_whole && is_canonical).then_some(digits)
    }

    /// Skips an irrelevant value.
    fn skip_value(&mut self, depth: u32) -> Option<()> {
        match self.peek()? {
            b'"' => self.unescaped_string().map(|unescaped_string| self.skipped_strings.push(unescaped_string)),
            b'n' => self.literal("null"),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'{' => {
                let depth = depth.checked_sub(1)?;
                self.object(|reader, _| reader.skip_value(depth))
            }
            b'[' => {
                let depth = depth.checked_sub(1)?;
                self.offset += 1;
                if self.consume(b']') {
                    return Some(());
                }
                loop {
                    self.skip_value(depth)?;
                    if !self.consume(b',') {
                        return self.expect(b']');
                    }
                }
            }
            _ => self.number().map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests;
