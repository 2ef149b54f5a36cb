//! What the chunks of a stream have in common: all of their bytes, chunk after chunk, but those of the text, and of the strings
//! that say nothing here (padding, time stamps).
//!
//! A plain chunk that has exactly one text is remembered as what lies between those strings. The next chunk is compared with
//! that: where only the strings differ, nothing else has to be read again, for it would say nothing new.

use std::borrow::Cow;

use super::plain_chunk::PlainChunk;
use crate::json::lenient::quoted_string_length;
use crate::response::transcript::TranscriptPart;

/// The longest chunk, its strings apart, that is remembered. Real ones have a few hundred bytes.
const MAX_LITERAL_BYTES: usize = 2 << 10;

/// A chunk without its strings.
#[derive(Debug, Default)]
pub(super) struct ChunkTemplate {
    /// What lies between them, one after the other; their quotation marks included.
    literal_bytes: Vec<u8>,
    /// Where in that each string is to be put in, in their order.
    slots: Vec<StringSlot>,
    /// What its text is.
    part: Option<TranscriptPart>,
}

#[derive(Clone, Copy, Debug)]
struct StringSlot {
    offset: usize,
    is_text: bool,
}

impl ChunkTemplate {
    /// Makes it one of this chunk, if there can be one.
    pub(super) fn learn(&mut self, json: &str, chunk: &PlainChunk<'_>) {
        let (Some((part, text)), Some(skipped_strings)) = (only_text(chunk), chunk.skipped_strings.all()) else {
            return;
        };
        let start = |string: &str| string.as_ptr().addr() - json.as_ptr().addr();
        let is_before = |string: &&str| start(string) < start(text);
        let (before, after) =
            skipped_strings.split_at(skipped_strings.iter().take_while(|string| is_before(string)).count());
        self.part = None;
        self.literal_bytes.clear();
        self.slots.clear();
        let mut start_offset = 0;
        for string in before.iter().chain([&text]).chain(after) {
            self.literal_bytes.extend_from_slice(&json.as_bytes()[start_offset..start(string)]);
            start_offset = start(string) + string.len();
            self.slots.push(StringSlot { offset: self.literal_bytes.len(), is_text: start(string) == start(text) });
        }
        self.literal_bytes.extend_from_slice(&json.as_bytes()[start_offset..]);
        self.part = Some(part).filter(|_| self.literal_bytes.len() <= MAX_LITERAL_BYTES);
    }

    /// The text of a chunk that differs in its strings alone.
    pub(super) fn text<'a>(&self, json: &'a [u8]) -> Option<(TranscriptPart, Cow<'a, str>)> {
        let part = self.part?;
        let (mut rest, mut start_offset, mut text) = (json, 0, Cow::Borrowed(""));
        for slot in &self.slots {
            rest = rest.strip_prefix(&self.literal_bytes[start_offset..slot.offset])?;
            start_offset = slot.offset;
            let length = memchr::memchr2(b'"', b'\\', rest)?;
            let string;
            (string, rest) = rest.split_at(length);
            if slot.is_text {
                text = match rest[0] {
                    b'"' if is_unescaped(string) => Cow::Borrowed(std::str::from_utf8(string).ok()?),
                    b'"' => return None,
                    _ => {
                        let quoted = &json[json.len() - rest.len() - length - 1..];
                        let length = quoted_string_length(quoted)?;
                        rest = &quoted[length - 1..];
                        Cow::Owned(serde_json::from_slice(&quoted[..length]).ok()?)
                    }
                };
            } else if rest[0] != b'"' || !is_unescaped(string) || !string.is_ascii() {
                return None;
            }
        }
        (rest == &self.literal_bytes[start_offset..]).then_some((part, text))
    }
}

/// Whether JSON allows all of these bytes in a string as they are, quotation marks and backslashes apart.
fn is_unescaped(string: &[u8]) -> bool {
    string.iter().copied().fold(u8::MAX, u8::min) >= b' '
}

/// The text of a chunk that says nothing else, but for what every chunk of its stream says. Its bytes are those of the chunk:
/// it has no escapes.
fn only_text<'a>(chunk: &PlainChunk<'a>) -> Option<(TranscriptPart, &'a str)> {
    let [first, second, third] = &chunk.reasoning;
    let parts = [
        TranscriptPart::Text,
        TranscriptPart::Refusal,
        TranscriptPart::Reasoning,
        TranscriptPart::Reasoning,
        TranscriptPart::Reasoning,
    ];
    let texts = [&chunk.content, &chunk.refusal, first, second, third];
    let mut filled = parts.into_iter().zip(texts).filter(|(_, text)| !text.is_empty());
    match (filled.next()?, filled.next()) {
        ((part, Cow::Borrowed(text)), None) if chunk.finish_reason.is_empty() => Some((part, text)),
        _ => None,
    }
}
