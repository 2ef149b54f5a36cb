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
use crate::chat::disconnect::DisconnectPolicy;
use crate::chat::ended_chat::EndedChat;
use crate::chat::open_chat::{ChatAdmission, ChatEnding, OpenChat, Recording};
use crate::chat::response_body::{BodyFraming, ResponseBody};
use crate::chat::response_ids::ResponseIds;
use crate::error::ApiError;
use crate::headers;
use crate::idempotency::{self, Claim, IdempotencyKeys};
use crate::journal::Recorded;
use crate::json::edit;
use crate::limits::Limits;
use crate::request::conversation_id::ConversationKeys;
use crate::request::ui_message::{self, UiRequest};
use crate::request::{ApiSurface, ChatRequest, InvalidRequest};
use crate::request::{caller_metadata, thread_id};
use crate::response::content_encoding::{self, ContentEncoding};
use crate::response::dialect::{Fold, parse_error_body};
use crate::response::tap::{ExpectedBody, Tap, UsageChunkPolicy};
use crate::response::transcript::Transcript;
use crate::response::ui_stream::UiStream;
use crate::routing::{OnDisconnect, RouteUpstream};
use crate::upstream::body::UpstreamBody;
use crate::upstream::dispatch::{Candidates, OutgoingRequest, UpstreamResponse, UsageOption};
use crate::upstream::error::UpstreamError;
use crate::upstream::registry::{RoutingSnapshot, UpstreamRegistry};

/// The largest error body that is read where it cannot be passed on.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// What serves chats.
#[derive(Debug)]
pub struct ChatPipeline {
    /// How they are put on the record.
    pub recording: Arc<Recording>,
    /// Who answers.
    pub upstreams: Arc<UpstreamRegistry>,
    /// How conversation ids are made and checked.
    pub conversations: ConversationKeys,
    /// The bounds.
    pub limits: Limits,
    /// How long a start may take to become durable.
    pub start_timeout: std::time::Duration,
    /// A place for each chat that may run at once.
    pub permits: Arc<Semaphore>,
    /// What happens when clients leave.
    pub disconnect_policy: DisconnectPolicy,
    /// Which chats idempotency keys belong to.
    pub keys: Arc<IdempotencyKeys>,
}

/// A chat on its way to an upstream.
struct AdmittedChat {
    snapshot: Arc<RoutingSnapshot>,
    /// The place of its route.
    route_index: usize,
    request: ChatRequest,
    path: &'static str,
    headers: HeaderMap,
    response_ids: ResponseIds,
    ui_stream: Option<UiStream>,
    chat: OpenChat,
    started: Recorded,
}

