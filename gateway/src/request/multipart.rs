//! A reader of `multipart/form-data` that follows a body as it streams past. Only heads of parts and small text fields are
//! kept; contents of files are skipped.
//!
//! Pure. A crate that owns the body would have to hold it or to write it anew; this reader looks at a body that the upstream
//! gets byte for byte.

mod set_model;
#[cfg(test)]
mod tests;

use std::ops::Range;

use memchr::memmem;

use crate::request::invalid_request::{InvalidRequest, invalid_member};

/// The maximum size of the head of a part, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// The maximum size of all text fields of a form together, in bytes.
const MAX_FIELD_BYTES: usize = 1 << 20;

/// The maximum number of parts of a form.
const MAX_PARTS: usize = 256;

/// The fields on which the gateway acts. Parsers disagree on a field that stands twice, or whose name is written in another case or in
/// another way, so that such a form could be checked as one request and be answered as another.
const ACTED_ON: [&str; 2] = ["model", "stream"];

/// A part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormPart {
    /// The name of the field.
    pub name: String,
    /// The content of the part.
    pub content: PartContent,
}

/// The content of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartContent {
    /// A text, with its position in the body.
    Text(String, Range<usize>),
    /// A file; the content is not kept.
    File {
        /// The name of the file, as the client sent it.
        filename: String,
        /// The media type of the file, as the client sent it.
        content_type: Option<String>,
    },
}

/// A reader of one form.
#[derive(Debug)]
pub struct MultipartReader {
    /// The line break and the boundary between two parts.
    delimiter: Vec<u8>,
    /// The bytes that are not read yet.
    pending: Vec<u8>,
    /// The position in the body of the first pending byte. Starts below zero: see [`Self::new`].
    position: isize,
    place: Place,
    /// The position in the body of the first boundary, once it has been read.
    first_boundary: usize,
    parts: Vec<FormPart>,
    /// For each of [`ACTED_ON`], true if a part of this name has begun.
    has_begun: [bool; ACTED_ON.len()],
    field_bytes: usize,
    /// True if a text field is not UTF-8.
    has_broken_text: bool,
    /// The number of pending bytes of a text field in which the delimiter has been looked for.
    searched: usize,
}

/// The place in the form at the first pending byte.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first boundary.
    Preamble,
    /// After a boundary.
    BoundaryEnd,
    /// In the head of a part.
    Head,
    /// In a text field of this name.
    Text(String),
    /// In the content of a file.
    File,
    /// After the last boundary.
    Epilogue,
}

impl MultipartReader {
    /// Makes a reader for a body with this `content-type`. The error says that the type is no form, or has no boundary.
    pub fn new(content_type: &str) -> Result<Self, InvalidRequest> {
        let boundary = boundary(content_type).ok_or_else(|| {
            invalid("expected content-type: multipart/form-data with a boundary of 1 to 200 characters".to_owned())
        })?;
        Ok(Self {
            delimiter: [b"\r\n--", boundary.as_bytes()].concat(),
            // The first boundary stands at the start of a line, like the others, but may be the first of all lines.
            pending: b"\r\n".to_vec(),
            position: -2,
            place: Place::Preamble,
            first_boundary: 0,
            parts: Vec::new(),
            has_begun: [false; ACTED_ON.len()],
            field_bytes: 0,
            has_broken_text: false,
            searched: 0,
        })
    }

