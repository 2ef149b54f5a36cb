//! The messages: one row for each message of a user or an assistant, written when the message is final.
//!
//! A row holds the facts of one event. The message id is derived from the chat id instead of being read from the event
//! (where the id is the same), so that two chats can never claim one row.

use shared::event::{
    AssistantMessage, CUT_BY_BUDGET, ChatFailed, ChatStarted, MAX_NEW_MESSAGES, MessageCompleted, NewMessage,
    RecordingMode, STOPPED_BY_USER,
};
use shared::id::{ChatId, ConversationId, MessageId, UserId};
use shared::usage::{Usage, UsageSource};
use time::OffsetDateTime;

use super::pg_value::{PgJson, pg_text, pg_timestamp, to_pg_json, token_count};

/// A row of `messages`.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The key of the row, derived from the chat and the position.
    pub message_id: MessageId,
    /// The conversation of the chat; none for a call that belongs to no conversation.
    pub conversation_id: Option<ConversationId>,
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
    /// The id of the tool call that the message answers, as the model named it.
    pub tool_call_id: Option<String>,
    /// The provider's reason for the end of the answer, or `client_gone`, `stopped_by_user` or `cut_by_budget`.
    pub finish_reason: Option<String>,
    /// The model requested by the client.
    pub model: String,
    /// Output tokens of the answer; none for a user's message, or when the usage is unknown.
    pub tokens: Option<i64>,
    /// The parts of the message that the event kept.
    pub recording: RecordingMode,
    /// The start of the chat for a user's message, the end of the chat for an assistant's.
    pub created_at: OffsetDateTime,
}

/// The position of a message within a chat. A chat has at most one message in each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// A message that the request added: a message of the user or the result of a tool call.
    New {
        /// The number of new messages after this message: 0 for the last one.
        before_last: u16,
    },
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
    /// The positions of a number of new messages, in the order of the messages.
    pub fn of_new(count: u16) -> impl Iterator<Item = Self> {
        (0..count).rev().map(|before_last| Self::New { before_last })
    }

    /// The number in the `position` column: 1 for the answer, 0 for the last new message, and less for each earlier one.
    pub fn number(self) -> i16 {
        match self {
            Self::New { before_last } => i16::try_from(before_last).map_or(i16::MIN, |before_last| -before_last),
            Self::Assistant => 1,
        }
    }

    /// The position with the given number.
    pub fn from_number(number: i16) -> Self {
        if number > 0 { Self::Assistant } else { Self::New { before_last: number.unsigned_abs() } }
    }

    /// The id of the message in this position of a chat.
    pub fn message_of(self, chat: ChatId) -> MessageId {
        match self {
            Self::New { before_last } => chat.new_message(before_last.into()),
            Self::Assistant => chat.assistant_message(),
        }
    }
}

// === impl Message ===

impl Message {
    /// Makes the new messages of a request, in their order: the last [`MAX_NEW_MESSAGES`].
    pub(super) fn from_started(event: &ChatStarted) -> Vec<Self> {
        let new = &event.new_messages[event.new_messages.len().saturating_sub(MAX_NEW_MESSAGES)..];
        let positions = Position::of_new(u16::try_from(new.len()).unwrap_or_default());
        let row = |(position, message): (Position, &NewMessage)| Self {
            message_id: position.message_of(event.chat_id),
            conversation_id: event.conversation_id,
            chat_id: event.chat_id,
            position,
            user_id: event.user_id.clone(),
            role: pg_text(&message.role),
            status: MessageStatus::Complete,
            content: pg_text(&message.text),
            reasoning: None,
            refusal: None,
            audio_transcript: None,
            tool_calls: None,
            tool_call_id: message.tool_call_id.as_deref().map(pg_text),
            finish_reason: None,
            model: pg_text(&event.model),
            tokens: None,
            recording: event.recording,
            created_at: pg_timestamp(event.started_at),
        };
        positions.zip(new).map(row).collect()
    }

    /// Makes the assistant's message from a finished answer; none when the answer of the call is no message.
    pub(super) fn from_completed(event: &MessageCompleted) -> Option<Self> {
        let message = event.message.as_ref()?;
        let status = match message {
            message
                if matches!(
                    message.finish_reason.as_deref(),
                    Some("client_gone" | STOPPED_BY_USER | CUT_BY_BUDGET)
                ) =>
            {
                MessageStatus::Partial
            }
            message if message.truncated => MessageStatus::Truncated,
            _ => MessageStatus::Complete,
        };
        let place = (event.chat_id, event.conversation_id, &event.user_id);
        Some(Self {
            recording: event.recording,
            ..Self::assistant(place, &event.model, event.finished_at, message, status, &event.usage)
        })
    }

    /// Makes a partial assistant's message; none when no part of the answer had arrived.
    pub(super) fn from_failed(event: &ChatFailed) -> Option<Self> {
        let message = event.message.as_ref()?;
        let place = (event.chat_id, event.conversation_id, &event.user_id);
        let status = MessageStatus::Partial;
        Some(Self {
            recording: event.recording,
            ..Self::assistant(place, &event.model, event.failed_at, message, status, &event.usage)
        })
    }

    fn assistant(
        (chat_id, conversation_id, user_id): (ChatId, Option<ConversationId>, &UserId),
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
            tool_call_id: None,
            tool_calls: (!message.tool_calls.is_empty()).then(|| to_pg_json(&message.tool_calls)),
            finish_reason: message.finish_reason.as_deref().map(pg_text),
            model: pg_text(model),
            tokens: usage.completion_tokens.filter(|_| usage.source != UsageSource::Unknown).map(token_count),
            recording: RecordingMode::Full,
            created_at: pg_timestamp(ended_at),
        }
    }
}
