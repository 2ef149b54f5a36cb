//! The tap: the answer's bytes pass, a copy is folded, and the end is held back until it is on the record.
//!
//! Pure: chunks in, chunks out. What passes is what came, byte for byte, but for one thing: a usage chunk that the gateway
//! asked for and the client did not.
//!
//! A compressed answer passes compressed, and a decoded copy is read; then what is held back is the whole piece in which the
//! end lies, and a usage chunk cannot be taken out.
//!
//! What is held back is only what a client could take for the end: of an event stream the event that says so (`[DONE]`),
//! of a document its last chunk.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::Bytes;
use shared::event::ChatError;
use shared::usage::Usage;

use crate::response::bounded_buffer::Kept;
use crate::response::content_encoding::{Decoder, Encoding};
use crate::response::dialect::{Fold, Signal};
use crate::response::sse::SseReader;
use crate::response::transcript::Transcript;
use crate::response::ui_stream::UiStream;

/// The most of a document that is kept to be read. Of one that is longer, [`Kept`] has a word to say.
const MAX_DOCUMENT_BYTES: usize = 8 << 20;

/// The most of an unfinished event that is withheld to see whether it is a usage chunk, or the end. No usage chunk is this
/// long; where the end is, its last piece is withheld, without which it is no event.
const MAX_WITHHELD_BYTES: usize = 64 << 10;

/// The bytes of a byte order mark. No answer begins with one of them in earnest.
const BOM: [u8; 3] = *b"\xEF\xBB\xBF";

/// What the upstream sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// An event stream, or a document: what it looks like.
    Answer,
    /// The body of an error status: always read as a document.
    Error,
}

/// Whether a usage chunk is the client's or ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageChunk {
    /// The client asked for it: it passes.
    Passes,
    /// Only the gateway asked for it: it is taken out.
    TakenOut,
}

/// Whether the answer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// It does.
    More,
    /// What came last says that this is the end. It is held back until [`Tap::release`].
    End,
}

/// The tap of one answer.
#[derive(Debug)]
pub struct Tap {
    fold: Fold,
    /// Decodes what is read, where the answer is compressed.
    decoder: Option<Decoder>,
    reading: Reading,
    usage_chunk: UsageChunk,
    /// What may pass.
    passing: VecDeque<Bytes>,
    /// What may not pass yet.
    held: Vec<Bytes>,
    /// The client gets the answer in other words than the upstream's.
    ui: Option<Box<UiStream>>,
}

#[derive(Debug)]
enum Reading {
    /// Nothing has come yet.
    Unknown(Expected),
    /// An event stream.
    Events(EventStream),
    /// One document, copied as far as it will be read.
    Document { expected: Expected, body: Kept },
}

#[derive(Debug, Default)]
struct EventStream {
    reader: SseReader,
    /// The beginning of an event, withheld to see whether it is a usage chunk, or the end.
    withheld: Vec<u8>,
    /// The beginning of the current event has passed already, so the rest must.
    began_to_pass: bool,
    /// The last event was taken out.
    took_out: bool,
}

impl Tap {
    /// A tap that folds with `fold`.
    pub fn new(fold: Fold, expected: Expected, usage_chunk: UsageChunk) -> Self {
        let (passing, held) = (VecDeque::new(), Vec::new());
        Self { fold, decoder: None, reading: Reading::Unknown(expected), usage_chunk, passing, held, ui: None }
    }

    /// The same for an answer that is compressed like this.
    #[must_use]
    pub fn encoded(mut self, encoding: Encoding) -> Self {
        self.decoder = Decoder::new(encoding);
        if self.decoder.is_some() {
            self.usage_chunk = UsageChunk::Passes;
            self.fold.note("compressed");
        }
        self
    }

    /// The same for a client that reads the UI message stream: what was folded passes in its words, and nothing else.
    #[must_use]
    pub fn told_to(self, ui: UiStream) -> Self {
        Self { ui: Some(Box::new(ui)), ..self }
    }

    /// Whether the client gets other words than the upstream's, so that everything has to be read.
    pub fn translates(&self) -> bool {
        self.ui.is_some()
    }

    /// Whether less may pass than comes, whatever kind of body it is said to be.
    pub fn may_take_out(&self) -> bool {
        self.usage_chunk == UsageChunk::TakenOut && matches!(self.reading, Reading::Unknown(Expected::Answer))
    }