    /// Reads the next piece of the body. An error says in which way the form is malformed or too large.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), InvalidRequest> {
        if self.pending.is_empty() && self.skips() {
            let skipped = self.skippable(piece);
            self.position += skipped.cast_signed();
            self.pending.extend_from_slice(&piece[skipped..]);
        } else {
            self.pending.extend_from_slice(piece);
        }
        while self.step()? {}
        Ok(())
    }

    /// The parts so far, in their order. A text field is listed when it is complete, a file as soon as its content begins.
    pub fn parts(&self) -> &[FormPart] {
        &self.parts
    }

    /// The first text field of this name, if it is complete.
    pub fn text(&self, name: &str) -> Option<(&str, Range<usize>)> {
        self.parts.iter().find_map(|part| match &part.content {
            PartContent::Text(text, range) if part.name == name => Some((text.as_str(), range.clone())),
            _ => None,
        })
    }

    /// True if a part of this name has begun: `model` or `stream`, on which the gateway acts.
    pub fn has_begun(&self, name: &str) -> bool {
        ACTED_ON.iter().zip(self.has_begun).any(|(known, has_begun)| has_begun && *known == name)
    }

    /// The number of files so far.
    pub fn files(&self) -> u64 {
        self.parts.iter().filter(|part| matches!(part.content, PartContent::File { .. })).count() as u64
    }

    /// True if the last boundary has been read.
    pub fn is_complete(&self) -> bool {
        self.place == Place::Epilogue
    }

    /// True if a text field is not UTF-8. The text has U+FFFD in each broken place.
    pub fn has_broken_text(&self) -> bool {
        self.has_broken_text
    }

    fn skips(&self) -> bool {
        matches!(self.place, Place::File | Place::Epilogue)
    }

    /// The number of bytes at the start that cannot belong to a delimiter.
    fn skippable(&self, bytes: &[u8]) -> usize {
        if self.place == Place::Epilogue {
            return bytes.len();
        }
        if let Some(at) = memmem::find(bytes, &self.delimiter) {
            return at;
        }
        let tail = bytes.len().saturating_sub(self.delimiter.len() - 1);
        (tail..bytes.len()).find(|at| self.delimiter.starts_with(&bytes[*at..])).unwrap_or(bytes.len())
    }

    /// Reads on in the pending bytes. Returns false if more bytes are needed.
    fn step(&mut self) -> Result<bool, InvalidRequest> {
        match &self.place {
            Place::Preamble | Place::File => {
                let found = memmem::find(&self.pending, &self.delimiter);
                let skipped = self.skippable(&self.pending);
                self.consume(skipped);
                if found.is_some() {
                    if self.place == Place::Preamble {
                        // The line break before the boundary belongs to the preamble.
                        self.first_boundary = usize::try_from(self.position + 2).unwrap_or(0);
                    }
                    self.consume(self.delimiter.len());
                    self.place = Place::BoundaryEnd;
                }
                Ok(found.is_some())
            }
            Place::BoundaryEnd => self.read_boundary_end(),
            Place::Head => self.read_head(),
            Place::Text(name) => {
                let name = name.clone();
                self.read_text(name)
            }
            Place::Epilogue => {
                self.consume(self.pending.len());
                Ok(false)
            }
        }
    }

    fn read_boundary_end(&mut self) -> Result<bool, InvalidRequest> {
        if self.pending.starts_with(b"--") {
            self.place = Place::Epilogue;
            return Ok(true);
        }
        let blank = self.pending.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        match &self.pending[blank..] {
            [b'\r', b'\n', ..] => {
                // The line break stays: a head without lines is a line break, too.
                self.consume(blank);
                self.place = Place::Head;
                Ok(true)
            }
            [] | [b'\r' | b'-'] if blank < MAX_HEAD_BYTES => Ok(false),
            _ => Err(malformed("a boundary is followed by neither a line break nor \"--\"")),
        }
    }

    fn read_head(&mut self) -> Result<bool, InvalidRequest> {
        let Some(end) = memmem::find(&self.pending, b"\r\n\r\n") else {
            let message = format!("the head of a part is longer than {MAX_HEAD_BYTES} bytes");
            return if self.pending.len() > MAX_HEAD_BYTES { Err(malformed(&message)) } else { Ok(false) };
        };
        if self.parts.len() == MAX_PARTS {
            return Err(malformed(&format!("expected at most {MAX_PARTS} parts")));
        }
        let head = str::from_utf8(&self.pending[..end])
            .map_err(|_| malformed("expected the head of a part in UTF-8"))?
            .to_owned();
        let PartHead { name, filename, content_type } = PartHead::parse(&head)
            .ok_or_else(|| malformed("a part has no header content-disposition: form-data with a name, or has two"))?;
        self.begin_part(&name)?;
        if let Some(known) = ACTED_ON.into_iter().find(|known| *known == name && filename.is_some()) {
            return Err(invalid_member(known, "expected a text field, found a file"));
        }
        self.consume(end + 4);
        // The delimiter of an empty part begins with the line break that ends the head.
        self.place = match filename {
            Some(filename) => {
                self.parts.push(FormPart { name, content: PartContent::File { filename, content_type } });
                Place::File
            }
            None => Place::Text(name),
        };
        Ok(true)
    }

    /// Refuses a part whose name is ambiguous: see [`ACTED_ON`].
    fn begin_part(&mut self, name: &str) -> Result<(), InvalidRequest> {
        let Some(index) = ACTED_ON.iter().position(|known| known.eq_ignore_ascii_case(name.trim())) else {
            return Ok(());
        };
        let known = ACTED_ON[index];
        if name != known {
            return Err(invalid_member(known, &format!("expected the field name {known:?}, found {name:?}")));
        }
        if std::mem::replace(&mut self.has_begun[index], true) {
            return Err(invalid_member(known, "expected one field of this name, found two"));
        }
        Ok(())
    }

    fn read_text(&mut self, name: String) -> Result<bool, InvalidRequest> {
        let from = self.searched.saturating_sub(self.delimiter.len());
        let end = memmem::find(&self.pending[from..], &self.delimiter).map(|at| from + at);
        self.searched = if end.is_some() { 0 } else { self.pending.len() };
        if self.field_bytes + end.unwrap_or(self.pending.len()) > MAX_FIELD_BYTES + self.delimiter.len() {
            return Err(malformed(&format!("text fields are larger than {MAX_FIELD_BYTES} bytes")));
        }
        let Some(end) = end else { return Ok(false) };
        self.field_bytes += end;
        let start = usize::try_from(self.position).unwrap_or(0);
        let text = match str::from_utf8(&self.pending[..end]) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                if let Some(known) = ACTED_ON.into_iter().find(|known| *known == name) {
                    return Err(invalid_member(known, "expected a text in UTF-8"));
                }
                self.has_broken_text = true;
                String::from_utf8_lossy(&self.pending[..end]).into_owned()
            }
        };
        self.parts.push(FormPart { name, content: PartContent::Text(text, start..start + end) });
        self.consume(end + self.delimiter.len());
        self.place = Place::BoundaryEnd;
        Ok(true)
    }

    fn consume(&mut self, length: usize) {
        self.pending.drain(..length);
        self.position += length.cast_signed();
    }
}

