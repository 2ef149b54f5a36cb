//! The chat pipeline: one chat from the client's request to the body of the response. [`ChatPipeline::serve`] has the steps
//! of the flow in ARCHITECTURE.md, in the same order.

pub mod background;
pub mod background_chats;
mod budget_draw;
pub mod chat_ending;
pub mod conversation;
pub mod disconnect;
pub mod ended_chat;
pub mod gateway_headers;
pub mod large_request;
pub mod limit_check;
pub mod limited_call;
pub mod open_chat;
mod parsed_request;
pub mod passed_on;
pub mod places;
mod recorded_start;
pub mod recording;
pub mod response_body;
pub mod response_conversations;
pub mod response_state;
mod stopped_chat;
pub mod user_rates;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use shared::event::{ChatError, FailureStage, Operation};
use shared::fair_share::Place;
use shared::id::{ChatId, ConversationId, UserId};
use shared::usage::Usage;
use tokio::time::timeout;

use crate::auth::Caller;
use crate::chat::background_chats::BackgroundChats;
use crate::chat::chat_ending::ChatEnding;
use crate::chat::conversation::Conversations;
use crate::chat::disconnect::DisconnectPolicy;
use crate::chat::ended_chat::EndedChat;
use crate::chat::gateway_headers::GatewayHeaders;
use crate::chat::large_request::Turn;
use crate::chat::limited_call::LimitedCall;
use crate::chat::open_chat::{ChatAdmission, OpenChat};
use crate::chat::parsed_request::{parse, upstream_body};
use crate::chat::places::ChatPlaces;
use crate::chat::recording::Recording;
use crate::chat::response_body::{BodyFraming, ResponseBody};
use crate::chat::user_rates::UserRates;
use crate::error::ApiError;
use crate::grants::admission::Grants;
use crate::headers;
use crate::idempotency::{self, Claim, IdempotencyKeys};
use crate::journal::Recorded;
use crate::limits::Limits;
use crate::request::{ApiSurface, ChatRequest, caller_metadata};
use crate::response::answer_start::AnswerKind;
use crate::response::content_encoding::{self, ContentEncoding};
use crate::response::dialect::{Fold, parse_error_body};
use crate::response::tap::{ExpectedBody, Tap, UsageChunkPolicy};
use crate::response::transcript::Transcript;
use crate::response::ui_stream::UiStream;
use crate::routing::OnDisconnect;
use crate::upstream::body::UpstreamBody;
use crate::upstream::dispatch::{Candidates, ExpectedAnswer, OutgoingRequest, UpstreamResponse, UsageOption};
use crate::upstream::error::UpstreamError;
use crate::upstream::registry::{RoutingSnapshot, UpstreamRegistry};

/// The maximum size of an upstream's error body that is read for the record when the client must not get the response.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// The note of a chat whose request has text that is not valid Unicode: the record has U+FFFD in place of the broken text.
pub(crate) const TEXT_MENDED: &str = "text_mended";

/// The chat pipeline of the gateway, shared by all requests.
#[derive(Debug)]
pub struct ChatPipeline {
    /// The journal, metrics and background tasks that record chats.
    pub recording: Arc<Recording>,
    /// The routes and upstreams, replaced when the routes file is reloaded.
    pub upstreams: Arc<UpstreamRegistry>,
    /// The conversations of chats.
    pub conversations: Conversations,
    /// The limits on size, number and duration of requests and answers.
    pub limits: Limits,
    /// The maximum time for an event to become durable before the request is refused with 503.
    pub start_timeout: Duration,
    /// The places of chats that may run at once.
    pub places: ChatPlaces,
    /// The chats in the background that this gateway follows.
    pub background: BackgroundChats,
    /// What each user may do in a minute or a day.
    pub user_rates: UserRates,
    /// The deployment's policy for answers whose clients disconnect.
    pub disconnect_policy: DisconnectPolicy,
    /// The idempotency keys, and the chats that hold the keys.
    pub keys: Arc<IdempotencyKeys>,
    /// The limits of users, keys, projects and models.
    pub grants: Arc<Grants>,
}

