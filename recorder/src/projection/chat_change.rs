//! The facts in each event of a chat: the row of the ledger, and the messages of the row's two halves.

use shared::event::{
    CallerMetadata, ChatDeferred, ChatError, ChatFailed, ChatStarted, MessageCompleted, Restored, UpstreamAnswer,
};

use super::chat::{Chat, ChatEnding, ChatOutcome, ChatRequest, Deferral, TokenUsage};
use super::chat_cost::provider_cost_of;
use super::digest::ContentDigest;
use super::message::Message;
use super::pg_value::{PgJson, milliseconds, pg_text, pg_timestamp, to_pg_json};

/// The facts of a batch about one chat: the row, and the messages of the row's two halves. The row of an event is not priced yet.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatChange {
    /// The row of `chats`, with the request, the ending, or both.
    pub row: Chat,
    /// The new messages, in their order; they belong to the row's request.
    pub new_messages: Vec<Message>,
    /// The assistant's message; belongs to the row's ending.
    pub assistant_message: Option<Message>,
}

impl ChatChange {
    /// Joins the facts of `other`, a change of the same chat. A message is replaced together with the half of the row
    /// to which the message belongs.
    pub fn join(&mut self, other: Self) {
        let replaced = self.row.join(other.row);
        if replaced.request {
            self.new_messages = other.new_messages;
        }
        if replaced.ending {
            self.assistant_message = other.assistant_message;
        }
    }

    /// Makes the change of a chat's start: a row with a request, and the new messages.
    pub fn from_started(event: &ChatStarted) -> Self {
        let new_messages = Message::from_started(event);
        let mut request = ChatRequest {
            digest: 0,
            origin: event.conversation_origin,
            client_thread_id: event.client_thread_id.as_deref().map(pg_text),
            dialect: event.dialect,
            stream: event.stream,
            temperature: event.temperature,
            new_messages: u16::try_from(new_messages.len()).unwrap_or(u16::MAX),
            caller_metadata: event.caller_metadata.as_ref().map(caller_metadata),
        };
        request.digest = restored_digest(event.restored.as_ref())
            .unwrap_or_else(|| ContentDigest::of_request(&request, event.operation, &new_messages));
        let row = Chat {
            chat_id: event.chat_id,
            conversation_id: event.conversation_id,
            operation: event.operation,
            user_id: event.user_id.clone(),
            key_id: event.key_id,
            project_id: event.project_id,
            gateway: pg_text(&event.gateway),
            model: pg_text(&event.model),
            started_at: pg_timestamp(event.started_at),
            recording: event.recording,
            request: Some(request),
            deferral: None,
            ending: None,
        };
        Self { row, new_messages, assistant_message: None }
    }

    /// Makes the change of a chat whose answer is made in the background: a row with a deferral.
    pub fn from_deferred(event: &ChatDeferred) -> Self {
        let deferral = Deferral {
            deferred_at: pg_timestamp(event.deferred_at),
            upstream: pg_text(&event.upstream),
            response_id: pg_text(&event.response_id),
        };
        let row = Chat {
            chat_id: event.chat_id,
            conversation_id: event.conversation_id,
            operation: event.operation,
            user_id: event.user_id.clone(),
            key_id: event.key_id,
            project_id: event.project_id,
            gateway: pg_text(&event.gateway),
            model: pg_text(&event.model),
            started_at: pg_timestamp(event.started_at),
            recording: event.recording,
            request: None,
            deferral: Some(deferral),
            ending: None,
        };
        Self { row, new_messages: Vec::new(), assistant_message: None }
    }

