//! The messages: one row for each message of a user or an assistant, written when the message is final.
//!
//! A row holds the facts of one event. The message id is derived from the chat id instead of being read from the event
//! (where the id is the same), so that two chats can never claim one row.

use shared::event::{AssistantMessage, ChatFailed, ChatStarted, MessageCompleted};
use shared::id::{ChatId, ConversationId, MessageId, UserId};
use shared::usage::{Usage, UsageSource};
use time::OffsetDateTime;

use super::pg_value::{PgJson, pg_text, pg_timestamp, to_pg_json, token_count};

/// A row of `messages`.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The key of the row, derived from the chat and the position.
    pub message_id: MessageId,
    /// The conversation of the chat.
    pub conversation_id: ConversationId,
    /// The chat to which the message belongs.
    pub chat_id: ChatId,
    /// The position within the chat.
    pub position: Position,
    /// The owner of the conversation.
    pub user_id: UserId,
    /// The role of the author, such as `user` or `assistant`.
    pub role: String,
    /// The completeness of the message.
    pub status: MessageStatus,
    /// The text of the message.
    pub content: String,
    /// The model's reasoning, where the provider sends the text.
    pub reasoning: Option<String>,
    /// The model's refusal, where the provider sends one apart from the text.
    pub refusal: Option<String>,
    /// The transcript of a spoken answer.
    pub audio_transcript: Option<String>,
    /// Calls of the client's tools, as a JSON array.
    pub tool_calls: Option<PgJson>,
    /// The provider's reason for the end of the answer, or `client_gone`.
    pub finish_reason: Option<String>,
    /// The model requested by the client.
    pub model: String,
    /// Output tokens of the answer; none for a user's message, or when the usage is unknown.
    pub tokens: Option<i64>,
    /// The start of the chat for a user's message, the end of the chat for an assistant's.
    pub created_at: OffsetDateTime,
}

/// The position of a message within a chat. A chat has at most one message in each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The message sent by the user.
    User,
    /// The answer of the model.
    Assistant,
}

/// The completeness of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageStatus {
    /// The whole message was recorded.
    Complete,
    /// The answer broke off, or the client left before the end.
    Partial,
    /// The answer was longer than the gateway's recording limit.
    Truncated,
}

// === impl Position ===

impl Position {
    /// The number in the `position` column.
    pub fn number(self) -> i16 {
        match self {
            Self::User => 0,
            Self::Assistant => 1,
        }
    }

    /// The id of the message in this position of a chat.
    pub fn message_of(self, chat: ChatId) -> MessageId {
        match self {
            Self::User => chat.user_message(),
            Self::Assistant => chat.assistant_message(),
        }
    }
}

// === impl Message ===

impl Message {
    /// Makes the user's message; none when the request brought no new message.
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

    /// Makes the assistant's message from a finished answer.
    pub(super) fn from_completed(event: &MessageCompleted) -> Self {
        let status = match &event.message {
            message if message.finish_reason.as_deref() == Some("client_gone") => MessageStatus::Partial,
            message if message.truncated => MessageStatus::Truncated,
            _ => MessageStatus::Complete,
        };
        let place = (event.chat_id, event.conversation_id, &event.user_id);
        Self::assistant(place, &event.model, event.finished_at, &event.message, status, &event.usage)
    }

    /// Makes a partial assistant's message; none when no part of the answer had arrived.
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