/// An admitted chat: the start has been handed to the journal, and the request has not been sent to an upstream yet.
struct AdmittedChat {
    snapshot: Arc<RoutingSnapshot>,
    /// The index of the chat's route in the routing table.
    route_index: usize,
    request: ChatRequest,
    path: Cow<'static, str>,
    headers: HeaderMap,
    gateway_headers: GatewayHeaders,
    ui_stream: Option<UiStream>,
    chat: OpenChat,
    started: Recorded,
    /// A place for a chat whose answer the provider makes in the background.
    background: Option<Place>,
}

impl ChatPipeline {
    /// Serves one chat: parses the request, finds route, conversation and idempotency key, records the start, and calls the
    /// upstream. `place` is the chat's place, held until the chat has ended.
    ///
    /// An `Err` means that the chat was refused and no upstream was called. Later failures become an error response, and
    /// are recorded as the chat's end.
    pub async fn serve(
        self: &Arc<Self>,
        caller: Caller,
        surface: ApiSurface,
        headers: &HeaderMap,
        body: &Bytes,
        place: Place,
    ) -> Result<Response, ApiError> {
        let snapshot = self.upstreams.snapshot();
        let turn = Turn::of(body.len()).await;
        let (mut request, ui) = turn.run(|| parse(body, surface, &snapshot))?;
        let route_index =
            snapshot.table.route_index(&request.model).ok_or_else(|| ApiError::model_not_found(&request.model))?;
        if !snapshot.serves(route_index, request.dialect) {
            return Err(ApiError::model_not_found(&request.model));
        }
        caller.check(Operation::Chat, Some(&request.model))?;
        let on_disconnect =
            self.disconnect_policy.resolve(headers, snapshot.table.routes[route_index].on_disconnect)?;
        let mode = self.recording.mode_of(&caller, snapshot.table.routes[route_index].recording, headers)?;
        let caller_metadata = caller_metadata::parse(&request.parameters, headers)?;
        let conversation = self.conversations.resolve(&caller.user, &request, headers)?;
        if !self.recording.journal.is_available() {
            return Err(ApiError::journal_unavailable());
        }
        let id = ChatId::mint();
        let started_at = shared::event::now();
        let limited = LimitedCall {
            model: Some(&request.model),
            prompt: &request.messages,
            parameters: &request.parameters,
            is_streamed: request.stream,
            route: (&snapshot, &snapshot.table.routes[route_index]),
            started_at,
        };
        let limits = self.check_limits(&caller, &limited).await?;
        let is_followed = request.is_background && self.recording.journal.is_enabled();
        let background = is_followed.then(|| self.background.places.take(&caller.user)).transpose()?;
        let (claim, note) = self.claim(&caller.user, headers, (id, conversation.0), body).await?;
        let notes = note.into_iter().chain(request.text_was_mended.then_some(TEXT_MENDED)).collect();

        let ui_stream =
            ui.map(|ui| UiStream::new(ui.continued_message_id.unwrap_or_else(|| id.assistant_message().to_string())));
        let (operation, conversation) = (Operation::Chat, Some(conversation));
        let admission = ChatAdmission {
            id,
            operation,
            conversation,
            caller_metadata,
            mode,
            trace: self.recording.trace_of(headers),
            claim,
            on_disconnect,
            notes,
            started_at,
            limits,
        };
        let (chat, mut started) = turn.run(|| OpenChat::admit(&self.recording, caller, admission, &mut request, place));
        drop(turn);
        if let (Some(ui_stream), Some(running)) = (&ui_stream, chat.running()) {
            running.set_message(ui_stream.message_id());
        }
        let chat = self.wait_until_accepted(chat, &mut started).await?;
        let admitted = AdmittedChat {
            headers: headers::for_upstream(headers, snapshot.table.routes[route_index].billing_headers),
            snapshot,
            route_index,
            path: surface.path(&request.model),
            gateway_headers: GatewayHeaders::new(&chat, headers),
            request,
            ui_stream,
            chat,
            started,
            background,
        };
        Ok(match on_disconnect {
            OnDisconnect::Cancel if admitted.background.is_none() => Box::pin(self.run(admitted)).await,
            // Runs in a separate task, so that the call continues if the client leaves before the answer begins.
            OnDisconnect::Cancel | OnDisconnect::Drain(_) => {
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

    /// Sends the request to the upstream while the start is being written to the journal. Returns the response as soon as
    /// the head of the upstream's answer has arrived and the start is written.
    async fn run(self: &Arc<Self>, admitted: AdmittedChat) -> Response {
        let AdmittedChat {
            snapshot,
            route_index,
            request,
            path,
            headers,
            gateway_headers,
            ui_stream,
            mut chat,
            started,
            background,
        } = admitted;
        let outgoing = OutgoingRequest {
            method: &Method::POST,
            path: &path,
            headers: &headers,
            trace: self.recording.tracer.kept(chat.traceparent()),
            // Where silence is filled with comments, the head may not wait for longer than a comment would.
            answer: Some(ExpectedAnswer {
                kind: AnswerKind::Chat(request.dialect),
                max_silence: self.limits.keep_alive_comments.unwrap_or(Duration::MAX),
            }),
            // Without recording, answers are not parsed, so a usage chunk that the gateway asked for could not be removed
            // again.
            may_add_usage_option: request.added_usage_option && self.recording.journal.is_enabled(),
            body: &|upstream, usage_option| upstream_body(&request, usage_option, upstream).into(),
        };
        let (running, trace) = (chat.running().cloned(), chat.traceparent());
        let (started, answer) = match Candidates::new(&snapshot, &snapshot.table.routes[route_index], request.dialect) {
            Some(candidates) => {
                let sending = candidates.send(&outgoing, &self.recording.metrics, &mut chat.attempts);
                tokio::join!(self.wait_until_written(started, trace), stopped_chat::until_stopped(running, sending))
            }
            // Unreachable: `serve` has checked that an upstream of the route supports the dialect.
            None => (self.wait_until_written(started, trace).await, Some(Err(UpstreamError::ConnectTimeout))),
        };
        let mut response = match (started, answer) {
            (Err(refusal), _) => Err(self.fail_unrecorded(chat, refusal)),
            (Ok(started), answer) => {
                chat.started = started;
                match answer {
                    None => Err(stopped_chat::end(chat).await),
                    Some(Err(failure)) => self.fail_unanswered(chat, &failure).await,
                    Some(Ok(answer)) => match background {
                        Some(place) if !request.stream => {
                            Box::pin(self.respond_in_background(chat, place, answer)).await
                        }
                        place => {
                            chat.background = place.map(|place| self.background.streamed(place));
                            self.respond(chat, Fold::new(request.dialect), ui_stream, answer).await
                        }
                    },
                }
            }
        }
        .unwrap_or_else(axum::response::IntoResponse::into_response);
        gateway_headers.insert_into(response.headers_mut());
        response
    }

    /// Claims the idempotency key of the request, if the request has one. Returns the claim, and a note for the record if
    /// the key could not be checked with the other gateways. An error names the chat that holds the key already.
    pub(crate) async fn claim(
        &self,
        user: &UserId,
        headers: &HeaderMap,
        ids: (ChatId, ConversationId),
        body: &Bytes,
    ) -> Result<(Option<Claim>, Option<&'static str>), ApiError> {
        let Some(key) = idempotency::key_from_headers(headers)? else { return Ok((None, None)) };
        self.user_rates.count_idempotency_key(user)?;
        let fingerprint = idempotency::fingerprint(body);
        // Boxed: most chats bring no key, and should not carry this future.
        match Box::pin(self.keys.claim(idempotency::KeyHash::new(user, key), ids, fingerprint)).await {
            Ok((claim, note)) => Ok((Some(claim), note)),
            Err(taken) if taken.fingerprint != fingerprint => Err(ApiError::idempotency_key_reused(&taken)),
            Err(taken) => Err(ApiError::idempotency_key_taken(&taken)),
        }
    }

    /// Returns the response of the upstream, whose body ends the chat.
    pub(crate) async fn respond(
        &self,
        mut chat: OpenChat,
        fold: Fold,
        ui_stream: Option<UiStream>,
        answered: UpstreamResponse,
    ) -> Result<Response, ApiError> {
        if let Some(replacement) = ApiError::replacing_status(answered.response.status()) {
            // Boxed: this path is rare, and its future is large.
            return Err(Box::pin(self.fail_withheld(chat, answered, replacement)).await);
        }
        let UpstreamResponse { upstream, response: answer, usage_option, .. } = answered;
        chat.set_upstream(upstream.name());
        let (idle_timeout, total_timeout) = (upstream.settings.idle_timeout, upstream.settings.total_timeout);
        let limits = Limits { idle_timeout, total_timeout, ..self.limits };
        let status = answer.status();
        let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let expected =
            if status.as_u16() < 300 { ExpectedBody::of_answer(&fold, content_type) } else { ExpectedBody::Error };
        let usage_chunk = match usage_option {
            UsageOption::Added => UsageChunkPolicy::Remove,
            UsageOption::NotAdded | UsageOption::Probed => UsageChunkPolicy::Forward,
        };
        let encoding = ContentEncoding::from_headers(answer.headers());
        let mut tap = Tap::new(fold, expected, usage_chunk).with_encoding(encoding);
        let is_empty = answer.body().is_empty() || matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
        let ends_with_connection = !is_empty && UpstreamBody::ends_with_connection(&answer);
        let (head, body) = answer.into_parts();
        let mut headers = headers::for_client(head.headers);
        if tap.may_remove_bytes() {
            headers.remove(CONTENT_LENGTH);
        }
        // Only answers are translated for the UI message stream. Every client gets error bodies as the upstream sent them.
        if let Some(ui) = ui_stream.filter(|_| expected == ExpectedBody::Answer) {
            tap = tap.with_ui_stream(ui);
            headers = headers::for_ui_stream(headers);
        }
        let is_event_stream = headers::is_event_stream(&headers);
        let framing = BodyFraming { status: status.as_u16(), ends_with_connection, is_event_stream };
        let redactor = upstream.redactor();
        let probed = (usage_option == UsageOption::Probed).then_some(upstream);
        let answer = ResponseBody::new(body, tap, chat, framing, (&limits, redactor), probed);
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

    /// Ends a chat that got no response from any upstream. Returns the error for the client.
    pub(crate) async fn fail_unanswered(
        &self,
        mut chat: OpenChat,
        failure: &UpstreamError,
    ) -> Result<Response, ApiError> {
        let error = ChatError::new(failure.code(), &failure.to_string());
        let ended = end_failed(&mut chat, FailureStage::UpstreamConnect, error);
        ended.log_line.log(ended.pending.await);
        Err(failure.into())
    }

    /// Ends a chat whose upstream response must not reach the client: the response may repeat part of the gateway's own
    /// key, or redirect the client past the gateway. The error body is recorded with the key redacted. Returns
    /// `replacement`, the error for the client.
    async fn fail_withheld(&self, mut chat: OpenChat, answered: UpstreamResponse, replacement: ApiError) -> ApiError {
        let UpstreamResponse { upstream, response: answer, .. } = answered;
        chat.set_upstream(upstream.name());
        let (status, encoding) = (answer.status().as_u16(), ContentEncoding::from_headers(answer.headers()));
        let body = timeout(self.limits.read_timeout, answer.into_body().collect(MAX_ERROR_BYTES)).await;
        let mut error =
            parse_error_body(status, &content_encoding::decode_body(encoding, body.ok().flatten().unwrap_or_default()));
        error.message = upstream.redactor().redact_text(&error.message);
        let ended = end_failed(&mut chat, FailureStage::UpstreamStatus, error);
        ended.log_line.log(ended.pending.await);
        replacement
    }
}

fn end_failed(chat: &mut OpenChat, stage: FailureStage, failure: ChatError) -> EndedChat {
    chat.end(ChatEnding::Failed(stage, failure), Transcript::default(), Usage::default())
}
