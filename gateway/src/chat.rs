//! The pipeline: one chat from its request to the answer's body. It reads like the flow in ARCHITECTURE.md.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method};
use shared::event::{ChatError, ConversationOrigin, FailureStage};
use shared::id::ConversationId;
use shared::usage::Usage;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::answer::{Answer, AnswerKind};
use crate::auth::Caller;
use crate::config::Limits;
use crate::conversation_id::ConversationKeys;
use crate::dialect::{Fold, error_body};
use crate::dispatch::{Answered, Candidates, Outgoing, is_key_refusal};
use crate::error::ApiError;
use crate::forward;
use crate::journal::Recorded;
use crate::open_chat::{Ending, OpenChat, Recording, error};
use crate::request::{ChatRequest, InvalidRequest, Surface};
use crate::rewrite;
use crate::routing::Choice;
use crate::tap::{Expected, Tap, UsageChunk};
use crate::thread;
use crate::transcript::Transcript;
use crate::upstream::{Upstream, UpstreamBody, UpstreamError};
use crate::upstreams::{InForce, Upstreams};

/// The largest error body that is read where it cannot be passed on.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// What serves chats.
#[derive(Debug)]
pub struct Chats {
    /// How they are put on the record.
    pub recording: Arc<Recording>,
    /// Who answers.
    pub upstreams: Arc<Upstreams>,
    /// How conversation ids are made and checked.
    pub conversations: ConversationKeys,
    /// The bounds.
    pub limits: Limits,
    /// How long a start may take to become durable.
    pub patience: std::time::Duration,
    /// A place for each chat that may run at once.
    pub places: Arc<Semaphore>,
}

impl Chats {
    /// Serves one chat.
    pub async fn serve(
        &self,
        caller: Caller,
        surface: Surface,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response, ApiError> {
        let in_force = self.upstreams.in_force();
        let mut request = parse(body, surface, &in_force)?;
        let route = in_force.route(&request.model).ok_or_else(|| ApiError::model_not_found(&request.model))?;
        let candidates = Candidates::new(&in_force, route, request.dialect)
            .ok_or_else(|| ApiError::model_not_found(&request.model))?;
        let conversation = self.conversation(&caller, &request, headers)?;
        if !self.recording.journal.is_available() {
            return Err(ApiError::cannot_record());
        }
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| ApiError::too_many_chats())?;

        let (mut chat, started) = OpenChat::admit(&self.recording, caller.user, conversation, &mut request, permit);
        if started.refusal().is_some() {
            chat.never_began();
            return Err(ApiError::cannot_record());
        }
        let outgoing = Outgoing {
            method: &Method::POST,
            path: surface.path(),
            headers: &forward::to_upstream(headers),
            body: &|upstream, choice| body_for(&request, asks_for_usage(&self.recording, upstream), choice),
        };
        let sending = candidates.send(&outgoing, &self.recording.metrics, &mut chat.attempts);
        let (started, answer) = tokio::join!(self.durable(started), sending);

        let ids = forward::Ids::of(&chat, headers);
        let mut response = match (started, answer) {
            (Err(refusal), _) => {
                let failure = error("journal_unavailable", "the start could not be made durable");
                fail(&mut chat, FailureStage::UpstreamConnect, failure).detach();
                Err(refusal)
            }
            (Ok(()), Err(failure)) => self.unanswered(chat, &failure).await,
            (Ok(()), Ok(answer)) if is_key_refusal(answer.response.status()) => self.key_refused(chat, answer).await,
            (Ok(()), Ok(answer)) => Ok(self.answered(chat, &request, answer)),
        }
        .unwrap_or_else(axum::response::IntoResponse::into_response);
        ids.put_on(response.headers_mut());
        Ok(response)
    }

    /// The conversation that a chat belongs to, how it came by it, and the client's own name for it.
    fn conversation(
        &self,
        caller: &Caller,
        request: &ChatRequest,
        headers: &HeaderMap,
    ) -> Result<(ConversationId, ConversationOrigin, Option<String>), ApiError> {
        let open = |id: &str| self.conversations.open(&caller.user, id);
        if let Some(named) = &request.conversation_id {
            let id = open(named).ok_or_else(ApiError::no_such_conversation)?;
            return Ok((id, ConversationOrigin::Given, None));
        }
        let Some(thread) = thread::named_in(headers).or(request.thread.as_deref()) else {
            let id = self.conversations.mint(&caller.user, shared::event::now());
            return Ok((id, ConversationOrigin::Minted, None));
        };
        match open(thread) {
            Some(id) => Ok((id, ConversationOrigin::Given, None)),
            // It looks like one of ours, so it is not a name of the client's own making.
            None if thread::looks_like_ours(thread) => Err(ApiError::no_such_conversation()),
            None => {
                let id = self.conversations.derive(&caller.user, thread);
                Ok((id, ConversationOrigin::Derived, Some(thread.to_owned())))
            }
        }
    }

