//! The pipeline: one chat from its request to the answer's body. It reads like the flow in ARCHITECTURE.md.

pub mod disconnect;
pub mod ended_chat;
pub mod open_chat;
pub mod response_body;
pub mod response_ids;

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode};
use shared::event::{ChatError, ConversationOrigin, FailureStage};
use shared::id::{ChatId, ConversationId, UserId};
use shared::usage::Usage;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::auth::Caller;
use crate::chat::disconnect::LeavingRule;
use crate::chat::ended_chat::EndedChat;
use crate::chat::open_chat::{Admission, Ending, OpenChat, Recording};
use crate::chat::response_body::{Answer, AnswerKind};
use crate::chat::response_ids::Ids;
use crate::error::ApiError;
use crate::headers;
use crate::idempotency::{self, Claim, Idempotency};
use crate::journal::Recorded;
use crate::json::edit;
use crate::limits::Limits;
use crate::request::conversation_id::ConversationKeys;
use crate::request::ui_message::{self, UiRequest};
use crate::request::{ChatRequest, InvalidRequest, Surface};
use crate::request::{caller_metadata, thread_id};
use crate::response::content_encoding::{self, Encoding};
use crate::response::dialect::{Fold, error_body};
use crate::response::tap::{Expected, Tap, UsageChunk};
use crate::response::transcript::Transcript;
use crate::response::ui_stream::UiStream;
use crate::routing::{Choice, Leaving};
use crate::upstream::body::UpstreamBody;
use crate::upstream::dispatch::{Answered, Candidates, Outgoing, UsageAsked};
use crate::upstream::error::UpstreamError;
use crate::upstream::registry::{InForce, Upstreams};

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
    /// What happens when clients leave.
    pub leaving: LeavingRule,
    /// Which chats idempotency keys belong to.
    pub keys: Arc<Idempotency>,
}

/// A chat on its way to an upstream.
struct Course {
    in_force: Arc<InForce>,
    /// The place of its route.
    route: usize,
    request: ChatRequest,
    path: &'static str,
    headers: HeaderMap,
    ids: Ids,
    telling: Option<UiStream>,
    chat: OpenChat,
    started: Recorded,
}

impl Chats {
    /// Serves one chat.
    pub async fn serve(
        self: &Arc<Self>,
        caller: Caller,
        surface: Surface,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response, ApiError> {
        let in_force = self.upstreams.in_force();
        let (mut request, ui) = parse(body, surface, &in_force)?;
        if request.is_for_later {
            return Err(ApiError::unsupported_background());
        }
        let route = in_force.table.route(&request.model).ok_or_else(|| ApiError::model_not_found(&request.model))?;
        if !in_force.serves(route, request.dialect) {
            return Err(ApiError::model_not_found(&request.model));
        }
        let leaving = self.leaving.of(headers, in_force.table.routes[route].leaving)?;
        let caller_metadata = caller_metadata::read(&request.parameters, headers)?;
        let conversation = self.conversation(&caller, &request, headers)?;
        if !self.recording.journal.is_available() {
            return Err(ApiError::cannot_record());
        }
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| ApiError::too_many_chats())?;
        let id = ChatId::mint();
        let (claim, note) = self.claim(&caller.user, headers, (id, conversation.0), body).await?;

        let telling = ui.map(|ui| UiStream::new(ui.continues.unwrap_or_else(|| id.assistant_message().to_string())));
        let admission = Admission { id, conversation, caller_metadata, claim, leaving, note };
        let (chat, started) = OpenChat::admit(&self.recording, caller.user, admission, &mut request, permit);
        if started.refusal().is_some() {
            chat.never_began();
            return Err(ApiError::cannot_record());
        }
        let course = Course {
            in_force,
            route,
            path: surface.path(),
            headers: headers::to_upstream(headers),
            ids: Ids::of(&chat, headers),
            request,
            telling,
            chat,
            started,
        };
        Ok(match leaving {
            Leaving::Cancel => Box::pin(self.run(course)).await,
            // In a task of its own, it goes on if the client leaves before there is an answer to go on with.
            Leaving::Drain(_) => {
                let (this, drains) = (Arc::clone(self), self.recording.drains.clone());
                let running = async move {
                    tokio::select! {
                        response = this.run(course) => response,
                        () = drains.stopped() => ApiError::stopping().into_response(),
                    }
                };
                let done = self.recording.drains.spawn(running).await;
                done.unwrap_or_else(|_| ApiError::stopping().into_response())
            }
        })
    }

