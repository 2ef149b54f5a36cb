//! The start and the end of a chat, made again from the row of the chat and its messages.

use std::cmp::Reverse;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use shared::event::{
    AssistantMessage, CallerMetadata, ChatDeferred, ChatError, ChatFailed, ChatStarted, Event, FailureStage,
    MessageCompleted, NewMessage, RecordingMode, Restored,
};
use shared::id::{ConversationId, UserId};
use shared::usage::{Usage, UsageParts};
use time::OffsetDateTime;

use crate::projection::chat::{Chat, ChatEnding, ChatOutcome, ChatRequest, Deferral, TokenUsage};
use crate::projection::conversation::{Conversation, Title, TitleOrigin};
use crate::projection::message::{Message, MessageStatus};
use crate::projection::pg_value::{ESCAPED_NUL, PgJson};
use crate::projection::project;

/// The rows of a chat.
#[derive(Clone, Debug)]
pub struct ChatRows<'a> {
    /// The row of `chats`.
    pub chat: &'a Chat,
    /// The new messages of the request, in their order.
    pub new_messages: Vec<&'a Message>,
    /// The answer.
    pub answer: Option<&'a Message>,
    /// The row of the chat's conversation.
    pub conversation: Option<&'a Conversation>,
}

/// Makes the start and the end of a chat again, as far as `projected`, the row that the log gives, lacks them. Returns none in place of an
/// event that cannot be made so that it gives the rows.
pub fn chat_events(rows: &ChatRows<'_>, projected: Option<&Chat>, restored_at: OffsetDateTime) -> Vec<Option<Event>> {
    let mut events = Vec::new();
    if let Some(request) = &rows.chat.request
        && projected.is_none_or(|row| row.request.is_none())
    {
        let event = started(rows, request, restored_at).map(|event| with_title(event, rows));
        events.push(event.map(|event| Event::ChatStarted(Box::new(event))).filter(|event| gives(event, rows)));
    }
    if let Some(deferral) = &rows.chat.deferral
        && projected.is_none_or(|row| row.clone().join(rows.chat.clone()).deferral)
    {
        let event = Event::ChatDeferred(Box::new(deferred(rows.chat, deferral, restored_at)));
        events.push(Some(event).filter(|event| gives(event, rows)));
    }
    if let Some(ending) = &rows.chat.ending
        && projected.is_none_or(|row| row.clone().join(rows.chat.clone()).ending)
    {
        events.push(ended(rows, ending, restored_at).filter(|event| gives(event, rows)));
    }
    events
}

/// Returns true if the event gives the half of the rows that it is about, apart from the cost, and changes nothing else.
fn gives(event: &Event, rows: &ChatRows<'_>) -> bool {
    let Some(change) = project(std::slice::from_ref(event)).chats.remove(&rows.chat.chat_id) else { return false };
    let mut joined = rows.chat.clone();
    joined.join(change.row.clone());
    let has_messages = match (&change.row.request, &change.row.ending) {
        (Some(_), _) => change.new_messages.iter().eq(rows.new_messages.iter().copied()),
        (None, Some(_)) => change.assistant_message.as_ref() == rows.answer,
        (None, None) => true,
    };
    let without_cost = |ending: &ChatEnding| ChatEnding { pricing: None, ..ending.clone() };
    has_messages
        && joined == *rows.chat
        && change.row.request.is_none_or(|request| Some(request) == rows.chat.request)
        && change.row.ending.is_none_or(|ending| Some(ending) == rows.chat.ending.as_ref().map(without_cost))
}

fn deferred(chat: &Chat, deferral: &Deferral, restored_at: OffsetDateTime) -> ChatDeferred {
    let Deferral { deferred_at, upstream, response_id } = deferral.clone();
    ChatDeferred {
        chat_id: chat.chat_id,
        operation: chat.operation,
        conversation_id: chat.conversation_id,
        user_id: chat.user_id.clone(),
        key_id: chat.key_id,
        project_id: chat.project_id,
        gateway: chat.gateway.clone(),
        started_at: chat.started_at,
        deferred_at,
        model: chat.model.clone(),
        upstream,
        response_id,
        recording: chat.recording,
        traceparent: None,
        restored: Some(Restored::new(restored_at, None)),
    }
}