impl ChatPipeline {
    /// Serves one chat.
    pub async fn serve(
        self: &Arc<Self>,
        caller: Caller,
        surface: ApiSurface,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response, ApiError> {
        let snapshot = self.upstreams.snapshot();
        let (mut request, ui) = parse(body, surface, &snapshot)?;
        if request.is_background {
            return Err(ApiError::unsupported_background());
        }
        let route_index =
            snapshot.table.route_index(&request.model).ok_or_else(|| ApiError::model_not_found(&request.model))?;
        if !snapshot.serves(route_index, request.dialect) {
            return Err(ApiError::model_not_found(&request.model));
        }
        let on_disconnect =
            self.disconnect_policy.resolve(headers, snapshot.table.routes[route_index].on_disconnect)?;
        let caller_metadata = caller_metadata::parse(&request.parameters, headers)?;
        let conversation = self.resolve_conversation(&caller, &request, headers)?;
        if !self.recording.journal.is_available() {
            return Err(ApiError::journal_unavailable());
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| ApiError::too_many_chats())?;
        let id = ChatId::mint();
        let (claim, note) = self.claim(&caller.user, headers, (id, conversation.0), body).await?;

        let ui_stream =
            ui.map(|ui| UiStream::new(ui.continued_message_id.unwrap_or_else(|| id.assistant_message().to_string())));
        let admission = ChatAdmission { id, conversation, caller_metadata, claim, on_disconnect, note };
        let (chat, started) = OpenChat::admit(&self.recording, caller.user, admission, &mut request, permit);
        if started.refusal().is_some() {
            chat.cancel_unstarted();
            return Err(ApiError::journal_unavailable());
        }
        let admitted = AdmittedChat {
            snapshot,
            route_index,
            path: surface.path(),
            headers: headers::for_upstream(headers),
            response_ids: ResponseIds::new(&chat, headers),
            request,
            ui_stream,
            chat,
            started,
        };
        Ok(match on_disconnect {
            OnDisconnect::Cancel => Box::pin(self.run(admitted)).await,
            // In a task of its own, it goes on if the client leaves before there is an answer to go on with.
            OnDisconnect::Drain(_) => {
                let (this, drains) = (Arc::clone(self), self.recording.drains.clone());
                let running = async move {
                    tokio::select! {
                        response = this.run(admitted) => response,
                        () = drains.stopped() => ApiError::gateway_stopped().into_response(),
                    }
                };
                let done = self.recording.drains.spawn(running).await;
                done.unwrap_or_else(|_| ApiError::gateway_stopped().into_response())
            }
        })
    }

    /// From the upstream's call to the answer's first byte.
    async fn run(&self, admitted: AdmittedChat) -> Response {
        let AdmittedChat { snapshot, route_index, request, path, headers, response_ids, ui_stream, mut chat, started } =
            admitted;
        let outgoing = OutgoingRequest {
            method: &Method::POST,
            path,
            headers: &headers,
            // Where nothing is recorded, nothing is read either, so that what was asked for could not be taken out again.
            may_add_usage_option: request.added_usage_option && self.recording.journal.is_enabled(),
            body: &|upstream, usage_option| upstream_body(&request, usage_option, upstream),
        };
        let (started, answer) = match Candidates::new(&snapshot, &snapshot.table.routes[route_index], request.dialect) {
            Some(candidates) => {
                let sending = candidates.send(&outgoing, &self.recording.metrics, &mut chat.attempts);
                tokio::join!(self.wait_until_written(started), sending)
            }
            // Looked for before the chat was admitted.
            None => (self.wait_until_written(started).await, Err(UpstreamError::ConnectTimeout)),
        };
        let mut response = match (started, answer) {
            (Err(refusal), _) => {
                let failure = ChatError::new("journal_unavailable", "the start could not be made durable");
                end_failed(&mut chat, FailureStage::UpstreamConnect, failure).detach();
                Err(refusal)
            }
            (Ok(started), answer) => {
                chat.started = started;
                match answer {
                    Err(failure) => self.fail_unanswered(chat, &failure).await,
                    Ok(answer) => self.respond(chat, &request, ui_stream, answer).await,
                }
            }
        }
        .unwrap_or_else(axum::response::IntoResponse::into_response);
        response_ids.insert_into(response.headers_mut());
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
        let Some(key) = idempotency::key_from_headers(headers)? else { return Ok((None, None)) };
        let fingerprint = idempotency::fingerprint(body);
        // In a place of its own: most chats bring no key.
        match Box::pin(self.keys.claim(idempotency::KeyHash::new(user, key), ids, fingerprint)).await {
            Ok((claim, note)) => Ok((Some(claim), note)),
            Err(taken) if taken.fingerprint != fingerprint => Err(ApiError::idempotency_key_reused(&taken)),
            Err(taken) => Err(ApiError::idempotency_key_taken(&taken)),
        }
    }

    /// The conversation that a chat belongs to, how it came by it, and the client's own name for it.
    fn resolve_conversation(
        &self,
        caller: &Caller,
        request: &ChatRequest,
        headers: &HeaderMap,
    ) -> Result<(ConversationId, ConversationOrigin, Option<String>), ApiError> {
        let verify = |id: &str| self.conversations.verify(&caller.user, id);
        if let Some(named) = &request.conversation_id {
            let id = verify(named).ok_or_else(ApiError::no_such_conversation)?;
            return Ok((id, ConversationOrigin::Given, None));
        }
        let Some(thread) = thread_id::from_headers(headers).or(request.thread_id.as_deref()) else {
            let id = self.conversations.mint(&caller.user, shared::event::now());
            return Ok((id, ConversationOrigin::Minted, None));
        };
        match verify(thread) {
            Some(id) => Ok((id, ConversationOrigin::Given, None)),
            // It looks like one of ours, so it is not a name of the client's own making.
            None if thread_id::looks_like_conversation_id(thread) => Err(ApiError::no_such_conversation()),
            None => {
                let id = self.conversations.derive(&caller.user, thread);
                Ok((id, ConversationOrigin::Derived, Some(thread.to_owned())))
            }
        }
    }

    /// Waits until a start survives this process, within reason: then the answer may begin. What more is asked of it is
    /// returned, for the end to wait for.
    async fn wait_until_written(&self, started: Recorded) -> Result<Option<Recorded>, ApiError> {
        if started.is_written() {
            return Ok(Some(started));
        }
        self.wait_until_durable(started).await.map(|()| None)
    }

    /// Waits for an event to become durable, within reason.
    pub async fn wait_until_durable(&self, recorded: Recorded) -> Result<(), ApiError> {
        match timeout(self.start_timeout, recorded).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ApiError::journal_unavailable()),
        }
    }

    async fn respond(
        &self,
        mut chat: OpenChat,
        request: &ChatRequest,
        ui_stream: Option<UiStream>,
        answered: UpstreamResponse,
    ) -> Result<Response, ApiError> {
        if let Some(replacement) = ApiError::replacing_status(answered.response.status()) {
            // In a place of its own, as few answers come to this.
            return Err(Box::pin(self.fail_withheld(chat, answered, replacement)).await);
        }
        let UpstreamResponse { upstream, response: answer, usage_option } = answered;
        chat.set_upstream(upstream.name());
        let (idle_timeout, total_timeout) = (upstream.settings.idle_timeout, upstream.settings.total_timeout);
        let limits = Limits { idle_timeout, total_timeout, ..self.limits };
        let status = answer.status();
        let expected = if status.as_u16() < 300 { ExpectedBody::Answer } else { ExpectedBody::Error };
        let usage_chunk = match usage_option {
            UsageOption::Added => UsageChunkPolicy::Remove,
            UsageOption::NotAdded => UsageChunkPolicy::Forward,
        };
        let encoding = ContentEncoding::from_headers(answer.headers());
        let mut tap = Tap::new(Fold::new(request.dialect), expected, usage_chunk).with_encoding(encoding);
        let is_empty = answer.body().is_empty() || matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
        let ends_with_connection = !is_empty && UpstreamBody::ends_with_connection(&answer);
        let (head, body) = answer.into_parts();
        let mut headers = headers::for_client(head.headers);
        if tap.may_remove_bytes() {
            headers.remove(CONTENT_LENGTH);
        }
        // An error is the same to every client.
        if let Some(ui) = ui_stream.filter(|_| expected == ExpectedBody::Answer) {
            tap = tap.with_ui_stream(ui);
            headers = headers::for_ui_stream(headers);
        }
        let is_event_stream = headers::is_event_stream(&headers);
        let framing = BodyFraming { status: status.as_u16(), ends_with_connection, is_event_stream };
        let answer = ResponseBody::new(body, tap, chat, framing, &limits);
        let body = if is_empty {
            headers.remove(CONTENT_LENGTH);
            let body = Box::pin(answer.collect()).await.map_err(|_| ApiError::journal_unavailable())?;
            if status == StatusCode::OK || !status.is_success() { Body::from(body) } else { Body::empty() }
        } else {
            Body::new(answer)
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Nobody answered.
    async fn fail_unanswered(&self, mut chat: OpenChat, failure: &UpstreamError) -> Result<Response, ApiError> {
        let error = ChatError::new(failure.code(), &failure.to_string());
        let ended = end_failed(&mut chat, FailureStage::UpstreamConnect, error);
        ended.log_line.log(ended.pending.await);
        Err(failure.into())
    }

    /// The upstream's response is none of the client's business, which is told this instead: the response may repeat part of
    /// the gateway's own key, or lead past the gateway. It goes no further than the record.
    async fn fail_withheld(&self, mut chat: OpenChat, answered: UpstreamResponse, replacement: ApiError) -> ApiError {
        let UpstreamResponse { upstream, response: answer, .. } = answered;
        chat.set_upstream(upstream.name());
        let (status, encoding) = (answer.status().as_u16(), ContentEncoding::from_headers(answer.headers()));
        let body = timeout(self.limits.read_timeout, answer.into_body().collect(MAX_ERROR_BYTES)).await;
        let mut error =
            parse_error_body(status, &content_encoding::decode_body(encoding, body.ok().flatten().unwrap_or_default()));
        error.message = upstream.redact(&error.message);
        let ended = end_failed(&mut chat, FailureStage::UpstreamStatus, error);
        ended.log_line.log(ended.pending.await);
        replacement
    }
}

/// Reads the request. A frontend may speak the AI SDK's language, and one that names no model gets the deployment's.
fn parse(
    body: &Bytes,
    surface: ApiSurface,
    snapshot: &RoutingSnapshot,
) -> Result<(ChatRequest, Option<UiRequest>), InvalidRequest> {
    let ui = if surface == ApiSurface::Frontend { ui_message::parse(body)? } else { None };
    let body = ui.as_ref().map_or(body, |ui| &ui.body);
    let mut request = match (ChatRequest::parse(body, surface), &snapshot.table.default_model) {
        (Err(error), Some(model))
            if surface == ApiSurface::Frontend && error.param == Some("model") && !edit::has_member(body, "model") =>
        {
            ChatRequest::parse(&edit::with_member(body, "model", &model.as_str().into()), surface)?
        }
        (parsed, _) => parsed?,
    };
    if let Some(ui) = &ui {
        request.thread_id = ui.thread_id.clone().or(request.thread_id);
        if ui.is_regeneration {
            request.new_message = None;
        }
    }
    Ok((request, ui))
}

/// The body as this upstream is to get it.
fn upstream_body(request: &ChatRequest, usage_option: UsageOption, upstream: &RouteUpstream) -> Bytes {
    let body = match usage_option {
        UsageOption::Added => request.upstream_body.clone(),
        UsageOption::NotAdded => request.body_without_usage_option(),
    };
    match &upstream.model {
        Some(model) => edit::with_member(&body, "model", &model.as_str().into()),
        None => body,
    }
}

fn end_failed(chat: &mut OpenChat, stage: FailureStage, failure: ChatError) -> EndedChat {
    chat.end(ChatEnding::Failed(stage, failure), Transcript::default(), Usage::default())
}
