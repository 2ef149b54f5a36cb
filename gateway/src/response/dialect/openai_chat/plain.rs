//! The plain chunk: what nearly every chunk of nearly every stream is, read in one pass and without looking back.
//!
//! One choice, the first; text, reasoning or nothing in its delta; no usage, no error, no calls. Whatever is not exactly
//! that is left to the reader that knows everything, [`Chunk`](super::shape::Chunk), and so is whatever is not for certain
//! what that reader would make of it: text with half a surrogate pair, a member that comes twice. A plain chunk says here
//! what it would say there; a test holds the two against each other.

use std::borrow::Cow;

/// How deep a value may be nested that is passed over.
const MOST_DEPTH: u32 = 8;

/// How many strings are remembered that were passed over.
const MOST_PASSED_OVER: usize = 12;

/// What a plain chunk says. Empty text is none.
#[derive(Debug, Default)]
pub(super) struct Plain<'a> {
    pub(super) id: &'a str,
    pub(super) model: &'a str,
    pub(super) finish_reason: &'a str,
    pub(super) content: Cow<'a, str>,
    pub(super) refusal: Cow<'a, str>,
    /// `reasoning_content`, `reasoning` and `reasoning_text`.
    pub(super) reasoning: [Cow<'a, str>; 3],
    /// The strings that were passed over, in their order.
    pub(super) passed_over: PassedOver<'a>,
}

/// Some strings in a chunk.
#[derive(Debug, Default)]
pub(super) struct PassedOver<'a> {
    strings: [&'a str; MOST_PASSED_OVER],
    /// How many there were, those included for which there was no place.
    count: usize,
}

impl<'a> PassedOver<'a> {
    fn push(&mut self, string: &'a str) {
        if let Some(place) = self.strings.get_mut(self.count) {
            *place = string;
        }
        self.count += 1;
    }

    /// All of them, unless there were too many.
    pub(super) fn all(&self) -> Option<&[&'a str]> {
        self.strings.get(..self.count)
    }
}

impl<'a> Plain<'a> {
    /// Reads a chunk, if it is a plain one.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        // No character below a space is allowed in text, and none is needed between tokens.
        let least = json.bytes().fold(u8::MAX, u8::min);
        if least < b' ' {
            return None;
        }
        let mut chunk = Self::default();
        let mut tokens = Tokens { json, at: 0, passed_over: PassedOver::default() };
        chunk.read_members(&mut tokens)?;
        let is_read = tokens.is_at_end();
        chunk.passed_over = tokens.passed_over;
        is_read.then_some(chunk)
    }

    fn read_members(&mut self, tokens: &mut Tokens<'a>) -> Option<()> {
        let mut seen = Seen::default();
        let mut has_choice = false;
        tokens.object(|tokens, name| match name {
            "id" => tokens.word_or_null(seen.first(0)?).map(|id| self.id = id),
            "model" => tokens.word_or_null(seen.first(1)?).map(|model| self.model = model),
            "choices" => {
                seen.first(2)?;
                tokens.expect(b'[')?;
                self.read_choice(tokens)?;
                has_choice = true;
                tokens.expect(b']')
            }
            "usage" => tokens.null(seen.first(3)?),
            "error" => tokens.null(seen.first(4)?),
            "x_groq" => tokens.nothing(seen.first(5)?),
            _ => tokens.pass_over(MOST_DEPTH),
        })?;
        has_choice.then_some(())
    }

    fn read_choice(&mut self, tokens: &mut Tokens<'a>) -> Option<()> {
        let mut seen = Seen::default();
        tokens.object(|tokens, name| match name {
            "index" => {
                seen.first(0)?;
                (tokens.number()? == "0").then_some(())
            }
            "delta" => {
                seen.first(1)?;
                self.read_delta(tokens)
            }
            "finish_reason" => tokens.word_or_null(seen.first(2)?).map(|reason| self.finish_reason = reason),
            "message" => tokens.null(seen.first(3)?),
            "usage" => tokens.null(seen.first(4)?),
            "error" => tokens.null(seen.first(5)?),
            _ => tokens.pass_over(MOST_DEPTH),
        })
    }

    fn read_delta(&mut self, tokens: &mut Tokens<'a>) -> Option<()> {
        let mut seen = Seen::default();
        tokens.object(|tokens, name| match name {
            "content" => tokens.text_or_null(seen.first(0)?).map(|text| self.content = text),
            "reasoning_content" => tokens.text_or_null(seen.first(1)?).map(|text| self.reasoning[0] = text),
            "reasoning" => tokens.text_or_null(seen.first(2)?).map(|text| self.reasoning[1] = text),
            "reasoning_text" => tokens.text_or_null(seen.first(3)?).map(|text| self.reasoning[2] = text),
            "refusal" => tokens.text_or_null(seen.first(4)?).map(|text| self.refusal = text),
            "reasoning_details" => tokens.nothing(seen.first(5)?),
            "audio" => tokens.nothing(seen.first(6)?),
            "tool_calls" => tokens.nothing(seen.first(7)?),
            "function_call" => tokens.nothing(seen.first(8)?),
            _ => tokens.pass_over(MOST_DEPTH),
        })
    }
}

