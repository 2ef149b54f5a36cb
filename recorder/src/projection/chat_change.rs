//! What each event of a chat says: the row of the ledger, and the messages that go with it.

use shared::event::{CallerMetadata, ChatError, ChatFailed, ChatStarted, MessageCompleted, UpstreamAnswer};

use super::chat::{Chat, Ending, Outcome, Request, UsageNumbers};
use super::digest::Digest;
use super::message::Message;
use super::pg_value::{Json, count, instant, json_of, text};

/// What a batch says of one chat: the row, and the messages that go with its two halves.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatChange {
    /// The row.
    pub row: Chat,
    /// The message that the row's request brought.
    pub asked: Option<Message>,
    /// The message that the row's ending brought.
    pub answered: Option<Message>,
}

impl ChatChange {
    /// Takes in what `other` says of the same chat.
    pub fn join(&mut self, other: Self) {
        let replaced = self.row.join(other.row);
        if replaced.request {
            self.asked = other.asked;
        }
        if replaced.ending {
            self.answered = other.answered;
        }
    }

    /// What a start says.
    pub fn started(event: &ChatStarted) -> Self {
        let asked = Message::asked(event);
        let mut request = Request {
            digest: 0,
            origin: event.conversation_origin,
            client_thread_id: event.client_thread_id.as_deref().map(text),
            dialect: event.dialect,
            stream: event.stream,
            temperature: event.temperature,
            has_message: asked.is_some(),
            caller_metadata: event.caller_metadata.as_ref().map(caller_metadata),
        };
        request.digest = Digest::of_request(&request, asked.as_ref());
        let row = Chat {
            chat_id: event.chat_id,
            conversation_id: event.conversation_id,
            user_id: event.user_id.clone(),
            gateway: text(&event.gateway),
            model: text(&event.model),
            started_at: instant(event.started_at),
            request: Some(request),
            ending: None,
        };
        Self { row, asked, answered: None }
    }

    /// What an answer says.
    pub fn completed(event: &MessageCompleted) -> Self {
        let answered = Some(Message::answered(event));
        let mut ending = Ending {
            digest: 0,
            outcome: Outcome::Completed,
            finished_at: instant(event.finished_at),
            has_message: true,
            upstream: Some(upstream(&event.upstream)),
            attempts: json_of(&event.attempts),
            time_to_first_token_ms: event.time_to_first_token_ms.map(count),
            duration_ms: count(event.duration_ms),
            usage: UsageNumbers::of(&event.usage),
            notes: json_of(&event.notes),
        };
        ending.digest = Digest::of_ending(&ending, answered.as_ref());
        let row = Chat {
            chat_id: event.chat_id,
            conversation_id: event.conversation_id,
            user_id: event.user_id.clone(),
            gateway: text(&event.gateway),
            model: text(&event.model),
            started_at: instant(event.started_at),
            request: None,
            ending: Some(ending),
        };
        Self { row, asked: None, answered }
    }

    /// What a failure says.
    pub fn failed(event: &ChatFailed) -> Self {
        let answered = Message::broken_off(event);
        let error = ChatError {
            status: event.error.status,
            kind: event.error.kind.as_deref().map(text),
            code: event.error.code.as_deref().map(text),
            message: text(&event.error.message),
        };
        let mut ending = Ending {
            digest: 0,
            outcome: Outcome::Failed { stage: event.stage, error },
            finished_at: instant(event.failed_at),
            has_message: answered.is_some(),
            upstream: event.upstream.as_ref().map(upstream),
            attempts: json_of(&event.attempts),
            time_to_first_token_ms: event.time_to_first_token_ms.map(count),
            duration_ms: count(event.duration_ms),
            usage: UsageNumbers::of(&event.usage),
            notes: json_of(&event.notes),
        };
        ending.digest = Digest::of_ending(&ending, answered.as_ref());
        let row = Chat {
            chat_id: event.chat_id,
            conversation_id: event.conversation_id,
            user_id: event.user_id.clone(),
            gateway: text(&event.gateway),
            model: text(&event.model),
            started_at: instant(event.started_at),
            request: None,
            ending: Some(ending),
        };
        Self { row, asked: None, answered }
    }
}

/// What the caller said, as one object: whatever the metadata is, user and tags can be asked for.
fn caller_metadata(said: &CallerMetadata) -> Json {
    let user = said.user.as_deref().map(|user| format!("\"user\":{}", json_of(&text(user)).as_str()));
    let metadata = said.metadata.as_ref().map(|raw| format!("\"metadata\":{}", Json::within(raw.get()).as_str()));
    let tags: Vec<String> = said.tags.iter().map(|tag| text(tag)).collect();
    let tags = (!tags.is_empty()).then(|| format!("\"tags\":{}", json_of(&tags).as_str()));
    Json::new(&format!("{{{}}}", [user, metadata, tags].into_iter().flatten().collect::<Vec<_>>().join(",")))
}

fn upstream(answer: &UpstreamAnswer) -> UpstreamAnswer {
    UpstreamAnswer {
        name: text(&answer.name),
        model: answer.model.as_deref().map(text),
        response_id: answer.response_id.as_deref().map(text),
    }
}