    /// Takes in one chunk of the answer.
    pub fn feed(&mut self, chunk: Bytes) -> Fed {
        let fed = self.read_piece(chunk);
        if let Some(ui) = &mut self.ui {
            self.passing.clear();
            self.held.clear();
            self.passing.extend(Some(ui.advance(self.fold.transcript())).filter(|told| !told.is_empty()));
        }
        fed
    }

    /// The answer has ended, or broken off: a client that gets other words than the upstream's is told so in these, and the
    /// telling held back until [`Tap::release`]. Returns whether it is.
    pub fn tell_end(&mut self, failure: Option<&ChatError>) -> bool {
        let Some(ui) = &mut self.ui else { return false };
        let transcript = self.fold.transcript();
        let failure = failure.or(transcript.error.as_ref()).map(|failure| failure.message.as_str());
        let is_empty = !transcript.has_answer() && !transcript.ended;
        let told = match failure.or(is_empty.then_some("the answer was empty")) {
            Some(failure) => ui.fail(transcript, failure),
            None => ui.finish(transcript),
        };
        self.held.clear();
        self.held.push(told);
        true
    }

    /// Reads a piece as it came, compressed or not.
    fn read_piece(&mut self, chunk: Bytes) -> Fed {
        let Some(decoder) = &mut self.decoder else { return self.read(chunk) };
        let decoded = decoder.decode(&chunk);
        let is_readable = decoded.is_ok();
        // What passes is not what is read.
        let (passing, held) = (std::mem::take(&mut self.passing), std::mem::take(&mut self.held));
        let fed = match decoded {
            Ok(decoded) if decoded.is_empty() => Fed::More,
            Ok(decoded) => self.read(decoded.into()),
            Err(_) => {
                self.fold.note("undecodable");
                Fed::More
            }
        };
        (self.passing, self.held) = (passing, held);
        self.passing.extend(self.held.drain(..));
        if fed == Fed::More && is_readable && matches!(self.reading, Reading::Events(_)) {
            self.passing.push_back(chunk);
        } else {
            // The end lies in it, or may: any piece of a document may be the last, as may one that cannot be read.
            self.held.push(chunk);
        }
        fed
    }

    fn read(&mut self, mut chunk: Bytes) -> Fed {
        if let Reading::Unknown(expected) = &self.reading
            && let Some(at) = chunk.iter().position(|byte| !byte.is_ascii_whitespace() && !BOM.contains(byte))
        {
            // What comes before passes unread, in whatever pieces it comes.
            self.passing.extend(Some(chunk.split_to(at)).filter(|before| !before.is_empty()));
            self.reading = if *expected == Expected::Error || matches!(chunk[0], b'{' | b'[' | b'<') {
                Reading::Document { expected: *expected, body: Kept::default() }
            } else {
                Reading::Events(EventStream::default())
            };
        }
        match &mut self.reading {
            Reading::Unknown(_) => {
                self.passing.push_back(chunk);
                Fed::More
            }
            Reading::Document { body, .. } => {
                body.push(&chunk, MAX_DOCUMENT_BYTES);
                self.passing.extend(self.held.drain(..));
                self.held.push(chunk);
                Fed::More
            }
            Reading::Events(events) => {
                events.feed(&mut self.fold, self.usage_chunk, &chunk, (&mut self.passing, &mut self.held))
            }
        }
    }

    /// Lets a chunk pass unread: after the end, or where nothing is recorded.
    pub fn pass(&mut self, chunk: Bytes) {
        if self.ui.is_none() {
            self.passing.push_back(chunk);
        }
    }

    /// The answer's bytes have ended: what is left of it is folded, and held back until [`Tap::release`].
    pub fn finish(&mut self) {
        let held = self.decoder.is_some().then(|| std::mem::take(&mut self.held));
        self.read_rest();
        if let Some(held) = held {
            self.held = held;
            if self.fold.transcript().notes.contains(&"undecodable") {
                // It did end; what it said nobody here can tell.
                self.fold.ended();
            }
        }
    }

