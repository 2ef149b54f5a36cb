//! A short hash of one half of a chat's row.
//!
//! A gateway never publishes two different starts of a chat, nor two different endings with the same rank and time. If
//! such events exist all the same, the rows must still depend on the set of events alone, so the choice between two
//! halves is made by a hash of the content.

use sha2::{Digest as _, Sha256};
use shared::event::Operation;

use super::chat::{ChatEnding, ChatOutcome, ChatRequest};
use super::message::Message;
use super::pg_value::PgJson;
use super::sql_enum::SqlEnum;

pub(super) struct ContentDigest(Sha256);

impl ContentDigest {
    /// The digest of the request of a chat. With a conversation and at most one new message, the digest is that of the recorders
    /// that knew nothing else.
    pub(super) fn of_request(request: &ChatRequest, operation: Operation, new_messages: &[Message]) -> i64 {
        let (last, earlier) =
            new_messages.split_last().map_or((None, &[][..]), |(last, earlier)| (Some(last), earlier));
        let digest = Self(Sha256::new())
            .text(request.origin.as_ref().map_or("", SqlEnum::as_sql))
            .optional_text(request.client_thread_id.as_deref())
            .text(request.dialect.as_sql())
            .number(i64::from(request.stream))
            .optional_number(request.temperature.map(|t| i64::from_ne_bytes(t.to_ne_bytes())))
            .message(last)
            .added_text(request.caller_metadata.as_ref().map(PgJson::as_str))
            .added_text(Some(operation.as_str()).filter(|_| operation != Operation::Chat));
        earlier.iter().fold(digest, |digest, message| digest.message(Some(message))).finish()
    }

    pub(super) fn of_ending(ending: &ChatEnding, assistant_message: Option<&Message>) -> i64 {
        let mut digest = match &ending.outcome {
            ChatOutcome::Completed => Self(Sha256::new()).text("completed"),
            ChatOutcome::Failed { stage, error } => Self(Sha256::new())
                .text(stage.as_str())
                .optional_number(error.status.map(i64::from))
                .optional_text(error.kind.as_deref())
                .optional_text(error.code.as_deref())
                .text(&error.message),
        };
        if let Some(upstream) = &ending.upstream {
            digest = digest
                .text(&upstream.name)
                .optional_text(upstream.model.as_deref())
                .optional_text(upstream.response_id.as_deref());
        }
        digest = digest
            .text(ending.attempts.as_str())
            .optional_number(ending.time_to_first_token_ms)
            .number(ending.duration_ms)
            .text(ending.usage.source.as_str())
            .optional_number(ending.usage.prompt_tokens)
            .optional_number(ending.usage.completion_tokens)
            .optional_number(ending.usage.total_tokens)
            .number(ending.usage.parts.uncached_input)
            .number(ending.usage.parts.cache_read)
            .number(ending.usage.parts.cache_write)
            .number(ending.usage.parts.output)
            .number(ending.usage.parts.reasoning)
            .optional_text(ending.usage.raw.as_ref().map(PgJson::as_str))
            .text(ending.notes.as_str());
        digest.message(assistant_message).added_text(ending.media.as_ref().map(PgJson::as_str)).finish()
    }

    fn message(self, message: Option<&Message>) -> Self {
        let Some(message) = message else { return self.number(0) };
        let micros = message.created_at.unix_timestamp_nanos() / 1000;
        self.number(1)
            .text(&message.conversation_id.map(|id| id.0.to_string()).unwrap_or_default())
            .text(message.user_id.as_str())
            .text(&message.role)
            .text(message.status.as_sql())
            .text(&message.content)
            .optional_text(message.reasoning.as_deref())
            .optional_text(message.refusal.as_deref())
            .optional_text(message.tool_calls.as_ref().map(PgJson::as_str))
            .optional_text(message.finish_reason.as_deref())
            .text(&message.model)
            .optional_number(message.tokens)
            .number(i64::try_from(micros).unwrap_or(i64::MAX))
            .added_text(message.audio_transcript.as_deref())
            .added_text(message.tool_call_id.as_deref())
            .added_text(Some(message.recording.as_str()).filter(|_| !message.recording.is_full()))
    }

    /// Adds a text with its length in front, so that two different lists of texts never have the same bytes.
    fn text(mut self, text: &str) -> Self {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    fn optional_text(self, text: Option<&str>) -> Self {
        match text {
            None => self.number(0),
            Some(text) => self.number(1).text(text),
        }
    }

    /// Adds a column that was introduced later: without a value, the digest stays as before the column existed.
    fn added_text(self, text: Option<&str>) -> Self {
        match text {
            None => self,
            Some(text) => self.text(text),
        }
    }

    fn number(mut self, number: i64) -> Self {
        self.0.update(number.to_le_bytes());
        self
    }

    fn optional_number(self, number: Option<i64>) -> Self {
        match number {
            None => self.number(0),
            Some(number) => self.number(1).number(number),
        }
    }

    fn finish(self) -> i64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0.finalize()[..8]);
        i64::from_le_bytes(head)
    }
}
