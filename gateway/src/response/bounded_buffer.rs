//! What is kept of something that is read when it is complete: all of it, up to a bound. What is longer is mostly one picture or
//! sound in it, and that is not for the record: then of every run of base64 only the beginning is kept, so that the rest can be read.
//!
//! A run holds no quotation mark, no backslash and no line end, so that JSON stays JSON, and a line a line.

/// The most of a run that is kept. No word of any language is this long.
const MAX_RUN_BYTES: usize = 64 << 10;

/// Bytes that are kept.
#[derive(Debug, Default)]
pub struct Kept {
    bytes: Vec<u8>,
    /// How long the run is that the last of them belong to, where runs are shortened.
    run: Option<usize>,
    is_too_long: bool,
}

impl Kept {
    /// Takes in what comes next, where no more than `most` may be kept.
    pub fn push(&mut self, piece: &[u8], most: usize) {
        if self.run.is_none() {
            if self.bytes.len() + piece.len() <= most {
                return self.bytes.extend_from_slice(piece);
            }
            let whole = std::mem::take(&mut self.bytes);
            self.run = Some(0);
            self.push_shortened(&whole, most);
        }
        self.push_shortened(piece, most);
    }

    /// What is kept.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether runs were shortened.
    pub fn is_shortened(&self) -> bool {
        self.run.is_some()
    }

    /// Whether it was too long even so. Then only a beginning of it is kept.
    pub fn is_too_long(&self) -> bool {
        self.is_too_long
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.run, self.is_too_long) = (None, false);
    }

    fn push_shortened(&mut self, mut piece: &[u8], most: usize) {
        let mut run = self.run.unwrap_or(0);
        while !self.is_too_long && !piece.is_empty() {
            let length = piece.iter().take_while(|byte| is_base64(**byte)).count();
            let others = piece[length..].iter().take_while(|byte| !is_base64(**byte)).count();
            let kept = length.min(MAX_RUN_BYTES.saturating_sub(run));
            run = if others > 0 { 0 } else { run + length };
            if self.bytes.len() + kept + others > most {
                self.is_too_long = true;
            } else {
                self.bytes.extend_from_slice(&piece[..kept]);
                self.bytes.extend_from_slice(&piece[length..length + others]);
            }
            piece = &piece[length + others..];
        }
        self.run = Some(run);
    }
}

/// Whether base64 has this byte, in either alphabet.
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 300 << 10;

    fn keep<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Kept {
        let mut kept = Kept::default();
        pieces.into_iter().for_each(|piece| kept.push(piece, MOST));
        kept
    }

    #[test]
    fn what_is_short_enough_is_kept_as_it_is() {
        let long = "A".repeat(MOST);
        let kept = keep([long.as_bytes()]);
        assert!(kept.bytes() == long.as_bytes() && !kept.is_shortened() && !kept.is_too_long());
    }

    #[test]
    fn of_what_is_longer_runs_are_shortened() {
        let document =
            |run: usize| format!(r#"{{"a":"é {0}","b":"data:x;base64,{0}","c":[1,"{0}"]}}"#, "Aa0+/=".repeat(run));
        let (long, short) = (document(1 << 20), document(0));
        for size in [1 << 10, 100_000, long.len()] {
            let mut kept = keep(long.as_bytes().chunks(size));
            assert!(kept.is_shortened() && !kept.is_too_long());
            assert_eq!(kept.bytes().len(), short.len() + 3 * MAX_RUN_BYTES);
            assert!(serde_json::from_slice::<serde::de::IgnoredAny>(kept.bytes()).is_ok());
            kept.clear();
            kept.push(b"next", MOST);
            assert!(kept.bytes() == b"next" && !kept.is_shortened());
        }
    }

    #[test]
    fn what_is_too_long_even_so_is_bounded() {
        let words = "so on and ".repeat(MOST);
        let mut kept = keep(words.as_bytes().chunks(1_000));
        assert!(kept.is_too_long() && kept.bytes().len() <= MOST && kept.bytes.capacity() <= 2 * MOST);
        kept.clear();
        assert!(!kept.is_too_long());
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_is_kept(
            runs in proptest::collection::vec((0..200_000_usize, "[ é\"\\\\\n]{1,3}"), 1..6),
            size in 1_000..400_000_usize,
        ) {
            let text: String = runs.iter().map(|(run, between)| "x".repeat(*run) + between).collect();
            let (whole, cut) = (keep([text.as_bytes()]), keep(text.as_bytes().chunks(size)));
            prop_assert!(whole.is_too_long() || whole.bytes() == cut.bytes());
            prop_assert_eq!((whole.is_shortened(), whole.is_too_long()), (cut.is_shortened(), cut.is_too_long()));
            prop_assert!(whole.bytes().len() <= MOST);
        }
    }
}