/// The members that each event of a chat has. The messages of a half have those of their event; the row of the chat, of several the least.
struct Common {
    conversation_id: Option<ConversationId>,
    user_id: UserId,
    model: String,
    recording: RecordingMode,
}

fn common(chat: &Chat, message: Option<&Message>) -> Common {
    match message {
        None => Common {
            conversation_id: chat.conversation_id,
            user_id: chat.user_id.clone(),
            model: chat.model.clone(),
            recording: chat.recording,
        },
        Some(message) => Common {
            conversation_id: message.conversation_id,
            user_id: message.user_id.clone(),
            model: message.model.clone(),
            recording: message.recording,
        },
    }
}

fn started(rows: &ChatRows<'_>, request: &ChatRequest, restored_at: OffsetDateTime) -> Option<ChatStarted> {
    let chat = rows.chat;
    let Common { conversation_id, user_id, model, recording } = common(chat, rows.new_messages.first().copied());
    let new_message = |message: &&Message| NewMessage {
        id: message.message_id,
        role: message.role.clone(),
        text: message.content.clone(),
        tool_call_id: message.tool_call_id.clone(),
    };
    Some(ChatStarted {
        chat_id: chat.chat_id,
        operation: chat.operation,
        conversation_id,
        conversation_origin: request.origin,
        client_thread_id: request.client_thread_id.clone(),
        user_id,
        key_id: chat.key_id,
        project_id: chat.project_id,
        gateway: chat.gateway.clone(),
        started_at: chat.started_at,
        dialect: request.dialect,
        stream: request.stream,
        model,
        temperature: request.temperature,
        parameters: RawValue::from_string("{}".to_owned()).ok()?,
        messages: None,
        new_messages: rows.new_messages.iter().map(new_message).collect(),
        assistant_message_id: chat.operation.answers_with_message().then(|| chat.chat_id.assistant_message()),
        caller_metadata: match &request.caller_metadata {
            None => None,
            Some(json) => Some(caller_metadata(json)?),
        },
        recording,
        traceparent: None,
        restored: Some(Restored::new(restored_at, Some(request.digest))),
    })
}

/// Gives the conversation its title. A title is made from the text as sent, in which U+0000 counts as a space; a column has six characters in
/// the place of U+0000.
fn with_title(event: ChatStarted, rows: &ChatRows<'_>) -> ChatStarted {
    let title = rows.conversation.and_then(|row| row.title.as_ref());
    let is_of_chat = |title: &&Title| title.origin == TitleOrigin::Chat(Reverse(event.chat_id));
    let Some(title) = title.filter(is_of_chat) else { return event };
    let has_title =
        |event: &ChatStarted| Conversation::from_started(event).is_some_and(|row| row.title.as_ref() == Some(title));
    if has_title(&event) {
        return event;
    }
    let mut with_nul = event.clone();
    for message in &mut with_nul.new_messages {
        message.text = message.text.replace(ESCAPED_NUL, "\0");
    }
    if has_title(&with_nul) { with_nul } else { event }
}

fn ended(rows: &ChatRows<'_>, ending: &ChatEnding, restored_at: OffsetDateTime) -> Option<Event> {
    let restored = Some(Restored::new(restored_at, Some(ending.digest)));
    match &ending.outcome {
        ChatOutcome::Completed => completed(rows, ending, restored),
        ChatOutcome::Failed { stage, error } => failed(rows, ending, (*stage, error), restored),
    }
}

fn completed(rows: &ChatRows<'_>, ending: &ChatEnding, restored: Option<Restored>) -> Option<Event> {
    let chat = rows.chat;
    let Common { conversation_id, user_id, model, recording } = common(chat, rows.answer);
    Some(Event::MessageCompleted(Box::new(MessageCompleted {
        chat_id: chat.chat_id,
        operation: chat.operation,
        conversation_id,
        user_id,
        key_id: chat.key_id,
        project_id: chat.project_id,
        gateway: chat.gateway.clone(),
        started_at: chat.started_at,
        finished_at: ending.finished_at,
        model,
        message: answer(rows, ending)?,
        usage: usage(&ending.usage)?,
        media: optional(ending.media.as_ref())?,
        time_to_first_token_ms: ending.time_to_first_token_ms.map(i64::unsigned_abs),
        duration_ms: ending.duration_ms.unsigned_abs(),
        upstream: ending.upstream.clone()?,
        attempts: parsed(&ending.attempts)?,
        notes: parsed(&ending.notes)?,
        recording,
        traceparent: None,
        restored,
    })))
}

