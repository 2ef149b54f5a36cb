//! A byte buffer with an upper bound, for content that is parsed once it is complete.
//!
//! Content beyond the bound mostly consists of a single image or sound, which the record leaves out. Past the bound,
//! every long run of base64 is therefore shortened to its beginning, so that the rest can still be parsed. A run of
//! base64 contains no quotation mark, backslash or line end: shortened JSON stays JSON, and a shortened line stays a
//! line.

use crate::response::large_buffers::LargeBuffer;

/// The maximum length to which a run is shortened. No word of any language is this long.
const MAX_BASE64_RUN_BYTES: usize = 64 << 10;

/// A byte buffer with an upper bound. Shortens runs of base64 past the bound.
#[derive(Debug, Default)]
pub struct BoundedBuffer {
    bytes: Vec<u8>,
    /// The length so far of the run that the last bytes belong to. `None` while runs are not shortened.
    base64_run: Option<usize>,
    is_truncated: bool,
    /// The memory of the buffer beyond the size that each buffer may have.
    share: LargeBuffer,
}

/// The capacity that an emptied buffer keeps for the next content, in bytes.
const MAX_KEPT_CAPACITY: usize = 1 << 20;

impl BoundedBuffer {
    /// Appends a piece. The buffer holds at most `max_bytes`, and less if the memory for large responses is used up.
    pub fn push(&mut self, piece: &[u8], max_bytes: usize) {
        let has_room = self.share.grow_to((self.bytes.len() + piece.len()).min(max_bytes));
        let max_bytes = if has_room { max_bytes } else { self.bytes.len().min(max_bytes) };
        if self.base64_run.is_none() {
            if self.bytes.len() + piece.len() <= max_bytes {
                return self.bytes.extend_from_slice(piece);
            }
            let whole = std::mem::take(&mut self.bytes);
            self.base64_run = Some(0);
            self.push_shortened(&whole, max_bytes);
        }
        self.push_shortened(piece, max_bytes);
    }

    /// The bytes kept so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// True if runs of base64 have been shortened.
    pub fn is_shortened(&self) -> bool {
        self.base64_run.is_some()
    }

    /// True if the content exceeds the bound even with shortened runs. The buffer then holds an incomplete copy.
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Empties the buffer for the next content.
    pub fn clear(&mut self) {
        if self.bytes.capacity() > MAX_KEPT_CAPACITY {
            self.bytes = Vec::new();
            self.share = LargeBuffer::default();
        }
        self.bytes.clear();
        (self.base64_run, self.is_truncated) = (None, false);
    }

    fn push_shortened(&mut self, mut piece: &[u8], max_bytes: usize) {
        let mut base64_run = self.base64_run.unwrap_or(0);
        while !self.is_truncated && !piece.is_empty() {
            let length = piece.iter().take_while(|byte| is_base64(**byte)).count();
            let other_bytes = piece[length..].iter().take_while(|byte| !is_base64(**byte)).count();
            let retained = length.min(MAX_BASE64_RUN_BYTES.saturating_sub(base64_run));
            base64_run = if other_bytes > 0 { 0 } else { base64_run + length };
            if self.bytes.len() + retained + other_bytes > max_bytes {
                self.is_truncated = true;
            } else {
                self.bytes.extend_from_slice(&piece[..retained]);
                self.bytes.extend_from_slice(&piece[length..length + other_bytes]);
            }
            piece = &piece[length + other_bytes..];
        }
        self.base64_run = Some(base64_run);
    }
}

/// True if the text has a run of base64 that may have been shortened.
pub fn has_shortened_run(text: &str) -> bool {
    text.as_bytes().split(|byte| !is_base64(*byte)).any(|run| run.len() >= MAX_BASE64_RUN_BYTES)
}

/// True if the byte belongs to one of the two base64 alphabets, padding included.
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_BYTES: usize = 300 << 10;

    fn fill<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> BoundedBuffer {
        let mut buffer = BoundedBuffer::default();
        pieces.into_iter().for_each(|piece| buffer.push(piece, MAX_BYTES));
        buffer
    }

    #[test]
    fn short_content_is_kept_unchanged() {
        let long = "A".repeat(MAX_BYTES);
        let buffer = fill([long.as_bytes()]);
        assert!(buffer.bytes() == long.as_bytes() && !buffer.is_shortened() && !buffer.is_truncated());
    }

    #[test]
    fn base64_runs_of_long_content_are_shortened() {
        let document =
            |run: usize| format!(r#"{{"a":"é {0}","b":"data:x;base64,{0}","c":[1,"{0}"]}}"#, "Aa0+/=".repeat(run));
        let (long, short) = (document(1 << 20), document(0));
        for size in [1 << 10, 100_000, long.len()] {
            let mut buffer = fill(long.as_bytes().chunks(size));
            assert!(buffer.is_shortened() && !buffer.is_truncated(), "in pieces of {size}");
            assert_eq!(buffer.bytes().len(), short.len() + 3 * MAX_BASE64_RUN_BYTES, "in pieces of {size}");
            assert!(serde_json::from_slice::<serde::de::IgnoredAny>(buffer.bytes()).is_ok(), "in pieces of {size}");
            buffer.clear();
            buffer.push(b"next", MAX_BYTES);
            assert!(buffer.bytes() == b"next" && !buffer.is_shortened(), "after pieces of {size}");
        }
    }

    #[test]
    fn content_that_stays_too_long_is_bounded() {
        let words = "so on and ".repeat(MAX_BYTES);
        let mut buffer = fill(words.as_bytes().chunks(1_000));
        assert!(buffer.is_truncated() && buffer.bytes().len() <= MAX_BYTES && buffer.bytes.capacity() <= 2 * MAX_BYTES);
        buffer.clear();
        assert!(!buffer.is_truncated());
    }

    proptest! {
        #[test]
        fn content_is_the_same_however_it_is_cut(
            runs in proptest::collection::vec((0..200_000_usize, "[ é\"\\\\\n]{1,3}"), 1..6),
            size in 1_000..400_000_usize,
        ) {
            let text: String = runs.iter().map(|(base64_run, between)| "x".repeat(*base64_run) + between).collect();
            let (whole, cut) = (fill([text.as_bytes()]), fill(text.as_bytes().chunks(size)));
            prop_assert!(whole.is_truncated() || whole.bytes() == cut.bytes());
            prop_assert_eq!((whole.is_shortened(), whole.is_truncated()), (cut.is_shortened(), cut.is_truncated()));
            prop_assert!(whole.bytes().len() <= MAX_BYTES);
        }
    }
}