/// Which members of an object have come.
#[derive(Debug, Default)]
struct Seen(u16);

impl Seen {
    /// `None` if this one has come before.
    fn first(&mut self, member: u32) -> Option<()> {
        let is_first = self.0 & (1 << member) == 0;
        self.0 |= 1 << member;
        is_first.then_some(())
    }
}

/// The tokens of a JSON text. What cannot be read ends the reading with `None`; that says nothing about the JSON.
struct Tokens<'a> {
    json: &'a str,
    at: usize,
    passed_over: PassedOver<'a>,
}

impl<'a> Tokens<'a> {
    /// The next byte that is no space, if there is one.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.json.as_bytes().get(self.at)? {
                b' ' => self.at += 1,
                byte => return Some(*byte),
            }
        }
    }

    fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    /// An object; `on` reads each member's value.
    fn object(&mut self, mut on: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.eat(b'}') {
            return Some(());
        }
        loop {
            let name = self.word()?;
            self.expect(b':')?;
            on(self, name)?;
            if !self.eat(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// A string without escapes.
    fn word(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let begin = self.at;
        let end = begin + memchr::memchr2(b'"', b'\\', &self.json.as_bytes()[begin..])?;
        self.at = end + 1;
        (self.json.as_bytes()[end] == b'"').then(|| &self.json[begin..end])
    }

    /// A string, its escapes resolved.
    fn text(&mut self) -> Option<Cow<'a, str>> {
        let quote = self.at;
        if let Some(word) = self.word() {
            return Some(Cow::Borrowed(word));
        }
        self.at = quote;
        self.expect(b'"')?;
        let bytes = self.json.as_bytes();
        loop {
            self.at += memchr::memchr2(b'"', b'\\', &bytes[self.at..])?;
            if bytes[self.at] == b'"' {
                break;
            }
            // The escape and what it escapes, whatever that is: it is judged below.
            self.at += 2;
            if self.at > bytes.len() {
                return None;
            }
        }
        self.at += 1;
        serde_json::from_str(self.json.get(quote..self.at)?).ok().map(Cow::Owned)
    }

    fn word_or_null(&mut self, (): ()) -> Option<&'a str> {
        if self.peek()? == b'"' { self.word() } else { self.null(()).map(|()| "") }
    }

    fn text_or_null(&mut self, (): ()) -> Option<Cow<'a, str>> {
        if self.peek()? == b'"' { self.text() } else { self.null(()).map(|()| Cow::Borrowed("")) }
    }

    fn null(&mut self, (): ()) -> Option<()> {
        self.peek()?;
        self.literal("null")
    }

    /// `null`, or an object or a list with nothing in it.
    fn nothing(&mut self, (): ()) -> Option<()> {
        match self.peek()? {
            b'{' => self.expect(b'{').and_then(|()| self.expect(b'}')),
            b'[' => self.expect(b'[').and_then(|()| self.expect(b']')),
            _ => self.literal("null"),
        }
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        let is_next = self.json.as_bytes()[self.at..].starts_with(literal.as_bytes());
        self.at += literal.len();
        is_next.then_some(())
    }

    /// A whole number that is not negative, its digits as they are.
    fn number(&mut self) -> Option<&'a str> {
        self.peek()?;
        let rest = &self.json[self.at..];
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.split_at(length);
        let is_whole = !matches!(after.as_bytes().first(), Some(b'.' | b'e' | b'E'));
        let is_canonical = length == 1 || (length > 1 && digits.as_bytes()[0] != b'0');
        self.at += length;
        (is_whole && is_canonical).then_some(digits)
    }

    /// A value that says nothing here.
    fn pass_over(&mut self, depth: u32) -> Option<()> {
        match self.peek()? {
            b'"' => self.word().map(|word| self.passed_over.push(word)),
            b'n' => self.literal("null"),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'{' => {
                let depth = depth.checked_sub(1)?;
                self.object(|tokens, _| tokens.pass_over(depth))
            }
            b'[' => {
                let depth = depth.checked_sub(1)?;
                self.at += 1;
                if self.eat(b']') {
                    return Some(());
                }
                loop {
                    self.pass_over(depth)?;
                    if !self.eat(b',') {
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