fn failed(
    rows: &ChatRows<'_>,
    ending: &ChatEnding,
    (stage, error): (FailureStage, &ChatError),
    restored: Option<Restored>,
) -> Option<Event> {
    let chat = rows.chat;
    let Common { conversation_id, user_id, model, recording } = common(chat, rows.answer);
    Some(Event::ChatFailed(Box::new(ChatFailed {
        chat_id: chat.chat_id,
        operation: chat.operation,
        conversation_id,
        user_id,
        key_id: chat.key_id,
        project_id: chat.project_id,
        gateway: chat.gateway.clone(),
        started_at: chat.started_at,
        failed_at: ending.finished_at,
        model,
        stage,
        error: error.clone(),
        message: answer(rows, ending)?,
        usage: usage(&ending.usage)?,
        media: optional(ending.media.as_ref())?,
        time_to_first_token_ms: ending.time_to_first_token_ms.map(i64::unsigned_abs),
        duration_ms: ending.duration_ms.unsigned_abs(),
        upstream: ending.upstream.clone(),
        attempts: parsed(&ending.attempts)?,
        notes: parsed(&ending.notes)?,
        recording,
        traceparent: None,
        restored,
    })))
}

/// The answer of the chat; the outer none for an answer that is missing or that no event gives.
#[expect(clippy::option_option, reason = "the inner option is the member of the event")]
fn answer(rows: &ChatRows<'_>, ending: &ChatEnding) -> Option<Option<AssistantMessage>> {
    if !ending.has_message {
        return Some(None);
    }
    let message = rows.answer?;
    Some(Some(AssistantMessage {
        id: message.message_id,
        text: message.content.clone(),
        reasoning: message.reasoning.clone(),
        refusal: message.refusal.clone(),
        audio_transcript: message.audio_transcript.clone(),
        tool_calls: message.tool_calls.as_ref().map_or(Some(Vec::new()), parsed)?,
        server_tool_calls: 0,
        other_choices: Vec::new(),
        finish_reason: message.finish_reason.clone(),
        truncated: message.status == MessageStatus::Truncated,
    }))
}

fn usage(usage: &TokenUsage) -> Option<Usage> {
    let parts = usage.parts;
    Some(Usage {
        source: usage.source,
        prompt_tokens: usage.prompt_tokens.map(i64::unsigned_abs),
        completion_tokens: usage.completion_tokens.map(i64::unsigned_abs),
        total_tokens: usage.total_tokens.map(i64::unsigned_abs),
        parts: UsageParts {
            uncached_input: parts.uncached_input.unsigned_abs(),
            cache_read: parts.cache_read.unsigned_abs(),
            cache_write: parts.cache_write.unsigned_abs(),
            output: parts.output.unsigned_abs(),
            reasoning: parts.reasoning.unsigned_abs(),
        },
        raw: match &usage.raw {
            None => None,
            Some(raw) => Some(original(raw.as_str(), |json| PgJson::new(json) == *raw)?),
        },
    })
}

fn caller_metadata(json: &PgJson) -> Option<CallerMetadata> {
    let mut said: CallerMetadata = parsed(json)?;
    if let Some(metadata) = &said.metadata {
        let metadata = metadata.get();
        said.metadata = Some(original(metadata, |json| PgJson::nested(json).as_str() == metadata)?);
    }
    Some(said)
}

/// Returns the JSON that became the given value in a column. A value that the column could not hold became one string, and is taken out of
/// the string if it then becomes the same string again.
fn original(json: &str, gives_the_column: impl Fn(&str) -> bool) -> Option<Box<RawValue>> {
    if let Ok(text) = serde_json::from_str::<String>(json)
        && let Ok(inner) = RawValue::from_string(text)
        && gives_the_column(inner.get())
    {
        return Some(inner);
    }
    RawValue::from_string(json.to_owned()).ok()
}

fn parsed<T: DeserializeOwned>(json: &PgJson) -> Option<T> {
    serde_json::from_str(json.as_str()).ok()
}

#[expect(clippy::option_option, reason = "the inner option is the member of the event")]
fn optional<T: DeserializeOwned>(json: Option<&PgJson>) -> Option<Option<T>> {
    json.map_or(Some(None), |json| parsed(json).map(Some))
}