    /// Makes the change of a whole answer: a row with a completed ending, and the assistant's message, if the answer is one.
    pub fn from_completed(event: &MessageCompleted) -> Self {
        let assistant_message = Message::from_completed(event);
        let mut ending = ChatEnding {
            digest: 0,
            outcome: ChatOutcome::Completed,
            finished_at: pg_timestamp(event.finished_at),
            has_message: assistant_message.is_some(),
            upstream: Some(upstream(&event.upstream)),
            attempts: to_pg_json(&event.attempts),
            time_to_first_token_ms: event.time_to_first_token_ms.map(milliseconds),
            duration_ms: milliseconds(event.duration_ms),
            usage: TokenUsage::from_usage(&event.usage),
            notes: to_pg_json(&event.notes),
            media: event.media.as_ref().map(to_pg_json),
            pricing: None,
            provider_cost_nanodollars: provider_cost_of(&event.usage),
        };
        ending.digest = restored_digest(event.restored.as_ref())
            .unwrap_or_else(|| ContentDigest::of_ending(&ending, assistant_message.as_ref()));
        let row = Chat {
            chat_id: event.chat_id,
            conversation_id: event.conversation_id,
            operation: event.operation,
            user_id: event.user_id.clone(),
            key_id: event.key_id,
            project_id: event.project_id,
            gateway: pg_text(&event.gateway),
            model: pg_text(&event.model),
            started_at: pg_timestamp(event.started_at),
            recording: event.recording,
            request: None,
            deferral: None,
            ending: Some(ending),
        };
        Self { row, new_messages: Vec::new(), assistant_message }
    }

    /// Makes the change of a failure: a row with a failed ending, and the partial answer where one was recorded.
    pub fn from_failed(event: &ChatFailed) -> Self {
        let assistant_message = Message::from_failed(event);
        let error = ChatError {
            status: event.error.status,
            kind: event.error.kind.as_deref().map(pg_text),
            code: event.error.code.as_deref().map(pg_text),
            message: pg_text(&event.error.message),
        };
        let mut ending = ChatEnding {
            digest: 0,
            outcome: ChatOutcome::Failed { stage: event.stage, error },
            finished_at: pg_timestamp(event.failed_at),
            has_message: assistant_message.is_some(),
            upstream: event.upstream.as_ref().map(upstream),
            attempts: to_pg_json(&event.attempts),
            time_to_first_token_ms: event.time_to_first_token_ms.map(milliseconds),
            duration_ms: milliseconds(event.duration_ms),
            usage: TokenUsage::from_usage(&event.usage),
            notes: to_pg_json(&event.notes),
            media: event.media.as_ref().map(to_pg_json),
            pricing: None,
            provider_cost_nanodollars: provider_cost_of(&event.usage),
        };
        ending.digest = restored_digest(event.restored.as_ref())
            .unwrap_or_else(|| ContentDigest::of_ending(&ending, assistant_message.as_ref()));
        let row = Chat {
            chat_id: event.chat_id,
            conversation_id: event.conversation_id,
            operation: event.operation,
            user_id: event.user_id.clone(),
            key_id: event.key_id,
            project_id: event.project_id,
            gateway: pg_text(&event.gateway),
            model: pg_text(&event.model),
            started_at: pg_timestamp(event.started_at),
            recording: event.recording,
            request: None,
            deferral: None,
            ending: Some(ending),
        };
        Self { row, new_messages: Vec::new(), assistant_message }
    }
}

/// The digest that an event made again from a row brings along. The content would give another one: columns of JSON do not keep the notation
/// of the first publication.
fn restored_digest(restored: Option<&Restored>) -> Option<i64> {
    restored.and_then(Restored::row_digest)
}

/// The caller's user, metadata and tags in one JSON object. Metadata that is not valid in a row becomes a string, so
/// that queries for user and tags still work.
fn caller_metadata(said: &CallerMetadata) -> PgJson {
    let user = said.user.as_deref().map(|user| format!("\"user\":{}", to_pg_json(&pg_text(user)).as_str()));
    let metadata = said.metadata.as_ref().map(|raw| format!("\"metadata\":{}", PgJson::nested(raw.get()).as_str()));
    let tags: Vec<String> = said.tags.iter().map(|tag| pg_text(tag)).collect();
    let tags = (!tags.is_empty()).then(|| format!("\"tags\":{}", to_pg_json(&tags).as_str()));
    PgJson::new(&format!("{{{}}}", [user, metadata, tags].into_iter().flatten().collect::<Vec<_>>().join(",")))
}

fn upstream(answer: &UpstreamAnswer) -> UpstreamAnswer {
    UpstreamAnswer {
        name: pg_text(&answer.name),
        model: answer.model.as_deref().map(pg_text),
        response_id: answer.response_id.as_deref().map(pg_text),
    }
}
