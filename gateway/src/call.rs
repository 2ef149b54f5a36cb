//! The pipeline of a call that is no chat: text completions, embeddings, images, audio and others. The guarantees are those
//! of a chat, and so are the parts: the start is recorded first, the end is durable before the client sees the end, and each
//! admitted call has an outcome. A call belongs to no conversation.

pub mod body;
pub mod upload;

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, Uri};
use serde_json::value::RawValue;
use shared::event::{DialectName, Media, Operation};
use shared::fair_share::Place;
use shared::id::{ChatId, ConversationId};
use shared::usage::Usage;

use crate::auth::Caller;
use crate::call::body::CallBody;
use crate::call::upload::UploadFailure;
use crate::chat::chat_ending::ChatEnding;
use crate::chat::gateway_headers::GatewayHeaders;
use crate::chat::limited_call::LimitedCall;
use crate::chat::open_chat::{ChatAdmission, OpenChat};
use crate::chat::{ChatPipeline, TEXT_MENDED};
use crate::error::ApiError;
use crate::headers;
use crate::journal::Recorded;
use crate::request::ChatRequest;
use crate::request::call::CallRequest;
use crate::request::caller_metadata;
use crate::request::endpoint::Endpoint;
use crate::response::answer_start::AnswerKind;
use crate::response::dialect::Fold;
use crate::response::dialect::openai_call::CallFold;
use crate::response::transcript::Transcript;
use crate::routing::{OnDisconnect, Route};
use crate::upstream::dispatch::{Candidates, ExpectedAnswer, OutgoingRequest};
use crate::upstream::error::UpstreamError;
use crate::upstream::registry::RoutingSnapshot;

/// The place to which a call goes.
struct CallTarget {
    snapshot: Arc<RoutingSnapshot>,
    route: CallRoute,
    method: Method,
    /// The path below the upstream's base URL, with the query.
    path: String,
    operation: Operation,
    dialect: DialectName,
}

/// The route of a call, by its index in the routing table.
#[derive(Clone, Copy)]
enum CallRoute {
    /// The route of the model.
    Model(usize),
    /// The rule that lets the path pass.
    PassThrough(usize),
}

/// An admitted call: the start has been handed to the journal, and the request has not been sent to an upstream yet.
struct AdmittedCall {
    target: CallTarget,
    headers: HeaderMap,
    body: CallBody,
    fold: Fold,
    gateway_headers: GatewayHeaders,
    chat: OpenChat,
    started: Recorded,
}

/// A request to an endpoint that a rule of the routes file lets pass.
#[derive(Debug)]
pub struct PassThroughRequest<'a> {
    /// The method of the request.
    pub method: Method,
    /// The path and the query, beginning with `/v1`.
    pub uri: &'a Uri,
    /// The routing table with the rule.
    pub snapshot: Arc<RoutingSnapshot>,
    /// The index of the rule.
    pub rule: usize,
    /// The body of the request.
    pub body: CallBody,
}

impl CallTarget {
    fn route(&self) -> &Route {
        match self.route {
            CallRoute::Model(index) => &self.snapshot.table.routes[index],
            CallRoute::PassThrough(index) => &self.snapshot.table.pass_through[index].route,
        }
    }

    fn candidates(&self) -> Option<Candidates<'_>> {
        match self.route {
            CallRoute::Model(_) => Candidates::performing(&self.snapshot, self.route(), (self.operation, self.dialect)),
            CallRoute::PassThrough(_) => Candidates::any(&self.snapshot, self.route()),
        }
    }
}

impl ChatPipeline {
    /// Serves one call: finds route and idempotency key, records the start, and calls the upstream. `permit` is the place
    /// of the call among all chats.
    ///
    /// An `Err` means that the call was refused and no upstream was called. Later failures become an error response, and are
    /// recorded as the call's end.
    pub async fn serve_call(
        self: &Arc<Self>,
        caller: Caller,
        headers: &HeaderMap,
        (endpoint, call): (Endpoint, CallRequest),
        body: CallBody,
        permit: Place,
    ) -> Result<Response, ApiError> {
        let snapshot = self.upstreams.snapshot();
        let (path, operation) = (endpoint.path(&call.model).into_owned(), endpoint.operation());
        let dialect = endpoint.dialect();
        caller.check(operation, Some(&call.model))?;
        let route_index =
            snapshot.table.route_index(&call.model).ok_or_else(|| ApiError::model_not_found(&call.model))?;
        if !snapshot.performs(route_index, (operation, dialect)) {
            return Err(ApiError::model_not_found(&call.model));
        }
        let route = CallRoute::Model(route_index);
        let target = CallTarget { snapshot, route, method: Method::POST, path, operation, dialect };
        self.serve_target(caller, headers, target, call, body, permit).await
    }

    /// Serves a request that a rule of the routes file lets pass. Recorded are method, path, status and sizes.
    pub async fn serve_pass_through(
        self: &Arc<Self>,
        caller: Caller,
        headers: &HeaderMap,
        request: PassThroughRequest<'_>,
        permit: Place,
    ) -> Result<Response, ApiError> {
        let PassThroughRequest { method, uri, snapshot, rule, body } = request;
        caller.check(Operation::PassThrough, None)?;
        let path = uri.path_and_query().map_or(uri.path(), http::uri::PathAndQuery::as_str);
        let call = CallRequest::passing(method.as_str(), path);
        let target = CallTarget {
            snapshot,
            route: CallRoute::PassThrough(rule),
            method,
            // The base URL of the upstream ends with the version.
            path: path.strip_prefix("/v1").unwrap_or(path).to_owned(),
            operation: Operation::PassThrough,
            dialect: DialectName::Openai,
        };
        self.serve_target(caller, headers, target, call, body, permit).await
    }

