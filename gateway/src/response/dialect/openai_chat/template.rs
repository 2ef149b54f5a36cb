//! What the chunks of a stream have in common: all of their bytes, chunk after chunk, but those of the text, and of the strings
//! that say nothing here (padding, time stamps).
//!
//! A plain chunk that has exactly one text is remembered as what lies between those strings. The next chunk is compared with
//! that: where only the strings differ, nothing else has to be read again, for it would say nothing new.

use std::borrow::Cow;

use super::plain::Plain;
use crate::json::lenient::length_of_quoted;
use crate::response::transcript::Part;

/// The longest chunk, its strings apart, that is remembered. Real ones have a few hundred bytes.
const MAX_BYTES: usize = 2 << 10;

/// A chunk without its strings.
#[derive(Debug, Default)]
pub(super) struct Template {
    /// What lies between them, one after the other; their quotation marks included.
    between: Vec<u8>,
    /// Where in that each string is to be put in, in their order.
    strings: Vec<Place>,
    /// What its text is.
    part: Option<Part>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    at: usize,
    is_text: bool,
}

impl Template {
    /// Makes it one of this chunk, if there can be one.
    pub(super) fn learn(&mut self, json: &str, chunk: &Plain<'_>) {
        let (Some((part, text)), Some(passed_over)) = (only_text(chunk), chunk.passed_over.all()) else { return };
        let start = |string: &str| string.as_ptr().addr() - json.as_ptr().addr();
        let is_before = |string: &&str| start(string) < start(text);
        let (before, after) = passed_over.split_at(passed_over.iter().take_while(|string| is_before(string)).count());
        self.part = None;
        self.between.clear();
        self.strings.clear();
        let mut from = 0;
        for string in before.iter().chain([&text]).chain(after) {
            self.between.extend_from_slice(&json.as_bytes()[from..start(string)]);
            from = start(string) + string.len();
            self.strings.push(Place { at: self.between.len(), is_text: start(string) == start(text) });
        }
        self.between.extend_from_slice(&json.as_bytes()[from..]);
        self.part = Some(part).filter(|_| self.between.len() <= MAX_BYTES);
    }

    /// The text of a chunk that differs in its strings alone.
    pub(super) fn text<'a>(&self, json: &'a [u8]) -> Option<(Part, Cow<'a, str>)> {
        let part = self.part?;
        let (mut rest, mut from, mut text) = (json, 0, Cow::Borrowed(""));
        for place in &self.strings {
            rest = rest.strip_prefix(&self.between[from..place.at])?;
            from = place.at;
            let length = memchr::memchr2(b'"', b'\\', rest)?;
            let string;
            (string, rest) = rest.split_at(length);
            if place.is_text {
                text = match rest[0] {
                    b'"' if is_allowed(string) => Cow::Borrowed(std::str::from_utf8(string).ok()?),
                    b'"' => return None,
                    _ => {
                        let quoted = &json[json.len() - rest.len() - length - 1..];
                        let length = length_of_quoted(quoted)?;
                        rest = &quoted[length - 1..];
                        Cow::Owned(serde_json::from_slice(&quoted[..length]).ok()?)
                    }
                };
            } else if rest[0] != b'"' || !is_allowed(string) || !string.is_ascii() {
                return None;
            }
        }
        (rest == &self.between[from..]).then_some((part, text))
    }
}

/// Whether JSON allows all of these bytes in a string as they are, quotation marks and backslashes apart.
fn is_allowed(string: &[u8]) -> bool {
    string.iter().copied().fold(u8::MAX, u8::min) >= b' '
}

/// The text of a chunk that says nothing else, but for what every chunk of its stream says. Its bytes are those of the chunk:
/// it has no escapes.
fn only_text<'a>(chunk: &Plain<'a>) -> Option<(Part, &'a str)> {
    let [first, second, third] = &chunk.reasoning;
    let parts = [Part::Text, Part::Refusal, Part::Reasoning, Part::Reasoning, Part::Reasoning];
    let texts = [&chunk.content, &chunk.refusal, first, second, third];
    let mut filled = parts.into_iter().zip(texts).filter(|(_, text)| !text.is_empty());
    match (filled.next()?, filled.next()) {
        ((part, Cow::Borrowed(text)), None) if chunk.finish_reason.is_empty() => Some((part, text)),
        _ => None,
    }
}