/// The headers of a part that the reader uses.
struct PartHead {
    name: String,
    filename: Option<String>,
    content_type: Option<String>,
}

impl PartHead {
    fn parse(head: &str) -> Option<Self> {
        let values = |wanted: &'static str| {
            head.lines().filter_map(move |line| {
                let (name, value) = line.split_once(':')?;
                name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim())
            })
        };
        let mut dispositions = values("content-disposition");
        let disposition = dispositions.next().filter(|_| dispositions.next().is_none())?;
        let kind = disposition.split(';').next()?.trim();
        if !kind.eq_ignore_ascii_case("form-data") {
            return None;
        }
        let names = parameters(disposition).filter(|(name, _)| is_either(name, ["name", "name*"]));
        // Some parsers decode the value of `name*`, and others take it as it is.
        let [("name", name)] = <[_; 1]>::try_from(names.collect::<Vec<_>>()).ok()? else { return None };
        let mut parameters = parameters(disposition);
        let filename = parameters.find(|(name, _)| is_either(name, ["filename", "filename*"]));
        Some(Self {
            name,
            filename: filename.map(|(_, value)| value),
            content_type: values("content-type").next().map(str::to_owned),
        })
    }
}

/// The boundary in a `content-type`. `None` if the type is not `multipart/form-data` or has no valid boundary.
fn boundary(content_type: &str) -> Option<String> {
    let essence = content_type.split(';').next()?.trim();
    if !essence.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let (_, boundary) = parameters(content_type).find(|(name, _)| name.eq_ignore_ascii_case("boundary"))?;
    (!boundary.is_empty() && boundary.len() <= 200 && !boundary.contains(['\r', '\n'])).then_some(boundary)
}

/// The parameters of a header value, each with or without quotation marks.
fn parameters(value: &str) -> impl Iterator<Item = (&str, String)> {
    let mut rest = value.split_once(';').map_or("", |(_, rest)| rest);
    std::iter::from_fn(move || {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_text(quoted)?,
            None => {
                let (value, after) = after.split_once(';').unwrap_or((after, ""));
                (value.trim().to_owned(), after)
            }
        };
        rest = after.trim_start().strip_prefix(';').unwrap_or(after);
        Some((name.trim(), value))
    })
}

fn is_either(name: &str, wanted: [&str; 2]) -> bool {
    wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted))
}

/// Splits a quoted text off its closing quotation mark. A backslash before a quotation mark or a backslash is removed.
fn quoted_text(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match (character, characters.peek()) {
            ('"', _) => return Some((text, &quoted[at + 1..])),
            ('\\', Some((_, next @ ('"' | '\\')))) => {
                text.push(*next);
                characters.next();
            }
            _ => text.push(character),
        }
    }
    None
}

fn malformed(problem: &str) -> InvalidRequest {
    invalid(format!("malformed multipart/form-data: {problem}"))
}

fn invalid(message: String) -> InvalidRequest {
    InvalidRequest { message, param: None }
}
