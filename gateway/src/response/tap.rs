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

use crate::response::bounded_buffer::BoundedBuffer;
use crate::response::content_encoding::{ContentDecoder, ContentEncoding};
use crate::response::dialect::{EventDisposition, Fold};
use crate::response::sse::SseParser;
use crate::response::transcript::Transcript;
use crate::response::ui_stream::UiStream;

/// The most of a document that is kept to be read. Of one that is longer, [`BoundedBuffer`] has a word to say.
const MAX_DOCUMENT_BYTES: usize = 8 << 20;

/// The most of an unfinished event that is withheld to see whether it is a usage chunk, or the end. No usage chunk is this
/// long; where the end is, its last piece is withheld, without which it is no event.
const MAX_WITHHELD_BYTES: usize = 64 << 10;

/// The bytes of a byte order mark. No answer begins with one of them in earnest.
const BYTE_ORDER_MARK: [u8; 3] = *b"\xEF\xBB\xBF";

/// What the upstream sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedBody {
    /// An event stream, or a document: what it looks like.
    Answer,
    /// The body of an error status: always read as a document.
    Error,
}

/// Whether a usage chunk is the client's or ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageChunkPolicy {
    /// The client asked for it: it passes.
    Forward,
    /// Only the gateway asked for it: it is taken out.
    Remove,
}

/// Whether the answer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedStatus {
    /// It does.
    Continue,
    /// What came last says that this is the end. It is held back until [`Tap::release`].
    End,
}

/// The tap of one answer.
#[derive(Debug)]
pub struct Tap {
    fold: Fold,
    /// Decodes what is read, where the answer is compressed.
    decoder: Option<ContentDecoder>,
    format: BodyFormat,
    usage_chunk: UsageChunkPolicy,
    /// What may pass.
    forwarded: VecDeque<Bytes>,
    /// What may not pass yet.
    held_back: Vec<Bytes>,
    /// The client gets the answer in other words than the upstream's.
    ui_stream: Option<Box<UiStream>>,
}

#[derive(Debug)]
enum BodyFormat {
    /// Nothing has come yet.
    Unknown(ExpectedBody),
    /// An event stream.
    Events(EventStream),
    /// One document, copied as far as it will be read.
    Document { expected: ExpectedBody, body: BoundedBuffer },
}

#[derive(Debug, Default)]
struct EventStream {
    parser: SseParser,
    /// The beginning of an event, withheld to see whether it is a usage chunk, or the end.
    withheld: Vec<u8>,
    /// The beginning of the current event has passed already, so the rest must.
    is_partly_forwarded: bool,
    /// The last event was taken out.
    removed_last_event: bool,
}

impl Tap {
    /// A tap that folds with `fold`.
    pub fn new(fold: Fold, expected: ExpectedBody, usage_chunk: UsageChunkPolicy) -> Self {
        let (forwarded, held_back) = (VecDeque::new(), Vec::new());
        Self {
            fold,
            decoder: None,
            format: BodyFormat::Unknown(expected),
            usage_chunk,
            forwarded,
            held_back,
            ui_stream: None,
        }
    }

    /// The same for an answer that is compressed like this.
    #[must_use]
    pub fn with_encoding(mut self, encoding: ContentEncoding) -> Self {
        self.decoder = ContentDecoder::new(encoding);
        if self.decoder.is_some() {
            self.usage_chunk = UsageChunkPolicy::Forward;
            self.fold.note("compressed");
        }
        self
    }

    /// The same for a client that reads the UI message stream: what was folded passes in its words, and nothing else.
    #[must_use]
    pub fn with_ui_stream(self, ui_stream: UiStream) -> Self {
        Self { ui_stream: Some(Box::new(ui_stream)), ..self }
    }

    /// Whether the client gets other words than the upstream's, so that everything has to be read.
    pub fn is_translated(&self) -> bool {
        self.ui_stream.is_some()
    }

    /// Whether less may pass than comes, whatever kind of body it is said to be.
    pub fn may_remove_bytes(&self) -> bool {
        self.usage_chunk == UsageChunkPolicy::Remove && matches!(self.format, BodyFormat::Unknown(ExpectedBody::Answer))
    }

    /// Takes in one chunk of the answer.
    pub fn feed(&mut self, chunk: Bytes) -> FeedStatus {
        let fed = self.decode_and_fold(chunk);
        if let Some(ui_stream) = &mut self.ui_stream {
            self.forwarded.clear();
            self.held_back.clear();
            self.forwarded.extend(Some(ui_stream.advance(self.fold.transcript())).filter(|output| !output.is_empty()));
        }
        fed
    }

