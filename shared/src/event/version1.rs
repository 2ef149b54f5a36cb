//! Version 1 of the events of chats. Gateways before this version published these events, and streams keep them for years. They are
//! decoded for ever, and become the events of today.
//!
//! In version 1 every call was a chat in a conversation, and a chat had at most one new message.

use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::event::assistant_message::AssistantMessage;
use crate::event::caller_metadata::CallerMetadata;
use crate::event::chat_failed::{self, ChatError, FailureStage};
use crate::event::chat_started::{self, ConversationOrigin};
use crate::event::dialect::DialectName;
use crate::event::message_completed;
use crate::event::new_message::NewMessage;
use crate::event::operation::Operation;
use crate::event::recording_mode::RecordingMode;
use crate::event::upstream::{Attempt, UpstreamAnswer};
use crate::id::{ChatId, ConversationId, MessageId, UserId};
use crate::usage::Usage;

/// `stenograph.ChatStarted.v1`.
#[derive(Debug, Deserialize)]
pub(super) struct ChatStarted {
    chat_id: ChatId,
    conversation_id: ConversationId,
    conversation_origin: ConversationOrigin,
    #[serde(default)]
    client_thread_id: Option<String>,
    user_id: UserId,
    gateway: String,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    dialect: DialectName,
    stream: bool,
    model: String,
    #[serde(default)]
    temperature: Option<f64>,
    parameters: Box<RawValue>,
    messages: Box<RawValue>,
    #[serde(default)]
    user_message: Option<UserMessage>,
    assistant_message_id: MessageId,
    #[serde(default)]
    caller_metadata: Option<CallerMetadata>,
}

#[derive(Debug, Deserialize)]
struct UserMessage {
    id: MessageId,
    role: String,
    text: String,
}

/// `stenograph.MessageCompleted.v1`.
#[derive(Debug, Deserialize)]
pub(super) struct MessageCompleted {
    chat_id: ChatId,
    conversation_id: ConversationId,
    user_id: UserId,
    gateway: String,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    finished_at: OffsetDateTime,
    model: String,
    message: AssistantMessage,
    usage: Usage,
    #[serde(default)]
    time_to_first_token_ms: Option<u64>,
    duration_ms: u64,
    upstream: UpstreamAnswer,
    attempts: Vec<Attempt>,
    #[serde(default)]
    notes: Vec<String>,
}

/// `stenograph.ChatFailed.v1`.
#[derive(Debug, Deserialize)]
pub(super) struct ChatFailed {
    chat_id: ChatId,
    conversation_id: ConversationId,
    user_id: UserId,
    gateway: String,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    failed_at: OffsetDateTime,
    model: String,
    stage: FailureStage,
    error: ChatError,
    #[serde(default)]
    message: Option<AssistantMessage>,
    usage: Usage,
    #[serde(default)]
    time_to_first_token_ms: Option<u64>,
    duration_ms: u64,
    #[serde(default)]
    upstream: Option<UpstreamAnswer>,
    attempts: Vec<Attempt>,
    #[serde(default)]
    notes: Vec<String>,
}

impl From<ChatStarted> for chat_started::ChatStarted {
    fn from(event: ChatStarted) -> Self {
        let new_message = |message: UserMessage| NewMessage {
            id: message.id,
            role: message.role,
            text: message.text,
            tool_call_id: None,
        };
        Self {
            chat_id: event.chat_id,
            operation: Operation::Chat,
            conversation_id: Some(event.conversation_id),
            conversation_origin: Some(event.conversation_origin),
            client_thread_id: event.client_thread_id,
            user_id: event.user_id,
            key_id: None,
            project_id: None,
            gateway: event.gateway,
            started_at: event.started_at,
            dialect: event.dialect,
            stream: event.stream,
            model: event.model,
            temperature: event.temperature,
            parameters: event.parameters,
            messages: Some(event.messages),
            new_messages: event.user_message.map(new_message).into_iter().collect(),
            assistant_message_id: Some(event.assistant_message_id),
            caller_metadata: event.caller_metadata,
            recording: RecordingMode::Full,
            traceparent: None,
            restored: None,
        }
    }
}

impl From<MessageCompleted> for message_completed::MessageCompleted {
    fn from(event: MessageCompleted) -> Self {
        Self {
            chat_id: event.chat_id,
            operation: Operation::Chat,
            conversation_id: Some(event.conversation_id),
            user_id: event.user_id,
            key_id: None,
            project_id: None,
            gateway: event.gateway,
            started_at: event.started_at,
            finished_at: event.finished_at,
            model: event.model,
            message: Some(event.message),
            usage: event.usage,
            media: None,
            time_to_first_token_ms: event.time_to_first_token_ms,
            duration_ms: event.duration_ms,
            upstream: event.upstream,
            attempts: event.attempts,
            notes: event.notes,
            recording: RecordingMode::Full,
            traceparent: None,
            restored: None,
        }
    }
}

impl From<ChatFailed> for chat_failed::ChatFailed {
    fn from(event: ChatFailed) -> Self {
        Self {
            chat_id: event.chat_id,
            operation: Operation::Chat,
            conversation_id: Some(event.conversation_id),
            user_id: event.user_id,
            key_id: None,
            project_id: None,
            gateway: event.gateway,
            started_at: event.started_at,
            failed_at: event.failed_at,
            model: event.model,
            stage: event.stage,
            error: event.error,
            message: event.message,
            usage: event.usage,
            media: None,
            time_to_first_token_ms: event.time_to_first_token_ms,
            duration_ms: event.duration_ms,
            upstream: event.upstream,
            attempts: event.attempts,
            notes: event.notes,
            recording: RecordingMode::Full,
            traceparent: None,
            restored: None,
        }
    }
}