    /// Waits for a start to become durable, within reason.
    pub async fn durable(&self, started: Recorded) -> Result<(), ApiError> {
        match timeout(self.patience, started).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ApiError::cannot_record()),
        }
    }

    fn answered(&self, mut chat: OpenChat, request: &ChatRequest, answered: Answered) -> Response {
        let Answered { upstream, response: answer } = answered;
        chat.answered_by(upstream.name());
        let kind = AnswerKind {
            status: answer.status().as_u16(),
            ends_with_connection: UpstreamBody::ends_with_connection(&answer),
        };
        let strips_usage = request.strips_usage && asks_for_usage(&self.recording, &upstream);
        let (idle_timeout, total_timeout) = (upstream.settings.idle_timeout, upstream.settings.total_timeout);
        let limits = Limits { idle_timeout, total_timeout, ..self.limits };
        let expected = if kind.status < 300 { Expected::Answer } else { Expected::Error };
        let usage_chunk = if strips_usage { UsageChunk::TakenOut } else { UsageChunk::Passes };
        let tap = Tap::new(Fold::new(request.dialect), expected, usage_chunk);
        let (head, body) = answer.into_parts();
        let mut response = Response::new(Body::new(Answer::new(body, tap, chat, kind, &limits)));
        *response.status_mut() = head.status;
        *response.headers_mut() = forward::to_client(head.headers);
        response
    }

    /// Nobody answered.
    async fn unanswered(&self, mut chat: OpenChat, failure: &UpstreamError) -> Result<Response, ApiError> {
        let said = error(failure.code(), &failure.to_string());
        let ended = fail(&mut chat, FailureStage::UpstreamConnect, said);
        ended.line.log(ended.recorded.await);
        Err(failure.into())
    }

    /// The upstream did not accept the gateway's own key. What it said may repeat part of that key, so it goes no further
    /// than the record.
    async fn key_refused(&self, mut chat: OpenChat, answered: Answered) -> Result<Response, ApiError> {
        let Answered { upstream, response: answer } = answered;
        chat.answered_by(upstream.name());
        let status = answer.status().as_u16();
        let body = timeout(self.limits.read_timeout, answer.into_body().collect(MAX_ERROR_BYTES)).await;
        let mut said = error_body(status, &body.ok().flatten().unwrap_or_default());
        said.message = upstream.redact(&said.message);
        let ended = fail(&mut chat, FailureStage::UpstreamStatus, said);
        ended.line.log(ended.recorded.await);
        Err(ApiError::upstream_refused_key())
    }
}

/// Reads the request; a frontend that names no model gets the deployment's.
fn parse(body: &Bytes, surface: Surface, in_force: &InForce) -> Result<ChatRequest, InvalidRequest> {
    match (ChatRequest::parse(body, surface), &in_force.table.default_model) {
        (Err(error), Some(model))
            if surface == Surface::Frontend && error.param == Some("model") && !rewrite::has_member(body, "model") =>
        {
            ChatRequest::parse(&rewrite::with_member(body, "model", &model.as_str().into()), surface)
        }
        (parsed, _) => parsed,
    }
}

/// Whether the usage is wanted, and may be asked for. Where nothing is recorded, nothing is read either, so that what was
/// asked for could not be taken out again.
fn asks_for_usage(recording: &Recording, upstream: &Upstream) -> bool {
    recording.journal.is_on() && upstream.settings.ask_for_usage
}

/// The body as this upstream is to get it.
fn body_for(request: &ChatRequest, asks_for_usage: bool, choice: &Choice) -> Bytes {
    let body = if asks_for_usage { request.forward.clone() } else { request.without_usage_asked() };
    match &choice.model {
        Some(model) => rewrite::with_member(&body, "model", &model.as_str().into()),
        None => body,
    }
}

fn fail(chat: &mut OpenChat, stage: FailureStage, failure: ChatError) -> crate::open_chat::EndedChat {
    chat.end(Ending::Failed(stage, failure), Transcript::default(), Usage::default())
}
