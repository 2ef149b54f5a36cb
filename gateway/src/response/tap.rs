//! The tap: forwards the bytes of a response, folds a copy into a transcript, and holds the end back until the end is
//! recorded.
//!
//! Pure: chunks in, chunks out. Bytes are forwarded unchanged. The only bytes ever removed are those of a usage chunk
//! that the gateway requested and the client did not.
//!
//! A compressed response is forwarded compressed, and a decoded copy is folded. In this case the whole chunk with the
//! end is held back, and a usage chunk cannot be removed.
//!
//! The bytes held back are those that a client could take for the end: in an event stream the final event (such as
//! `[DONE]`), in a streamed JSON list the element with the finish reason and the closing bracket, in a document the last
//! chunk with content.

mod chunk_list;
mod early_end;
mod event_stream;
mod modes;

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::Bytes;
use serde::de::IgnoredAny;
use shared::event::ChatError;
use shared::usage::Usage;

use crate::json::outline::JsonOutline;
use crate::response::bounded_buffer::BoundedBuffer;
use crate::response::content_encoding::{ContentDecoder, ContentEncoding};
use crate::response::dialect::{EventDisposition, Fold};
use crate::response::redaction::Redactor;
use crate::response::transcript::Transcript;
use crate::response::ui_stream::UiStream;
use chunk_list::ChunkList;
use event_stream::EventStream;

pub use modes::{ExpectedBody, FeedStatus, UsageChunkPolicy};

/// The maximum size of a document that is folded. [`BoundedBuffer`] shortens longer documents. Less in the unit tests.
const MAX_DOCUMENT_BYTES: usize = if cfg!(test) { 8 << 20 } else { 24 << 20 };

/// The maximum number of chunks of white space that are held back after a document.
const MAX_HELD_BACK_CHUNKS: usize = 64;

/// The bytes of a UTF-8 byte order mark, skipped before the first byte of content. Content never starts with these
/// bytes.
const BYTE_ORDER_MARK: [u8; 3] = *b"\xEF\xBB\xBF";

/// The tap of one response.
#[derive(Debug)]
pub struct Tap {
    fold: Fold,
    /// The decoder for the folded copy, if the response is compressed.
    decoder: Option<ContentDecoder>,
    format: BodyFormat,
    usage_chunk: UsageChunkPolicy,
    /// Chunks ready for the client.
    forwarded: VecDeque<Bytes>,
    /// Chunks held back until [`Tap::release`].
    held_back: Vec<Bytes>,
    /// The translation for a client of `/api/chat` that reads the UI message stream. Replaces the upstream's bytes.
    ui_stream: Option<Box<UiStream>>,
    /// The number of bytes of the response so far.
    received_bytes: u64,
}

#[derive(Debug)]
enum BodyFormat {
    /// No content has arrived yet.
    Unknown(ExpectedBody),
    /// A stream of server-sent events.
    Events(EventStream),
    /// A stream of chunks that is a JSON list.
    List(ChunkList),
    /// A single document, with a bounded copy of its bytes, and its last byte that is not white space.
    Document { expected: ExpectedBody, body: BoundedBuffer, last_byte: u8 },
    /// A JSON document, with a bounded copy that leaves out its bulk.
    Outline(JsonOutline),
    /// Bytes that are not read.
    Opaque,
}