    fn read_rest(&mut self) {
        match &mut self.reading {
            Reading::Unknown(_) => {}
            // Whoever asked for it reads it as an error.
            Reading::Document { expected: Expected::Error, .. } => {}
            Reading::Document { body, .. } if body.is_too_long() => {
                // It did end; what it said is not known.
                self.fold.note("document_too_long_to_read");
                self.fold.ended();
            }
            Reading::Document { body, .. } => {
                if body.is_shortened() {
                    self.fold.note("document_shortened_to_be_read");
                }
                self.fold.document(body.bytes());
            }
            Reading::Events(events) => {
                let mut usage_only = false;
                events.reader.finish(|event| {
                    let is_ours = self.usage_chunk == UsageChunk::TakenOut;
                    usage_only = self.fold.event(&event) == Signal::UsageOnly && is_ours;
                    ControlFlow::Continue(())
                });
                let rest = std::mem::take(&mut events.withheld);
                if !rest.is_empty() && !usage_only {
                    self.held.push(rest.into());
                }
            }
        }
    }

    /// Lets pass what was held back.
    pub fn release(&mut self) {
        self.passing.extend(self.held.drain(..));
    }

    /// The next chunk for the client.
    pub fn next_chunk(&mut self) -> Option<Bytes> {
        self.passing.pop_front()
    }

    /// The transcript so far.
    pub fn transcript(&self) -> &Transcript {
        self.fold.transcript()
    }

    /// The body of an error status.
    pub fn error_body(&self) -> &[u8] {
        match &self.reading {
            Reading::Document { body, .. } => body.bytes(),
            Reading::Unknown(_) | Reading::Events(_) => &[],
        }
    }

    /// What the answer came to.
    pub fn take_transcript(&mut self) -> (Transcript, Usage) {
        self.fold.take()
    }
}

impl EventStream {
    /// Everything passes, but for the end, and for events of nothing but usage where those are taken out. An event passes
    /// when it is complete: until then no client can make anything of it, and it may turn out to be the end.
    fn feed(
        &mut self,
        fold: &mut Fold,
        usage_chunk: UsageChunk,
        chunk: &Bytes,
        (passing, held): (&mut VecDeque<Bytes>, &mut Vec<Bytes>),
    ) -> Fed {
        let Self { reader, withheld, began_to_pass, took_out } = self;
        let mut decided = reader.belongs_to_last(chunk);
        let mut passes_from = if *took_out { decided } else { 0 };
        let mut end = None;
        reader.feed(chunk, |event| {
            let signal = fold.event(&event);
            let began_before = event.span.start == 0 && decided == 0;
            decided = event.span.end;
            match signal {
                Signal::UsageOnly if usage_chunk == UsageChunk::TakenOut && !(began_before && *began_to_pass) => {
                    if began_before {
                        withheld.clear();
                    }
                    if event.span.start > passes_from {
                        pass(passing, withheld, chunk.slice(passes_from..event.span.start));
                    }
                    passes_from = event.span.end;
                    *took_out = true;
                    return ControlFlow::Continue(());
                }
                Signal::End => {
                    if event.span.start > passes_from {
                        pass(passing, withheld, chunk.slice(passes_from..event.span.start));
                    }
                    end = Some(event.span.start.max(passes_from));
                }
                Signal::Pass | Signal::UsageOnly => {}
            }
            (*began_to_pass, *took_out) = (false, false);
            if end.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Some(at) = end {
            held.extend((!withheld.is_empty()).then(|| std::mem::take(withheld).into()));
            held.push(chunk.slice(at..));
            return Fed::End;
        }
        if !reader.in_event() {
            // What is left is a comment, or blank lines.
            decided = chunk.len();
        }
        if decided > passes_from {
            pass(passing, withheld, chunk.slice(passes_from..decided));
        }
        let rest = &chunk[decided..];
        if *began_to_pass || withheld.len() + rest.len() > MAX_WITHHELD_BYTES {
            *began_to_pass = true;
            if !rest.is_empty() || !withheld.is_empty() {
                pass(passing, withheld, chunk.slice(decided..));
            }
        } else {
            withheld.extend_from_slice(rest);
        }
        Fed::More
    }
}

/// Passes what was withheld, and then this.
fn pass(passing: &mut VecDeque<Bytes>, withheld: &mut Vec<u8>, chunk: Bytes) {
    if !withheld.is_empty() {
        passing.push_back(std::mem::take(withheld).into());
    }
    if !chunk.is_empty() {
        passing.push_back(chunk);
    }
}

#[cfg(test)]
mod tests;