    /// The answer has ended, or broken off: a client that gets other words than the upstream's is told so in these, and the
    /// telling held back until [`Tap::release`]. Returns whether it is.
    pub fn finish_ui_stream(&mut self, failure: Option<&ChatError>) -> bool {
        let Some(ui_stream) = &mut self.ui_stream else { return false };
        let transcript = self.fold.transcript();
        let failure = failure.or(transcript.error.as_ref()).map(|failure| failure.message.as_str());
        let is_empty = !transcript.has_content() && !transcript.is_ended;
        let output = match failure.or(is_empty.then_some("the answer was empty")) {
            Some(failure) => ui_stream.fail(transcript, failure),
            None => ui_stream.finish(transcript),
        };
        self.held_back.clear();
        self.held_back.push(output);
        true
    }

    /// Reads a piece as it came, compressed or not.
    fn decode_and_fold(&mut self, chunk: Bytes) -> FeedStatus {
        let Some(decoder) = &mut self.decoder else { return self.fold_chunk(chunk) };
        let decoded = decoder.decode(&chunk);
        let is_readable = decoded.is_ok();
        // What passes is not what is read.
        let (forwarded, held_back) = (std::mem::take(&mut self.forwarded), std::mem::take(&mut self.held_back));
        let fed = match decoded {
            Ok(decoded) if decoded.is_empty() => FeedStatus::Continue,
            Ok(decoded) => self.fold_chunk(decoded.into()),
            Err(_) => {
                self.fold.note("undecodable");
                FeedStatus::Continue
            }
        };
        (self.forwarded, self.held_back) = (forwarded, held_back);
        self.forwarded.extend(self.held_back.drain(..));
        if fed == FeedStatus::Continue && is_readable && matches!(self.format, BodyFormat::Events(_)) {
            self.forwarded.push_back(chunk);
        } else {
            // The end lies in it, or may: any piece of a document may be the last, as may one that cannot be read.
            self.held_back.push(chunk);
        }
        fed
    }

    fn fold_chunk(&mut self, mut chunk: Bytes) -> FeedStatus {
        if let BodyFormat::Unknown(expected) = &self.format
            && let Some(at) =
                chunk.iter().position(|byte| !byte.is_ascii_whitespace() && !BYTE_ORDER_MARK.contains(byte))
        {
            // What comes before passes unread, in whatever pieces it comes.
            self.forwarded.extend(Some(chunk.split_to(at)).filter(|before| !before.is_empty()));
            self.format = if *expected == ExpectedBody::Error || matches!(chunk[0], b'{' | b'[' | b'<') {
                BodyFormat::Document { expected: *expected, body: BoundedBuffer::default() }
            } else {
                BodyFormat::Events(EventStream::default())
            };
        }
        match &mut self.format {
            BodyFormat::Unknown(_) => {
                self.forwarded.push_back(chunk);
                FeedStatus::Continue
            }
            BodyFormat::Document { body, .. } => {
                body.push(&chunk, MAX_DOCUMENT_BYTES);
                self.forwarded.extend(self.held_back.drain(..));
                self.held_back.push(chunk);
                FeedStatus::Continue
            }
            BodyFormat::Events(events) => {
                events.feed(&mut self.fold, self.usage_chunk, &chunk, (&mut self.forwarded, &mut self.held_back))
            }
        }
    }

    /// Lets a chunk pass unread: after the end, or where nothing is recorded.
    pub fn forward_unread(&mut self, chunk: Bytes) {
        if self.ui_stream.is_none() {
            self.forwarded.push_back(chunk);
        }
    }

    /// The answer's bytes have ended: what is left of it is folded, and held back until [`Tap::release`].
    pub fn finish(&mut self) {
        let held_back = self.decoder.is_some().then(|| std::mem::take(&mut self.held_back));
        self.fold_rest();
        if let Some(held_back) = held_back {
            self.held_back = held_back;
            if self.fold.transcript().notes.contains(&"undecodable") {
                // It did end; what it said nobody here can tell.
                self.fold.mark_ended();
            }
        }
    }

