//! A bounded copy of a JSON document without its bulk: lists of numbers are emptied, and long runs of base64 are cut. The
//! copy is JSON whenever the document is, so counts, usage and texts can still be parsed.
//!
//! Pure. The document may arrive in pieces of any size.

use memchr::memchr2;

/// The maximum length of a run of base64 in the copy. No word of any language is this long.
const MAX_BASE64_RUN_BYTES: usize = 4 << 10;

/// A bounded copy of a JSON document without vectors, pictures and sounds.
#[derive(Debug, Default)]
pub struct JsonOutline {
    bytes: Vec<u8>,
    place: Place,
    is_truncated: bool,
}

/// The place in the document at the end of the bytes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between values, or within a number or a literal.
    #[default]
    Structure,
    /// After the opening bracket of a list.
    ListStart,
    /// Within a list that starts with a number.
    Numbers,
    /// Within a string, after a run of this many base64 characters.
    String { run: usize },
    /// Within a string, after a backslash.
    Escape,
}

impl JsonOutline {
    /// Appends a piece of the document. The copy has at most `max_bytes`.
    pub fn push(&mut self, mut piece: &[u8], max_bytes: usize) {
        while !piece.is_empty() && !self.is_truncated {
            let consumed = match self.place {
                Place::Structure => self.push_structure(piece, max_bytes),
                Place::ListStart => self.push_list_start(piece, max_bytes),
                Place::Numbers => self.skip_numbers(piece),
                Place::String { run } => self.push_string(piece, run, max_bytes),
                Place::Escape => {
                    self.place = Place::String { run: 0 };
                    self.keep(&piece[..1], max_bytes)
                }
            };
            piece = &piece[consumed..];
        }
    }

    /// The copy so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// True if the document exceeds the bound even without its bulk. The copy is then incomplete.
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    fn push_structure(&mut self, piece: &[u8], max_bytes: usize) -> usize {
        let Some(at) = memchr2(b'"', b'[', piece) else { return self.keep(piece, max_bytes) };
        self.place = if piece[at] == b'"' { Place::String { run: 0 } } else { Place::ListStart };
        self.keep(&piece[..=at], max_bytes)
    }

    fn push_list_start(&mut self, piece: &[u8], max_bytes: usize) -> usize {
        let blank = piece.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if let Some(first) = piece.get(blank) {
            let is_number = first.is_ascii_digit() || *first == b'-';
            self.place = if is_number { Place::Numbers } else { Place::Structure };
        }
        self.keep(&piece[..blank], max_bytes)
    }

    /// Skips numbers up to the end of the list, or up to a value that is no number.
    fn skip_numbers(&mut self, piece: &[u8]) -> usize {
        match piece.iter().position(|byte| matches!(byte, b']' | b'"' | b'[' | b'{')) {
            Some(at) => {
                self.place = Place::Structure;
                at
            }
            None => piece.len(),
        }
    }

    fn push_string(&mut self, piece: &[u8], run: usize, max_bytes: usize) -> usize {
        let end = memchr2(b'"', b'\\', piece);
        let text = &piece[..end.unwrap_or(piece.len())];
        let run = self.keep_text(text, run, max_bytes);
        let Some(end) = end else {
            self.place = Place::String { run };
            return piece.len();
        };
        self.place = if piece[end] == b'"' { Place::Structure } else { Place::Escape };
        self.keep(&piece[end..=end], max_bytes);
        end + 1
    }

    /// Copies text of a string with shortened runs of base64. Returns the length of the run at the end.
    fn keep_text(&mut self, mut text: &[u8], mut run: usize, max_bytes: usize) -> usize {
        if run + text.len() <= MAX_BASE64_RUN_BYTES {
            self.keep(text, max_bytes);
            let tail = text.iter().rev().take_while(|byte| is_base64(**byte)).count();
            return if tail == text.len() { run + tail } else { tail };
        }
        while !text.is_empty() {
            let length = text.iter().position(|byte| !is_base64(*byte)).unwrap_or(text.len());
            self.keep(&text[..length.min(MAX_BASE64_RUN_BYTES.saturating_sub(run))], max_bytes);
            run += length;
            text = &text[length..];
            let other = text.iter().position(|byte| is_base64(*byte)).unwrap_or(text.len());
            if other > 0 {
                self.keep(&text[..other], max_bytes);
                run = 0;
                text = &text[other..];
            }
        }
        run
    }