    /// From the upstream's call to the answer's first byte.
    async fn run(&self, course: Course) -> Response {
        let Course { in_force, route, request, path, headers, ids, telling, mut chat, started } = course;
        let outgoing = Outgoing {
            method: &Method::POST,
            path,
            headers: &headers,
            // Where nothing is recorded, nothing is read either, so that what was asked for could not be taken out again.
            may_ask_for_usage: request.strips_usage && self.recording.journal.is_on(),
            body: &|choice, asked| body_for(&request, asked, choice),
        };
        let (started, answer) = match Candidates::new(&in_force, &in_force.table.routes[route], request.dialect) {
            Some(candidates) => {
                let sending = candidates.send(&outgoing, &self.recording.metrics, &mut chat.attempts);
                tokio::join!(self.begun(started), sending)
            }
            // Looked for before the chat was admitted.
            None => (self.begun(started).await, Err(UpstreamError::ConnectTimeout)),
        };
        let mut response = match (started, answer) {
            (Err(refusal), _) => {
                let failure = ChatError::new("journal_unavailable", "the start could not be made durable");
                fail(&mut chat, FailureStage::UpstreamConnect, failure).detach();
                Err(refusal)
            }
            (Ok(started), answer) => {
                chat.started = started;
                match answer {
                    Err(failure) => self.unanswered(chat, &failure).await,
                    Ok(answer) => self.answered(chat, &request, telling, answer).await,
                }
            }
        }
        .unwrap_or_else(axum::response::IntoResponse::into_response);
        ids.put_on(response.headers_mut());
        response
    }

    /// Claims the idempotency key that the request brings, if it does; or says whose it is. Also what is to be noted of that.
    async fn claim(
        &self,
        user: &UserId,
        headers: &HeaderMap,
        ids: (ChatId, ConversationId),
        body: &Bytes,
    ) -> Result<(Option<Claim>, Option<&'static str>), ApiError> {
        let Some(key) = idempotency::key_in(headers)? else { return Ok((None, None)) };
        let fingerprint = idempotency::fingerprint(body);
        // In a place of its own: most chats bring no key.
        match Box::pin(self.keys.claim(idempotency::Token::new(user, key), ids, fingerprint)).await {
            Ok((claim, note)) => Ok((Some(claim), note)),
            Err(taken) if taken.fingerprint != fingerprint => Err(ApiError::idempotency_key_reused(&taken)),
            Err(taken) => Err(ApiError::idempotency_key_taken(&taken)),
        }
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
        let Some(thread) = thread_id::named_in(headers).or(request.thread.as_deref()) else {
            let id = self.conversations.mint(&caller.user, shared::event::now());
            return Ok((id, ConversationOrigin::Minted, None));
        };
        match open(thread) {
            Some(id) => Ok((id, ConversationOrigin::Given, None)),
            // It looks like one of ours, so it is not a name of the client's own making.
            None if thread_id::looks_like_ours(thread) => Err(ApiError::no_such_conversation()),
            None => {
                let id = self.conversations.derive(&caller.user, thread);
                Ok((id, ConversationOrigin::Derived, Some(thread.to_owned())))
            }
        }
    }

    /// Waits until a start survives this process, within reason: then the answer may begin. What more is asked of it is
    /// returned, for the end to wait for.
    async fn begun(&self, started: Recorded) -> Result<Option<Recorded>, ApiError> {
        if started.is_written() {
            return Ok(Some(started));
        }
        self.durable(started).await.map(|()| None)
    }

