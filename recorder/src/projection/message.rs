//! Messages: what was said, one row each, written when it is final.
//!
//! A row holds what the one event says that brought it. Its id is derived from the chat rather than read from the event
//! (where it is the same), so that no two chats can ever claim one row.

use shared::event::{AssistantMessage, ChatFailed, ChatStarted, MessageCompleted};
use shared::id::{ChatId, ConversationId, MessageId, UserId};
use shared::usage::{Usage, UsageSource};
use time::OffsetDateTime;

use super::pg_value::{PgJson, pg_text, pg_timestamp, to_pg_json, token_count};

/// A row of `messages`.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The message.
    pub message_id: MessageId,
    /// The conversation it was said in.
    pub conversation_id: ConversationId,
    /// The chat it belongs to.
    pub chat_id: ChatId,
    /// Its place in the chat.
    pub position: Position,
    /// Whose record it belongs to.
    pub user_id: UserId,
    /// Who speaks.
    pub role: String,
    /// Whether it is all there.
    pub status: MessageStatus,
    /// Its text.
    pub content: String,
    /// Reasoning text.
    pub reasoning: Option<String>,
    /// The model's refusal.
    pub refusal: Option<String>,
    /// What a spoken answer says.
    pub audio_transcript: Option<String>,
    /// Calls of the client's tools.
    pub tool_calls: Option<PgJson>,
    /// Why it ended.
    pub finish_reason: Option<String>,
    /// The model that the client asked for.
    pub model: String,
    /// Output tokens.
    pub tokens: Option<i64>,
    /// When it was asked, or when the answer ended.
    pub created_at: OffsetDateTime,
}

/// A message's place in its chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// What the user sent.
    User,
    /// What came back.
    Assistant,
}

/// Whether a message is all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageStatus {
    /// It is.
    Complete,
    /// The answer broke off, or the client left before its end.
    Partial,
    /// The answer was longer than the gateway records.
    Truncated,
}

// === impl Position ===

impl Position {
    /// As in rows.
    pub fn number(self) -> i16 {
        match self {
            Self::User => 0,
            Self::Assistant => 1,
        }
    }

    /// The message of this chat in this place.
    pub fn message_of(self, chat: ChatId) -> MessageId {
        match self {
            Self::User => chat.user_message(),
            Self::Assistant => chat.assistant_message(),
        }
    }
}

// === impl Message ===

impl Message {
    /// What the user sent, where that is anything new.
    pub(super) fn from_started(event: &ChatStarted) -> Option<Self> {
        let message = event.user_message.as_ref()?;
        Some(Self {
            message_id: Position::User.message_of(event.chat_id),
            conversation_id: event.conversation_id,
            chat_id: event.chat_id,
            position: Position::User,
            user_id: event.user_id.clone(),
            role: pg_text(&message.role),
            status: MessageStatus::Complete,
            content: pg_text(&message.text),
            reasoning: None,
            refusal: None,
            audio_transcript: None,
            tool_calls: None,
            finish_reason: None,
            model: pg_text(&event.model),
            tokens: None,
            created_at: pg_timestamp(event.started_at),
        })
    }

    /// The answer.
    pub(super) fn from_completed(event: &MessageCompleted) -> Self {
        let status = match &event.message {
            message if message.finish_reason.as_deref() == Some("client_gone") => MessageStatus::Partial,
            message if message.truncated => MessageStatus::Truncated,
            _ => MessageStatus::Complete,
        };
        let place = (event.chat_id, event.conversation_id, &event.user_id);
        Self::assistant(place, &event.model, event.finished_at, &event.message, status, &event.usage)
    }

    /// The part of the answer that had arrived, where any had.
    pub(super) fn from_failed(event: &ChatFailed) -> Option<Self> {
        let message = event.message.as_ref()?;
        let place = (event.chat_id, event.conversation_id, &event.user_id);
        let status = MessageStatus::Partial;
        Some(Self::assistant(place, &event.model, event.failed_at, message, status, &event.usage))
    }

    fn assistant(
        (chat_id, conversation_id, user_id): (ChatId, ConversationId, &UserId),
        model: &str,
        ended_at: OffsetDateTime,
        message: &AssistantMessage,
        status: MessageStatus,
        usage: &Usage,
    ) -> Self {
        Self {
            message_id: Position::Assistant.message_of(chat_id),
            conversation_id,
            chat_id,
            position: Position::Assistant,
            user_id: user_id.clone(),
            role: "assistant".to_owned(),
            status,
            content: pg_text(&message.text),
            reasoning: message.reasoning.as_deref().map(pg_text),
            refusal: message.refusal.as_deref().map(pg_text),
            audio_transcript: message.audio_transcript.as_deref().map(pg_text),
            tool_calls: (!message.tool_calls.is_empty()).then(|| to_pg_json(&message.tool_calls)),
            finish_reason: message.finish_reason.as_deref().map(pg_text),
            model: pg_text(model),
            tokens: usage.completion_tokens.filter(|_| usage.source != UsageSource::Unknown).map(token_count),
            created_at: pg_timestamp(ended_at),
        }
    }
}
