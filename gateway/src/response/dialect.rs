//! The dialects: each folds the bytes of an answer in one wire format into a transcript. This is the seam between them.

pub mod anthropic_messages;
pub mod openai_chat;
pub mod openai_responses;

mod error_shape;
mod json_values;
mod signal;
mod usage;

use shared::event::DialectName;
use shared::usage::Usage;

pub use error_shape::error_body;
pub use signal::Signal;

use crate::response::sse::{Length, SseEvent};
use crate::response::transcript::Transcript;

/// The fold of one answer.
#[derive(Debug)]
pub enum Fold {
    /// OpenAI chat completions.
    OpenaiChat(openai_chat::Fold),
    /// OpenAI responses.
    OpenaiResponses(openai_responses::Fold),
    /// Anthropic messages.
    AnthropicMessages(anthropic_messages::Fold),
}

impl Fold {
    /// A fold for an answer in this dialect.
    pub fn new(dialect: DialectName) -> Self {
        match dialect {
            DialectName::OpenaiChat => Self::OpenaiChat(openai_chat::Fold::default()),
            DialectName::OpenaiResponses => Self::OpenaiResponses(openai_responses::Fold::default()),
            DialectName::AnthropicMessages => Self::AnthropicMessages(anthropic_messages::Fold::default()),
        }
    }

    /// Folds one event of a stream.
    pub fn event(&mut self, event: &SseEvent<'_>) -> Signal {
        match event.length {
            Length::Whole => {}
            Length::Shortened => self.note("event_shortened_to_be_read"),
            Length::TooLong => self.note("event_too_long_to_read"),
        }
        match self {
            Self::OpenaiChat(fold) => fold.event(event),
            Self::OpenaiResponses(fold) => fold.event(event),
            Self::AnthropicMessages(fold) => fold.event(event),
        }
    }

    /// Folds an answer that is one JSON document.
    pub fn document(&mut self, body: &[u8]) {
        match self {
            Self::OpenaiChat(fold) => fold.document(body),
            Self::OpenaiResponses(fold) => fold.document(body),
            Self::AnthropicMessages(fold) => fold.document(body),
        }
    }

    /// The transcript so far.
    pub fn transcript(&self) -> &Transcript {
        match self {
            Self::OpenaiChat(fold) => &fold.transcript,
            Self::OpenaiResponses(fold) => &fold.transcript,
            Self::AnthropicMessages(fold) => &fold.transcript,
        }
    }

    /// Notes something odd about the answer.
    pub fn note(&mut self, note: &'static str) {
        self.transcript_mut().note(note);
    }

    /// The answer has ended, whatever it said.
    pub fn ended(&mut self) {
        self.transcript_mut().ended = true;
    }

    /// Takes the transcript out, and the usage that it reports.
    pub fn take(&mut self) -> (Transcript, Usage) {
        match self {
            Self::OpenaiChat(_) => {}
            Self::OpenaiResponses(fold) => fold.settle(),
            Self::AnthropicMessages(fold) => fold.settle(),
        }
        let read = match self {
            Self::OpenaiChat(_) | Self::OpenaiResponses(_) => usage::openai,
            Self::AnthropicMessages(_) => usage::anthropic,
        };
        let transcript = std::mem::take(self.transcript_mut());
        let usage = read(transcript.usage.as_deref());
        (transcript, usage)
    }

    fn transcript_mut(&mut self) -> &mut Transcript {
        match self {
            Self::OpenaiChat(fold) => &mut fold.transcript,
            Self::OpenaiResponses(fold) => &mut fold.transcript,
            Self::AnthropicMessages(fold) => &mut fold.transcript,
        }
    }
}
