//! The dialects: each folds the bytes of an answer in one wire format into a transcript. This is the seam between them.

pub mod anthropic_messages;
pub mod openai_chat;
pub mod openai_responses;

mod error_shape;
mod event_disposition;
mod json_values;
mod usage;

use shared::event::DialectName;
use shared::usage::Usage;

pub use error_shape::parse_error_body;
pub use event_disposition::EventDisposition;

use crate::response::sse::{EventCompleteness, SseEvent};
use crate::response::transcript::Transcript;

/// The fold of one answer.
#[derive(Debug)]
pub enum Fold {
    /// OpenAI chat completions.
    OpenaiChat(openai_chat::ChatCompletionsFold),
    /// OpenAI responses.
    OpenaiResponses(openai_responses::ResponsesFold),
    /// Anthropic messages.
    AnthropicMessages(anthropic_messages::MessagesFold),
}

impl Fold {
    /// A fold for an answer in this dialect.
    pub fn new(dialect: DialectName) -> Self {
        match dialect {
            DialectName::OpenaiChat => Self::OpenaiChat(openai_chat::ChatCompletionsFold::default()),
            DialectName::OpenaiResponses => Self::OpenaiResponses(openai_responses::ResponsesFold::default()),
            DialectName::AnthropicMessages => Self::AnthropicMessages(anthropic_messages::MessagesFold::default()),
        }
    }

    /// Folds one event of a stream.
    pub fn fold_event(&mut self, event: &SseEvent<'_>) -> EventDisposition {
        match event.completeness {
            EventCompleteness::Whole => {}
            EventCompleteness::Shortened => self.note("event_shortened_to_be_read"),
            EventCompleteness::TooLong => self.note("event_too_long_to_read"),
        }
        match self {
            Self::OpenaiChat(fold) => fold.fold_event(event),
            Self::OpenaiResponses(fold) => fold.fold_event(event),
            Self::AnthropicMessages(fold) => fold.fold_event(event),
        }
    }

    /// Folds an answer that is one JSON document.
    pub fn fold_document(&mut self, body: &[u8]) {
        match self {
            Self::OpenaiChat(fold) => fold.fold_document(body),
            Self::OpenaiResponses(fold) => fold.fold_document(body),
            Self::AnthropicMessages(fold) => fold.fold_document(body),
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
    pub fn mark_ended(&mut self) {
        self.transcript_mut().is_ended = true;
    }

    /// Takes the transcript out, and the usage that it reports.
    pub fn take_transcript(&mut self) -> (Transcript, Usage) {
        match self {
            Self::OpenaiChat(_) => {}
            Self::OpenaiResponses(fold) => fold.finish(),
            Self::AnthropicMessages(fold) => fold.finish(),
        }
        let parse_usage = match self {
            Self::OpenaiChat(_) | Self::OpenaiResponses(_) => usage::from_openai,
            Self::AnthropicMessages(_) => usage::from_anthropic,
        };
        let transcript = std::mem::take(self.transcript_mut());
        let usage = parse_usage(transcript.usage.as_deref());
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
