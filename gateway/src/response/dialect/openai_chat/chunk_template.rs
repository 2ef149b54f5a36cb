//! A template of the chunks of a stream, for fast parsing. Nearly all bytes of a chunk are the same as in the chunk
//! before, except for the text and a few irrelevant strings (padding, time stamps).
//!
//! The template is learned from a plain chunk with exactly one text, and holds the bytes between these strings. If the
//! next chunk differs only in the strings, its text is cut out without parsing the rest, which would add nothing new.

use std::borrow::Cow;

use super::plain_chunk::PlainChunk;
use crate::json::lenient::quoted_string_length;
use crate::response::transcript::TranscriptPart;

/// The maximum size of a template, in bytes. The chunks of known providers have a few hundred bytes without their
/// strings.
const MAX_LITERAL_BYTES: usize = 2 << 10;

/// A chunk without its text and irrelevant strings. Empty until learned.
#[derive(Debug, Default)]
pub(super) struct ChunkTemplate {
    /// The bytes between the strings, concatenated, including the quotation marks.
    literal_bytes: Vec<u8>,
    /// The positions of the strings in `literal_bytes`, in order.
    slots: Vec<StringSlot>,
    /// The kind of text. `None` if there is no template.
    part: Option<TranscriptPart>,
}

#[derive(Clone, Copy, Debug)]
struct StringSlot {
    offset: usize,
    is_text: bool,
}

impl ChunkTemplate {
    /// Learns the template from a chunk. A chunk that does not have exactly one text leaves the template unchanged.
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

    /// The text of a chunk that matches the template.
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

/// True if JSON allows all bytes in a string without escapes. Quotation marks and backslashes are not checked.
fn is_unescaped(string: &[u8]) -> bool {
    string.iter().copied().fold(u8::MAX, u8::min) >= b' '
}

/// The only text of a chunk, if all other contents are those of every chunk in the stream. The text is a slice of the
/// chunk: texts with escapes are not considered.
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