impl Tap {
    /// Makes a tap that folds into `fold`.
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
            received_bytes: 0,
        }
    }

    /// Adds a decoder for this content encoding. Without effect for [`ContentEncoding::Identity`].
    #[must_use]
    pub fn with_encoding(mut self, encoding: ContentEncoding) -> Self {
        self.decoder = ContentDecoder::new(encoding);
        if self.decoder.is_some() {
            self.usage_chunk = UsageChunkPolicy::Forward;
            self.fold.note("compressed");
        }
        self
    }

    /// Adds a translation into the UI message stream. The client then gets only the translation of the folded response.
    #[must_use]
    pub fn with_ui_stream(self, ui_stream: UiStream) -> Self {
        Self { ui_stream: Some(Box::new(ui_stream)), ..self }
    }

    /// Redacts an error that ends the response, in the transcript and, unless compressed, in the bytes held back.
    pub fn redact_error(&mut self, redactor: &Redactor) {
        if self.fold.redact_error(redactor) && self.decoder.is_none() {
            redactor.redact_chunks(&mut self.held_back);
        }
    }

    /// True if the client gets a translation, so that every chunk has to be folded.
    pub fn is_translated(&self) -> bool {
        self.ui_stream.is_some()
    }

    /// True if the tap may remove bytes, which makes the client's body shorter than the upstream's. To be called before
    /// the first chunk.
    pub fn may_remove_bytes(&self) -> bool {
        self.usage_chunk == UsageChunkPolicy::Remove && matches!(self.format, BodyFormat::Unknown(ExpectedBody::Answer))
    }

    /// Feeds one chunk of the response.
    pub fn feed(&mut self, chunk: Bytes) -> FeedStatus {
        self.received_bytes += chunk.len() as u64;
        let fed = self.decode_and_fold(chunk);
        if let Some(ui_stream) = &mut self.ui_stream {
            self.forwarded.clear();
            self.held_back.clear();
            self.forwarded.extend(Some(ui_stream.advance(self.fold.transcript())).filter(|output| !output.is_empty()));
        }
        fed
    }

    /// Finishes the translation after the response has ended or failed. The final events are held back until
    /// [`Tap::release`]. Returns false if the tap has no translation.
    pub fn finish_ui_stream(&mut self, failure: Option<&ChatError>) -> bool {
        let Some(ui_stream) = &mut self.ui_stream else { return false };
        let transcript = self.fold.transcript();
        let failure = failure.or(transcript.error.as_ref()).map(|failure| failure.message.as_str());
        let is_empty = transcript.is_empty().then_some("the answer was empty");
        let output = match failure.or(is_empty) {
            Some(failure) => ui_stream.fail(transcript, failure),
            None => ui_stream.finish(transcript),
        };
        self.held_back.clear();
        self.held_back.push(output);
        true
    }

    /// Feeds a chunk as received, compressed or not.
    fn decode_and_fold(&mut self, chunk: Bytes) -> FeedStatus {
        let Some(decoder) = &mut self.decoder else { return self.fold_chunk(chunk) };
        let decoded = decoder.decode(&chunk);
        let is_readable = decoded.is_ok();
        if decoded.as_ref().is_ok_and(Vec::is_empty) && !self.held_back.is_empty() {
            // Without more content, the chunk that is held back may still be the last.
            self.held_back.push(chunk);
            return FeedStatus::Continue;
        }
        // `fold_chunk` queues decoded bytes, but the client gets the compressed bytes. Both queues are restored after
        // the call. An empty chunk stands for the compressed chunks that are held back.
        let (forwarded, held_back) = (std::mem::take(&mut self.forwarded), std::mem::take(&mut self.held_back));
        self.held_back.extend((!held_back.is_empty()).then(Bytes::new));
        let fed = match decoded {
            Ok(decoded) if decoded.is_empty() => FeedStatus::Continue,
            Ok(decoded) => self.fold_chunk(decoded.into()),
            Err(_) => {
                self.fold.mark_unread("undecodable");
                self.held_back.clear();
                FeedStatus::Continue
            }
        };
        let may_be_end = !self.held_back.is_empty();
        let is_still_held_back = self.held_back.first().is_some_and(Bytes::is_empty);
        (self.forwarded, self.held_back) = (forwarded, held_back);
        if !is_still_held_back {
            self.forwarded.extend(self.held_back.drain(..));
        }
        let is_within_stream = matches!(self.format, BodyFormat::Events(_) | BodyFormat::List(_)) && !may_be_end;
        if fed == FeedStatus::Continue && is_readable && is_within_stream {
            self.forwarded.push_back(chunk);
        } else {
            // The chunk may contain the end: every chunk of a document may be the last, and so may a chunk that cannot
            // be decoded.
            self.held_back.push(chunk);
        }
        fed
    }

    fn fold_chunk(&mut self, mut chunk: Bytes) -> FeedStatus {
        match self.format {
            BodyFormat::Unknown(ExpectedBody::Outline) => self.format = BodyFormat::Outline(JsonOutline::default()),
            BodyFormat::Unknown(expected @ ExpectedBody::Text) => {
                self.format = BodyFormat::Document { expected, body: BoundedBuffer::default(), last_byte: b' ' };
            }
            BodyFormat::Unknown(ExpectedBody::Opaque) => self.format = BodyFormat::Opaque,
            _ => {}
        }
        if let BodyFormat::Unknown(expected) = &self.format
            && let Some(at) =
                chunk.iter().position(|byte| !byte.is_ascii_whitespace() && !BYTE_ORDER_MARK.contains(byte))
        {
            // White space and a byte order mark before the content are forwarded unread.
            self.forwarded.extend(Some(chunk.split_to(at)).filter(|before| !before.is_empty()));
            self.format = if *expected == ExpectedBody::Answer && chunk[0] == b'[' && self.fold.streams_json_lists() {
                BodyFormat::List(ChunkList::default())
            } else if *expected == ExpectedBody::Error || matches!(chunk[0], b'{' | b'[' | b'<') {
                BodyFormat::Document { expected: *expected, body: BoundedBuffer::default(), last_byte: b' ' }
            } else {
                BodyFormat::Events(EventStream::default())
            };
        }
        match &mut self.format {
            BodyFormat::Unknown(_) => {
                self.forwarded.push_back(chunk);
                FeedStatus::Continue
            }
            BodyFormat::Document { body, last_byte, .. } => {
                body.push(&chunk, MAX_DOCUMENT_BYTES);
                let last_content = chunk.trim_ascii_end().last().copied();
                *last_byte = last_content.unwrap_or(*last_byte);
                // White space after the last bracket does not make the bracket less of an end.
                let may_follow_end = last_content.is_none() && matches!(last_byte, b'}' | b']');
                if !may_follow_end || self.held_back.len() > MAX_HELD_BACK_CHUNKS {
                    self.forwarded.extend(self.held_back.drain(..));
                }
                self.held_back.push(chunk);
                FeedStatus::Continue
            }
            BodyFormat::List(list) => list.feed(&mut self.fold, &chunk, (&mut self.forwarded, &mut self.held_back)),
            BodyFormat::Outline(outline) => {
                outline.push(&chunk, MAX_DOCUMENT_BYTES);
                self.forwarded.extend(self.held_back.drain(..));
                self.held_back.push(chunk);
                FeedStatus::Continue
            }
            BodyFormat::Opaque => {
                self.forwarded.extend(self.held_back.drain(..));
                self.held_back.push(chunk);
                FeedStatus::Continue
            }
            BodyFormat::Events(events) => {
                events.feed(&mut self.fold, self.usage_chunk, &chunk, (&mut self.forwarded, &mut self.held_back))
            }
        }
    }

    /// Forwards a chunk without folding. For bytes after the end, and for responses that are not recorded.
    pub fn forward_unread(&mut self, chunk: Bytes) {
        if self.ui_stream.is_none() {
            self.forwarded.push_back(chunk);
        }
    }

    /// Ends the body: the remaining bytes are folded, and held back until [`Tap::release`].
    pub fn finish(&mut self) {
        let held_back = self.decoder.is_some().then(|| std::mem::take(&mut self.held_back));
        self.fold_rest();
        if let Some(held_back) = held_back {
            self.held_back = held_back;
            if self.fold.transcript().notes.contains(&"undecodable") {
                // The body ended, but the end could not be decoded.
                self.fold.mark_ended();
            }
        }
    }

    fn fold_rest(&mut self) {
        match &mut self.format {
            BodyFormat::Unknown(_) => {}
            // An error body is read with `error_body`.
            BodyFormat::Document { expected: ExpectedBody::Error, .. } => {}
            BodyFormat::Document { body, .. } if body.is_truncated() => {
                // The body ended, but the document is too long to be parsed.
                self.fold.mark_unread("document_too_long_to_read");
                self.fold.mark_ended();
            }
            BodyFormat::Document { body, .. } => {
                self.fold.fold_document(body.bytes());
                if body.is_shortened() {
                    self.fold.mark_shortened("document_shortened_to_be_read");
                }
            }
            BodyFormat::Outline(outline) if outline.is_truncated() => {
                self.fold.mark_unread("document_too_long_to_read");
                self.fold.mark_ended();
            }
            BodyFormat::Outline(outline) => self.fold.fold_document(outline.bytes()),
            BodyFormat::Opaque => self.fold.mark_ended(),
            BodyFormat::List(list) => list.finish(&mut self.fold, &mut self.held_back),
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

    /// True if the body is a JSON document that is complete: it can be parsed to its end, or, if it is too long to be
    /// parsed, ends with a bracket. Such a body was not cut off, whatever its framing says.
    pub fn is_whole_document(&self) -> bool {
        match &self.format {
            BodyFormat::Document { body, last_byte, .. } if body.is_truncated() => matches!(last_byte, b'}' | b']'),
            BodyFormat::Document { body, .. } => is_complete_json(body.bytes()),
            BodyFormat::Outline(outline) => !outline.is_truncated() && is_complete_json(outline.bytes()),
            BodyFormat::List(list) => list.is_whole(),
            BodyFormat::Unknown(_) | BodyFormat::Events(_) | BodyFormat::Opaque => false,
        }
    }

    /// Releases the bytes held back, so that [`Tap::next_chunk`] returns them.
    pub fn release(&mut self) {
        self.forwarded.extend(self.held_back.drain(..));
    }

    /// The next chunk for the client, if one is ready.
    pub fn next_chunk(&mut self) -> Option<Bytes> {
        self.forwarded.pop_front()
    }

    /// The transcript so far.
    pub fn transcript(&self) -> &Transcript {
        self.fold.transcript()
    }

    /// The body of a response with an error status; empty for other bodies.
    pub fn error_body(&self) -> &[u8] {
        match &self.format {
            BodyFormat::Document { body, .. } => body.bytes(),
            BodyFormat::Unknown(_)
            | BodyFormat::Events(_)
            | BodyFormat::List(_)
            | BodyFormat::Outline(_)
            | BodyFormat::Opaque => &[],
        }
    }

    /// Takes the transcript and the usage out of the tap. Called once, after the end.
    pub fn take_transcript(&mut self) -> (Transcript, Usage) {
        let (mut transcript, usage) = self.fold.take_transcript();
        if matches!(self.fold, Fold::OpenaiCall(_)) {
            transcript.media.output_bytes = Some(self.received_bytes);
        }
        (transcript, usage)
    }
}

/// True for one JSON value, or several in a row.
fn is_complete_json(json: &[u8]) -> bool {
    let json = json.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(json);
    serde_json::Deserializer::from_slice(json).into_iter::<IgnoredAny>().all(|value| value.is_ok())
}

#[cfg(test)]
mod tests;