    fn fold_rest(&mut self) {
        match &mut self.format {
            BodyFormat::Unknown(_) => {}
            // Whoever asked for it reads it as an error.
            BodyFormat::Document { expected: ExpectedBody::Error, .. } => {}
            BodyFormat::Document { body, .. } if body.is_truncated() => {
                // It did end; what it said is not known.
                self.fold.note("document_too_long_to_read");
                self.fold.mark_ended();
            }
            BodyFormat::Document { body, .. } => {
                if body.is_shortened() {
                    self.fold.note("document_shortened_to_be_read");
                }
                self.fold.fold_document(body.bytes());
            }
            BodyFormat::Events(events) => {
                let mut usage_only = false;
                events.parser.finish(|event| {
                    let is_removed = self.usage_chunk == UsageChunkPolicy::Remove;
                    usage_only = self.fold.fold_event(&event) == EventDisposition::UsageOnly && is_removed;
                    ControlFlow::Continue(())
                });
                let rest = std::mem::take(&mut events.withheld);
                if !rest.is_empty() && !usage_only {
                    self.held_back.push(rest.into());
                }
            }
        }
    }

    /// Lets pass what was held back.
    pub fn release(&mut self) {
        self.forwarded.extend(self.held_back.drain(..));
    }

    /// The next chunk for the client.
    pub fn next_chunk(&mut self) -> Option<Bytes> {
        self.forwarded.pop_front()
    }

    /// The transcript so far.
    pub fn transcript(&self) -> &Transcript {
        self.fold.transcript()
    }

    /// The body of an error status.
    pub fn error_body(&self) -> &[u8] {
        match &self.format {
            BodyFormat::Document { body, .. } => body.bytes(),
            BodyFormat::Unknown(_) | BodyFormat::Events(_) => &[],
        }
    }

    /// What the answer came to.
    pub fn take_transcript(&mut self) -> (Transcript, Usage) {
        self.fold.take_transcript()
    }
}

impl EventStream {
    /// Everything passes, but for the end, and for events of nothing but usage where those are taken out. An event passes
    /// when it is complete: until then no client can make anything of it, and it may turn out to be the end.
    fn feed(
        &mut self,
        fold: &mut Fold,
        usage_chunk: UsageChunkPolicy,
        chunk: &Bytes,
        (forwarded, held_back): (&mut VecDeque<Bytes>, &mut Vec<Bytes>),
    ) -> FeedStatus {
        let Self { parser, withheld, is_partly_forwarded, removed_last_event } = self;
        let mut decided = parser.split_line_end_length(chunk);
        let mut forward_from = if *removed_last_event { decided } else { 0 };
        let mut end = None;
        parser.feed(chunk, |event| {
            let disposition = fold.fold_event(&event);
            let began_in_earlier_chunk = event.span.start == 0 && decided == 0;
            decided = event.span.end;
            match disposition {
                EventDisposition::UsageOnly
                    if usage_chunk == UsageChunkPolicy::Remove && !(began_in_earlier_chunk && *is_partly_forwarded) =>
                {
                    if began_in_earlier_chunk {
                        withheld.clear();
                    }
                    if event.span.start > forward_from {
                        forward(forwarded, withheld, chunk.slice(forward_from..event.span.start));
                    }
                    forward_from = event.span.end;
                    *removed_last_event = true;
                    return ControlFlow::Continue(());
                }
                EventDisposition::End => {
                    if event.span.start > forward_from {
                        forward(forwarded, withheld, chunk.slice(forward_from..event.span.start));
                    }
                    end = Some(event.span.start.max(forward_from));
                }
                EventDisposition::Forward | EventDisposition::UsageOnly => {}
            }
            (*is_partly_forwarded, *removed_last_event) = (false, false);
            if end.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Some(at) = end {
            held_back.extend((!withheld.is_empty()).then(|| std::mem::take(withheld).into()));
            held_back.push(chunk.slice(at..));
            return FeedStatus::End;
        }
        if !parser.in_event() {
            // What is left is a comment, or blank lines.
            decided = chunk.len();
        }
        if decided > forward_from {
            forward(forwarded, withheld, chunk.slice(forward_from..decided));
        }
        let rest = &chunk[decided..];
        if *is_partly_forwarded || withheld.len() + rest.len() > MAX_WITHHELD_BYTES {
            *is_partly_forwarded = true;
            if !rest.is_empty() || !withheld.is_empty() {
                forward(forwarded, withheld, chunk.slice(decided..));
            }
        } else {
            withheld.extend_from_slice(rest);
        }
        FeedStatus::Continue
    }
}

/// Passes what was withheld, and then this.
fn forward(forwarded: &mut VecDeque<Bytes>, withheld: &mut Vec<u8>, chunk: Bytes) {
    if !withheld.is_empty() {
        forwarded.push_back(std::mem::take(withheld).into());
    }
    if !chunk.is_empty() {
        forwarded.push_back(chunk);
    }
}

#[cfg(test)]
mod tests;