    /// Copies bytes, or marks the copy as truncated if the bytes do not fit. Returns the number of bytes.
    fn keep(&mut self, bytes: &[u8], max_bytes: usize) -> usize {
        if self.bytes.len() + bytes.len() > max_bytes {
            self.is_truncated = true;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        bytes.len()
    }
}

/// True if the byte belongs to one of the two base64 alphabets, padding included.
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn outline<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> JsonOutline {
        let mut outline = JsonOutline::default();
        pieces.into_iter().for_each(|piece| outline.push(piece, 1 << 20));
        outline
    }

    fn of(text: &str) -> String {
        String::from_utf8(outline([text.as_bytes()]).bytes().to_vec()).unwrap()
    }

    #[test]
    fn lists_of_numbers_are_emptied_and_the_rest_stays() {
        let cases = [
            (
                r#"{"data":[{"embedding":[0.1,-2e-3, 4],"index":7}],"n":12}"#,
                r#"{"data":[{"embedding":[],"index":7}],"n":12}"#,
            ),
            (r"[[1,2],[-3]]", r"[[],[]]"),
            (r"[ 1 ]", r"[ ]"),
            (r#"[1,"a]",[2],{"b":[3]}]"#, r#"["a]",[],{"b":[]}]"#),
            (r#"{"a":"[1,2]\"[3","b":[]}"#, r#"{"a":"[1,2]\"[3","b":[]}"#),
            ("[true,1]", "[true,1]"),
        ];
        for (document, expected) in cases {
            assert_eq!(of(document), expected, "{document}");
        }
    }

    #[test]
    fn long_runs_of_base64_are_cut_and_texts_stay() {
        let words = "so on and ".repeat(10_000);
        let document =
            json!({"b64_json": "Ab+/".repeat(100_000), "text": words, "url": "https://x.example/a"}).to_string();
        let read: Value = serde_json::from_str(&of(&document)).unwrap();
        assert_eq!(read["b64_json"].as_str().unwrap().len(), MAX_BASE64_RUN_BYTES);
        assert_eq!((&read["text"], &read["url"]), (&json!(words), &json!("https://x.example/a")));
    }

    #[test]
    fn a_document_that_stays_too_long_is_truncated() {
        let document = json!({"text": "so on and ".repeat(1 << 20)}).to_string();
        let outline = outline([document.as_bytes()]);
        assert!(outline.is_truncated() && outline.bytes().len() <= 1 << 20);
    }

    proptest! {
        #[test]
        fn the_copy_is_json_and_the_same_however_the_document_is_cut(
            texts in proptest::collection::vec("[a-c\"\\\\é\\[\\]{} \n]{0,8}", 0..6),
            vectors in proptest::collection::vec(proptest::collection::vec(-1e9..1e9_f64, 0..5), 0..4),
            run in 0..10_000_usize,
            size in 1..40_usize,
        ) {
            let document = json!({"texts": texts, "data": vectors, "b64": "x".repeat(run), "n": vectors.len()}).to_string();
            let (whole, cut) = (outline([document.as_bytes()]), outline(document.as_bytes().chunks(size)));
            prop_assert_eq!(whole.bytes(), cut.bytes());
            let read: Value = serde_json::from_slice(whole.bytes()).unwrap();
            prop_assert_eq!(&read["texts"], &json!(texts));
            prop_assert_eq!(read["data"].as_array().unwrap().len(), vectors.len());
            prop_assert_eq!(read["b64"].as_str().unwrap().len(), run.min(MAX_BASE64_RUN_BYTES));
        }
    }
}
