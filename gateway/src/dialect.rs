//! The dialects: each folds the bytes of an answer in one wire format into a transcript. This is the seam between them.

pub mod openai_chat;

use shared::event::{ChatError, DialectName};
use shared::usage::Usage;

use crate::sse::SseEvent;
use crate::transcript::Transcript;

/// What one event of a stream means for the bytes that carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It passes.
    Pass,
    /// It holds usage and nothing else: it passes only to a client that asked for it.
    UsageOnly,
    /// Clients take it for the end of the answer: it waits until the end is on the record.
    End,
}

/// The fold of one answer.
#[derive(Debug)]
pub enum Fold {
    /// OpenAI chat completions.
    OpenaiChat(openai_chat::Fold),
}

impl Fold {
    /// A fold for an answer in this dialect.
    pub fn new(dialect: DialectName) -> Self {
        match dialect {
            DialectName::OpenaiChat => Self::OpenaiChat(openai_chat::Fold::default()),
        }
    }

    /// Folds one event of a stream.
    pub fn event(&mut self, event: &SseEvent<'_>) -> Signal {
        match self {
            Self::OpenaiChat(fold) => fold.event(event),
        }
    }

    /// Folds an answer that is one JSON document.
    pub fn document(&mut self, body: &[u8]) {
        match self {
            Self::OpenaiChat(fold) => fold.document(body),
        }
    }

    /// The transcript so far.
    pub fn transcript(&self) -> &Transcript {
        match self {
            Self::OpenaiChat(fold) => &fold.transcript,
        }
    }

    /// Notes something odd about the answer.
    pub fn note(&mut self, note: &'static str) {
        match self {
            Self::OpenaiChat(fold) => fold.transcript.note(note),
        }
    }

    /// Takes the transcript out, and the usage that it reports.
    pub fn take(&mut self) -> (Transcript, Usage) {
        match self {
            Self::OpenaiChat(fold) => {
                let transcript = std::mem::take(&mut fold.transcript);
                let usage = openai_chat::usage(transcript.usage.as_deref());
                (transcript, usage)
            }
        }
    }
}

/// Reads an error body, whatever its shape: OpenAI's object, a `detail`, a list of either, text or HTML.
pub fn error_body(status: u16, body: &[u8]) -> ChatError {
    let mut error = openai_chat::error_in(body).unwrap_or_else(|| ChatError {
        message: bounded(String::from_utf8_lossy(body).trim()),
        ..ChatError::default()
    });
    error.status = Some(status);
    error
}

/// An error message that fits into an event.
fn bounded(message: &str) -> String {
    const MAX_BYTES: usize = 16 << 10;
    message[..message.floor_char_boundary(MAX_BYTES)].to_owned()
}