    /// Waits for an event to become durable, within reason.
    pub async fn durable(&self, recorded: Recorded) -> Result<(), ApiError> {
        match timeout(self.patience, recorded).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ApiError::cannot_record()),
        }
    }

    async fn answered(
        &self,
        mut chat: OpenChat,
        request: &ChatRequest,
        telling: Option<UiStream>,
        answered: Answered,
    ) -> Result<Response, ApiError> {
        if let Some(instead) = ApiError::in_place_of(answered.response.status()) {
            // In a place of its own, as few answers come to this.
            return Err(Box::pin(self.withheld(chat, answered, instead)).await);
        }
        let Answered { upstream, response: answer, asked } = answered;
        chat.answered_by(upstream.name());
        let (idle_timeout, total_timeout) = (upstream.settings.idle_timeout, upstream.settings.total_timeout);
        let limits = Limits { idle_timeout, total_timeout, ..self.limits };
        let status = answer.status();
        let expected = if status.as_u16() < 300 { Expected::Answer } else { Expected::Error };
        let usage_chunk = match asked {
            UsageAsked::ByUs => UsageChunk::TakenOut,
            UsageAsked::NotByUs => UsageChunk::Passes,
        };
        let encoding = Encoding::of(answer.headers());
        let mut tap = Tap::new(Fold::new(request.dialect), expected, usage_chunk).encoded(encoding);
        let is_empty = answer.body().is_empty() || matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
        let ends_with_connection = !is_empty && UpstreamBody::ends_with_connection(&answer);
        let (head, body) = answer.into_parts();
        let mut headers = headers::to_client(head.headers);
        if tap.may_take_out() {
            headers.remove(CONTENT_LENGTH);
        }
        // An error is the same to every client.
        if let Some(ui) = telling.filter(|_| expected == Expected::Answer) {
            tap = tap.told_to(ui);
            headers = headers::of_ui_stream(headers);
        }
        let is_event_stream = headers::is_event_stream(&headers);
        let kind = AnswerKind { status: status.as_u16(), ends_with_connection, is_event_stream };
        let answer = Answer::new(body, tap, chat, kind, &limits);
        let body = if is_empty {
            headers.remove(CONTENT_LENGTH);
            let whole = Box::pin(answer.whole()).await.map_err(|_| ApiError::cannot_record())?;
            if status == StatusCode::OK || !status.is_success() { Body::from(whole) } else { Body::empty() }
        } else {
            Body::new(answer)
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Nobody answered.
    async fn unanswered(&self, mut chat: OpenChat, failure: &UpstreamError) -> Result<Response, ApiError> {
        let said = ChatError::new(failure.code(), &failure.to_string());
        let ended = fail(&mut chat, FailureStage::UpstreamConnect, said);
        ended.line.log(ended.recorded.await);
        Err(failure.into())
    }

    /// The upstream's response is none of the client's business, which is told this instead: the response may repeat part of
    /// the gateway's own key, or lead past the gateway. It goes no further than the record.
    async fn withheld(&self, mut chat: OpenChat, answered: Answered, instead: ApiError) -> ApiError {
        let Answered { upstream, response: answer, .. } = answered;
        chat.answered_by(upstream.name());
        let (status, encoding) = (answer.status().as_u16(), Encoding::of(answer.headers()));
        let body = timeout(self.limits.read_timeout, answer.into_body().collect(MAX_ERROR_BYTES)).await;
        let mut said = error_body(status, &content_encoding::whole(encoding, body.ok().flatten().unwrap_or_default()));
        said.message = upstream.redact(&said.message);
        let ended = fail(&mut chat, FailureStage::UpstreamStatus, said);
        ended.line.log(ended.recorded.await);
        instead
    }
}

/// Reads the request. A frontend may speak the AI SDK's language, and one that names no model gets the deployment's.
fn parse(
    body: &Bytes,
    surface: Surface,
    in_force: &InForce,
) -> Result<(ChatRequest, Option<UiRequest>), InvalidRequest> {
    let ui = if surface == Surface::Frontend { ui_message::read(body)? } else { None };
    let body = ui.as_ref().map_or(body, |ui| &ui.body);
    let mut request = match (ChatRequest::parse(body, surface), &in_force.table.default_model) {
        (Err(error), Some(model))
            if surface == Surface::Frontend && error.param == Some("model") && !edit::has_member(body, "model") =>
        {
            ChatRequest::parse(&edit::with_member(body, "model", &model.as_str().into()), surface)?
        }
        (parsed, _) => parsed?,
    };
    if let Some(ui) = &ui {
        request.thread = ui.thread.clone().or(request.thread);
        if ui.is_repeated {
            request.new_message = None;
        }
    }
    Ok((request, ui))
}

/// The body as this upstream is to get it.
fn body_for(request: &ChatRequest, asked: UsageAsked, choice: &Choice) -> Bytes {
    let body = match asked {
        UsageAsked::ByUs => request.forward.clone(),
        UsageAsked::NotByUs => request.without_usage_asked(),
    };
    match &choice.model {
        Some(model) => edit::with_member(&body, "model", &model.as_str().into()),
        None => body,
    }
}

fn fail(chat: &mut OpenChat, stage: FailureStage, failure: ChatError) -> EndedChat {
    chat.end(Ending::Failed(stage, failure), Transcript::default(), Usage::default())
}
