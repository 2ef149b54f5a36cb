//! The dialects. Each dialect folds the responses of one wire format into a transcript; [`Fold`] is the interface to
//! them.

pub mod anthropic_messages;
pub mod google_gemini;
pub mod openai_call;
pub mod openai_chat;
pub mod openai_responses;

mod early_end;
mod error_shape;
mod event_disposition;
mod json_values;
mod usage;

use shared::event::DialectName;
use shared::usage::Usage;

pub use error_shape::parse_error_body;
pub use event_disposition::EventDisposition;

use crate::response::redaction::Redactor;
use crate::response::sse::{EventCompleteness, SseEvent};
use crate::response::transcript::Transcript;

/// The fold of one response into a transcript, for any dialect.
#[derive(Debug)]
pub enum Fold {
    /// The fold for OpenAI Chat Completions.
    OpenaiChat(openai_chat::ChatCompletionsFold),
    /// The fold for OpenAI Responses.
    OpenaiResponses(openai_responses::ResponsesFold),
    /// The fold for Anthropic Messages.
    AnthropicMessages(anthropic_messages::MessagesFold),
    /// The fold for the other endpoints of OpenAI's API.
    OpenaiCall(openai_call::CallFold),
    /// The fold for Google Gemini.
    GoogleGemini(google_gemini::GenerateContentFold),
}

impl Fold {
    /// Makes a fold for a response in this dialect.
    pub fn new(dialect: DialectName) -> Self {
        match dialect {
            // The documents of OpenAI's other endpoints name model, usage and errors as chat completions do. No endpoint of this
            // gateway answers in a dialect that the gateway does not list.
            DialectName::OpenaiChat | DialectName::Openai | DialectName::Other(_) => {
                Self::OpenaiChat(openai_chat::ChatCompletionsFold::default())
            }
            DialectName::OpenaiResponses => Self::OpenaiResponses(openai_responses::ResponsesFold::default()),
            DialectName::AnthropicMessages => Self::AnthropicMessages(anthropic_messages::MessagesFold::default()),
            DialectName::GoogleGemini => Self::GoogleGemini(google_gemini::GenerateContentFold::default()),
        }
    }

    /// True if a response that is a JSON list is a stream of chunks, each an element of the list.
    pub fn streams_json_lists(&self) -> bool {
        matches!(self, Self::GoogleGemini(_))
    }

    /// Folds one event of a stream. Returns the handling of the event's bytes.
    pub fn fold_event(&mut self, event: &SseEvent<'_>) -> EventDisposition {
        if event.completeness == EventCompleteness::TooLong {
            self.mark_unread("event_too_long_to_read");
        }
        let disposition = match self {
            Self::OpenaiChat(fold) => fold.fold_event(event),
            Self::OpenaiResponses(fold) => fold.fold_event(event),
            Self::AnthropicMessages(fold) => fold.fold_event(event),
            Self::OpenaiCall(fold) => fold.fold_event(event),
            Self::GoogleGemini(fold) => fold.fold_event(event),
        };
        if event.completeness == EventCompleteness::Shortened {
            self.mark_shortened("event_shortened_to_be_read");
        }
        disposition
    }

    /// Folds a response that is one JSON document.
    pub fn fold_document(&mut self, body: &[u8]) {
        match self {
            Self::OpenaiChat(fold) => fold.fold_document(body),
            Self::OpenaiResponses(fold) => fold.fold_document(body),
            Self::AnthropicMessages(fold) => fold.fold_document(body),
            Self::OpenaiCall(fold) => fold.fold_document(body),
            Self::GoogleGemini(fold) => fold.fold_document(body),
        }
    }

    /// The transcript so far.
    pub fn transcript(&self) -> &Transcript {
        match self {
            Self::OpenaiChat(fold) => &fold.transcript,
            Self::OpenaiResponses(fold) => &fold.transcript,
            Self::AnthropicMessages(fold) => &fold.transcript,
            Self::OpenaiCall(fold) => &fold.transcript,
            Self::GoogleGemini(fold) => &fold.transcript,
        }
    }

    /// Adds a note about an irregularity of the response. Notes are recorded with the chat.
    pub fn note(&mut self, note: &'static str) {
        self.transcript_mut().note(note);
    }

    /// Adds a note about content that could not be parsed, and marks the transcript as truncated.
    pub fn mark_unread(&mut self, note: &'static str) {
        self.note(note);
        self.transcript_mut().mark_truncated();
    }

    /// Adds a note about content with shortened base64. The transcript is marked as truncated if the base64 was part of a
    /// text or of the arguments of a tool call, and not of a picture.
    pub fn mark_shortened(&mut self, note: &'static str) {
        self.note(note);
        self.transcript_mut().mark_shortened();
    }

    /// Marks the response as ended, for responses whose end cannot be parsed.
    pub fn mark_ended(&mut self) {
        self.transcript_mut().is_ended = true;
    }

    /// Redacts the error of the response, if there is one. Returns true if there is an error.
    pub fn redact_error(&mut self, redactor: &Redactor) -> bool {
        let Some(error) = &mut self.transcript_mut().error else { return false };
        error.message = redactor.redact_text(&error.message);
        true
    }

    /// Takes out the transcript, and the usage that the upstream reported.
    pub fn take_transcript(&mut self) -> (Transcript, Usage) {
        match self {
            Self::OpenaiChat(_) | Self::AnthropicMessages(_) => {}
            Self::OpenaiResponses(fold) => fold.finish(),
            Self::GoogleGemini(fold) => fold.finish(),
            Self::OpenaiCall(fold) => {
                let usage = fold.take_usage();
                return (std::mem::take(&mut fold.transcript), usage);
            }
        }
        let read_usage = match self {
            Self::OpenaiChat(_) | Self::OpenaiResponses(_) | Self::OpenaiCall(_) => usage::from_openai,
            Self::AnthropicMessages(_) => usage::from_anthropic,
            Self::GoogleGemini(_) => usage::from_gemini,
        };
        let is_uncounted = matches!(self, Self::AnthropicMessages(fold) if fold.is_answer_uncounted());
        let mut transcript = std::mem::take(self.transcript_mut());
        let usage = read_usage(&mut transcript);
        let usage = if is_uncounted { usage::without_answer(usage) } else { usage };
        (transcript, usage)
    }

    fn transcript_mut(&mut self) -> &mut Transcript {
        match self {
            Self::OpenaiChat(fold) => &mut fold.transcript,
            Self::OpenaiResponses(fold) => &mut fold.transcript,
            Self::AnthropicMessages(fold) => &mut fold.transcript,
            Self::OpenaiCall(fold) => &mut fold.transcript,
            Self::GoogleGemini(fold) => &mut fold.transcript,
        }
    }
}