    async fn serve_target(
        self: &Arc<Self>,
        caller: Caller,
        headers: &HeaderMap,
        target: CallTarget,
        call: CallRequest,
        body: CallBody,
        permit: Place,
    ) -> Result<Response, ApiError> {
        let operation = target.operation;
        let on_disconnect = self.disconnect_policy.resolve(headers, target.route().on_disconnect)?;
        let mode = self.recording.mode_of(&caller, target.route().recording, headers)?;
        let caller_metadata = caller_metadata::parse(&call.parameters, headers)?;
        if !self.recording.journal.is_available() {
            return Err(ApiError::journal_unavailable());
        }
        let id = ChatId::mint();
        // The claim needs a conversation, and a call has none.
        let ids = (id, ConversationId(uuid::Uuid::nil()));
        let model = matches!(target.route, CallRoute::Model(_)).then_some(call.model.as_str());
        let prompt = call.input.as_deref().unwrap_or(RawValue::NULL);
        let started_at = shared::event::now();
        let limited = LimitedCall {
            model,
            prompt,
            parameters: &call.parameters,
            is_streamed: false,
            route: (&target.snapshot, target.route()),
            started_at,
        };
        let limits = self.check_limits(&caller, &limited).await?;
        let (claim, note) = self.claim(&caller.user, headers, ids, body.known_bytes()).await?;

        let notes = note.into_iter().chain(call.text_was_mended.then_some(TEXT_MENDED)).collect();

        let fold = Fold::OpenaiCall(CallFold::new(operation, call.output_items));
        let media = Media { input_bytes: Some(body.length()), input_items: call.input_items, ..Media::default() };
        let admission = ChatAdmission {
            id,
            operation,
            conversation: None,
            caller_metadata,
            mode,
            trace: self.recording.trace_of(headers),
            claim,
            on_disconnect,
            notes,
            started_at,
            limits,
        };
        let mut request = ChatRequest::of_call(call, target.dialect);
        let (mut chat, mut started) = OpenChat::admit(&self.recording, caller, admission, &mut request, permit);
        chat.media = Some(media);
        let chat = self.wait_until_accepted(chat, &mut started).await?;
        let gateway_headers = GatewayHeaders::new(&chat, headers);
        let headers = headers::for_upstream(headers, target.route().billing_headers);
        let admitted = AdmittedCall { target, headers, body, fold, gateway_headers, chat, started };
        Ok(match on_disconnect {
            OnDisconnect::Cancel => Box::pin(self.run_call(admitted)).await,
            // Runs in a separate task, so that the call continues if the client leaves before the answer begins.
            OnDisconnect::Drain(_) => {
                let (this, drains) = (Arc::clone(self), self.recording.drains.clone());
                let running = async move {
                    tokio::select! {
                        response = this.run_call(admitted) => response,
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
    async fn run_call(&self, admitted: AdmittedCall) -> Response {
        let AdmittedCall { target, headers, body, fold, gateway_headers, mut chat, started } = admitted;
        let trace = chat.traceparent();
        let outgoing = OutgoingRequest {
            method: &target.method,
            path: &target.path,
            headers: &headers,
            trace: self.recording.tracer.kept(trace),
            answer: Some(ExpectedAnswer {
                kind: AnswerKind::Call(target.operation),
                max_silence: self.limits.keep_alive_comments.unwrap_or(Duration::MAX),
            }),
            may_add_usage_option: false,
            body: &|upstream, _| body.for_upstream(upstream),
        };
        let (started, answer) = match target.candidates() {
            Some(candidates) => {
                let sending = candidates.send(&outgoing, &self.recording.metrics, &mut chat.attempts);
                tokio::join!(self.wait_until_written(started, trace), sending)
            }
            // Unreachable: the upstreams of the route were checked before admission.
            None => (self.wait_until_written(started, trace).await, Err(UpstreamError::ConnectTimeout)),
        };
        if let Some(media) = &mut chat.media {
            media.input_bytes = Some(body.length());
        }
        let mut response = match (started, answer, body.failure()) {
            (Err(refusal), ..) => Err(self.fail_unrecorded(chat, refusal)),
            (Ok(started), Err(_), Some(failure)) => {
                chat.started = started;
                Err(self.fail_upload(chat, failure).await)
            }
            (Ok(started), Err(failure), None) => {
                chat.started = started;
                self.fail_unanswered(chat, &failure).await
            }
            (Ok(started), Ok(answer), _) => {
                chat.started = started;
                self.respond(chat, fold, None, answer).await
            }
        }
        .unwrap_or_else(axum::response::IntoResponse::into_response);
        gateway_headers.insert_into(response.headers_mut());
        response
    }

    /// Ends a call whose upload failed on the client's side. Returns the error for the client, if the client still listens.
    async fn fail_upload(&self, mut chat: OpenChat, failure: UploadFailure) -> ApiError {
        let ended = chat.end(ChatEnding::ClientGone, Transcript::default(), Usage::default());
        ended.log_line.log(ended.pending.await);
        match failure {
            UploadFailure::Broken => ApiError::body_unreadable(),
            UploadFailure::TooSlow => ApiError::body_timeout(),
            UploadFailure::TooLarge => ApiError::body_too_large(self.limits.max_body_bytes),
            UploadFailure::BadForm => ApiError::bad_form(),
        }
    }
}
