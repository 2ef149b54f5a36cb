//! Answers that a provider makes in the background: Responses requests with `background: true`.
//!
//! The provider answers at once with a response that is queued. The gateway records that (`ChatDeferred`), gives the client the answer, and
//! follows the response until it has ended. A client that asks for the response sees its end only when the end is recorded: the request
//! records it, whichever gateway it reaches, if the record does not have it yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use shared::event::{ChatDeferred, ChatError, DialectName, FailureStage};
use shared::fair_share::Place;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::ChatPipeline;
use super::background_chats::FollowedChat;
use super::open_chat::{Deferral, OpenChat};
use super::passed_on::passed_on;
use super::response_state::{ResponseState, is_plain_id};
use super::stopped_chat;
use crate::error::ApiError;
use crate::headers;
use crate::response::content_encoding::{self, ContentEncoding};
use crate::response::dialect::Fold;
use crate::upstream::dispatch::{Candidates, OutgoingRequest, UpstreamResponse};
use crate::upstream::error::UpstreamError;

/// The first pause between two questions to a provider, and the longest. Each pause is half as long again as the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// The maximum size of a document that is read before it is passed on. A longer one has an answer, so it has ended.
const MAX_DOCUMENT_BYTES: usize = 24 << 20;

/// The maximum size of a whole answer.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// The maximum time for the head of an answer, for the document after it, and for an end to become durable.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A chat in the background, as a request for its response finds it.
#[derive(Debug)]
pub enum DeferredChat {
    /// This gateway follows the chat.
    Followed(Arc<FollowedChat>),
    /// The record has the chat.
    Recorded {
        /// The event that says where the answer is made.
        event: Box<ChatDeferred>,
        /// True if the record has an end that is not a presumption of a recorder.
        has_end: bool,
    },
}

impl ChatPipeline {
    /// Answers a request with `background: true`: with the response that the provider has queued, which is followed from here on. An answer
    /// that is there already is recorded as any other.
    pub(super) async fn respond_in_background(
        self: &Arc<Self>,
        mut chat: OpenChat,
        place: Place,
        mut answered: UpstreamResponse,
    ) -> Result<Response, ApiError> {
        let permit = self.background.reads.acquire().await.map_err(|_| ApiError::gateway_stopped())?;
        let state = self.state_of(&mut answered).await;
        drop(permit);
        let ResponseState::Pending(id) = state else {
            return self.respond(chat, Fold::new(DialectName::OpenaiResponses), None, answered).await;
        };
        if !is_plain_id(&id) {
            return self.respond(chat, Fold::new(DialectName::OpenaiResponses), None, answered).await;
        }
        chat.set_upstream(answered.upstream.name());
        let (event, recorded) = chat.defer(&id, place);
        if self.wait_until_durable(recorded).await.is_err() {
            tracing::warn!(
                chat = %event.chat_id,
                "the response in the background could not be recorded: only this process can follow it"
            );
        }
        self.follow(chat, event);
        Ok(passed_on(answered))
    }

    /// Follows a chat in a task of its own until it has ended.
    fn follow(self: &Arc<Self>, chat: OpenChat, event: Arc<ChatDeferred>) {
        let followed = self.background.insert(chat, event);
        let (this, stop) = (Arc::clone(self), self.background.stop.clone());
        self.background.tasks.spawn(async move {
            if stop.run_until_cancelled(this.ask_until_ended(&followed)).await.is_none()
                && let Some(chat) = followed.take()
            {
                chat.leave_open();
            }
            this.background.remove(&followed);
        });
    }

    /// Follows the chats that the previous process has left open, and those whose streams end early from now on.
    pub fn follow_deferred(self: &Arc<Self>, events: Vec<ChatDeferred>, mut deferrals: UnboundedReceiver<Deferral>) {
        let (this, stop) = (Arc::clone(self), self.background.stop.clone());
        self.background.tasks.spawn(async move {
            while let Some(Some((chat, event))) = stop.run_until_cancelled(deferrals.recv()).await {
                this.follow(chat, event);
            }
            deferrals.close();
            while let Ok((chat, _)) = deferrals.try_recv() {
                chat.leave_open();
            }
        });
        for event in events {
            // The chat has been admitted, so it goes on without a place if settings have changed.
            let place = self.background.places.take(&event.user_id).ok();
            self.follow(OpenChat::resume(&self.recording, &event, place), Arc::new(event));
        }
    }

    /// Asks the provider again and again, until the response has ended and the end is recorded.
    async fn ask_until_ended(self: &Arc<Self>, followed: &Arc<FollowedChat>) {
        let event = &followed.event;
        let age = Duration::try_from(shared::event::now() - event.started_at).unwrap_or_default();
        let deadline = Instant::now() + self.background.timeout.saturating_sub(age);
        let (mut pause, longest) = PAUSES;
        let mut is_gone = false;
        loop {
            tokio::select! {
                () = followed.ended.cancelled() => return,
                () = followed.stop_requested() => {
                    let (this, stopped) = (Arc::clone(self), Arc::clone(followed));
                    let _ = self.background.tasks.spawn(async move { this.stop_deferred(&stopped).await }).await;
                    return;
                }
                () = followed.ask_now.notified() => {}
                () = sleep(pause) => {}
            }
            pause = (pause + pause / 2).min(longest);
            let path = format!("/responses/{}", event.response_id);
            let answered = self.ask(&event.upstream, &Method::GET, &path, &HeaderMap::new()).await;
            let ended = match answered {
                Ok(mut answered) => {
                    let Ok(permit) = self.background.reads.acquire().await else { return };
                    match self.state_of(&mut answered).await {
                        ResponseState::Ended { .. } => Some((answered, permit)),
                        // A provider may not know a new response everywhere yet, so it is asked twice.
                        ResponseState::Gone if is_gone => Some((answered, permit)),
                        state => {
                            is_gone = state == ResponseState::Gone;
                            None
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(chat = %event.chat_id, code = error.code(), "a response in the background could not be asked for");
                    None
                }
            };
            if let Some((answered, _permit)) = ended {
                let Some(chat) = followed.take() else { return followed.ended.cancelled().await };
                let _ = self.end_in_task(chat, Some(Arc::clone(followed)), answered).await;
                return;
            }
            if Instant::now() >= deadline {
                let Some(mut chat) = followed.take() else { return followed.ended.cancelled().await };
                let _ended = followed.ended.clone().drop_guard();
                let error =
                    ChatError::new("background_timeout", "the response in the background was not there in time");
                let ended = super::end_failed(&mut chat, FailureStage::UpstreamStream, error);
                ended.log_line.log(ended.pending.await);
                return;
            }
        }
    }

    /// Ends a chat that its user has stopped, and tells the provider.
    async fn stop_deferred(&self, followed: &FollowedChat) {
        let Some(chat) = followed.take() else { return followed.ended.cancelled().await };
        let _ended = followed.ended.clone().drop_guard();
        let path = format!("/responses/{}/cancel", followed.event.response_id);
        let no_headers = HeaderMap::new();
        let cancelling = self.ask(&followed.event.upstream, &Method::POST, &path, &no_headers);
        if !matches!(timeout(READ_TIMEOUT, cancelling).await, Ok(Ok(answered)) if answered.response.status().is_success())
        {
            tracing::warn!(chat = %followed.event.chat_id, "the provider did not cancel a response that its user has stopped");
        }
        stopped_chat::end(chat).await;
    }

    /// Passes a request for the response of a chat in the background on to the provider. If the answer has the end of the response, the
    /// client gets the answer when the record has the end.
    pub async fn pass_on_deferred(
        self: &Arc<Self>,
        deferred: DeferredChat,
        (method, path, headers): (&Method, &str, &HeaderMap),
    ) -> Result<Response, ApiError> {
        let event = deferred.event();
        let mut headers = headers.clone();
        headers.remove(http::header::ACCEPT_ENCODING);
        let permit = async || self.background.reads.acquire().await.map_err(|_| ApiError::gateway_stopped());
        if method == Method::DELETE {
            // What is there already is recorded before it is gone.
            let own = format!("/responses/{}", event.response_id);
            let mut answered =
                self.ask(&event.upstream, &Method::GET, &own, &HeaderMap::new()).await.map_err(refusal)?;
            let _permit = permit().await?;
            if let ResponseState::Ended { has_answer } = self.state_of(&mut answered).await {
                self.end_deferred(&deferred, has_answer, answered).await?;
            }
        }
        let mut answered = self.ask(&event.upstream, method, path, &headers).await.map_err(refusal)?;
        let _permit = permit().await?;
        let state = self.state_of(&mut answered).await;
        if let DeferredChat::Followed(followed) = &deferred
            && (method == Method::DELETE || state == ResponseState::Gone)
        {
            followed.ask_now.notify_one();
        }
        if method == Method::DELETE {
            return Ok(passed_on(answered));
        }
        match state {
            ResponseState::Ended { has_answer } => self.end_deferred(&deferred, has_answer, answered).await,
            ResponseState::Unknown if answered.response.status().is_success() => Err(ApiError::response_unreadable()),
            ResponseState::Unknown | ResponseState::Pending(_) | ResponseState::Gone => {
                match ApiError::replacing_status(answered.response.status()) {
                    Some(replacement) => Err(replacement),
                    None => Ok(passed_on(answered)),
                }
            }
        }
    }

    /// Records the end of a chat in the background, if the record does not have it. Returns the answer for the client.
    async fn end_deferred(
        self: &Arc<Self>,
        deferred: &DeferredChat,
        has_answer: bool,
        answered: UpstreamResponse,
    ) -> Result<Response, ApiError> {
        let (chat, followed) = match deferred {
            DeferredChat::Followed(followed) => match followed.take() {
                Some(chat) => (chat, Some(Arc::clone(followed))),
                None => {
                    let ended = timeout(READ_TIMEOUT, followed.ended.cancelled()).await;
                    ended.map_err(|_| ApiError::journal_unavailable())?;
                    if followed.has_answer() || !has_answer {
                        return Ok(passed_on(answered));
                    }
                    // Another end has been recorded, such as a stop, or none: the answer takes precedence.
                    (OpenChat::resume(&self.recording, &followed.event, None), None)
                }
            },
            // A recorded failure may be the gateway's own, as when it was stopped: an answer takes precedence.
            DeferredChat::Recorded { event, has_end } if !has_end || has_answer => {
                (OpenChat::resume(&self.recording, event, None), None)
            }
            DeferredChat::Recorded { .. } => return Ok(passed_on(answered)),
        };
        self.end_in_task(chat, followed, answered).await.map_err(|_| ApiError::gateway_stopped())
    }

    /// Ends a chat in a task of its own: the end is recorded even if the client leaves, or the gateway stops, meanwhile. Tells those that
    /// wait for the end of `followed`.
    fn end_in_task(
        self: &Arc<Self>,
        chat: OpenChat,
        followed: Option<Arc<FollowedChat>>,
        answered: UpstreamResponse,
    ) -> JoinHandle<Response> {
        let this = Arc::clone(self);
        self.background.tasks.spawn(async move {
            let _ended = followed.as_ref().map(|followed| followed.ended.clone().drop_guard());
            let recorded = this.end_with(chat, answered).await;
            if let (Some(followed), true) = (&followed, recorded.is_ok()) {
                followed.set_answer();
            }
            recorded.unwrap_or_else(ApiError::into_response)
        })
    }

    /// Ends a chat with the provider's answer. Returns the answer for the client, when the end is durable.
    async fn end_with(&self, chat: OpenChat, answered: UpstreamResponse) -> Result<Response, ApiError> {
        let fold = Fold::new(DialectName::OpenaiResponses);
        let (parts, body) = self.respond(chat, fold, None, answered).await?.into_parts();
        let whole = axum::body::to_bytes(body, MAX_ANSWER_BYTES).await.map_err(|_| ApiError::journal_unavailable())?;
        Ok(Response::from_parts(parts, Body::from(whole)))
    }

    /// Sends a request without a body to the upstream with this name, and waits for the head of the answer.
    async fn ask(
        &self,
        upstream: &str,
        method: &Method,
        path: &str,
        sent: &HeaderMap,
    ) -> Result<UpstreamResponse, AskError> {
        let snapshot = self.upstreams.snapshot();
        let (candidates, route) = Candidates::named(&snapshot, upstream).ok_or(AskError::NoSuchUpstream)?;
        let outgoing = OutgoingRequest {
            method,
            path,
            headers: &headers::for_upstream(sent, route.billing_headers),
            trace: None,
            answer: None,
            may_add_usage_option: false,
            body: &|_, _| Bytes::new().into(),
        };
        let mut attempts = Vec::new();
        let sending = candidates.send(&outgoing, &self.recording.metrics, &mut attempts);
        Ok(timeout(READ_TIMEOUT, sending).await.unwrap_or(Err(UpstreamError::HeadTimeout))?)
    }

    /// Reads what an answer says of the response, without taking anything from the answer.
    async fn state_of(&self, answered: &mut UpstreamResponse) -> ResponseState {
        let status = answered.response.status();
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return ResponseState::Gone;
        }
        if !status.is_success() {
            return ResponseState::Unknown;
        }
        let encoding = ContentEncoding::from_headers(answered.response.headers());
        let body = answered.response.body_mut();
        let _ = timeout(READ_TIMEOUT.min(self.limits.idle_timeout), body.read_ahead(MAX_DOCUMENT_BYTES)).await;
        let document = body.read_ahead_bytes();
        if document.len() >= MAX_DOCUMENT_BYTES {
            return ResponseState::Ended { has_answer: true };
        }
        if !body.is_read_to_end() {
            return ResponseState::Unknown;
        }
        ResponseState::read(&content_encoding::decode_body(encoding, document))
    }
}

/// The reason for which a provider could not be asked.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the routes have no such upstream any more")]
    NoSuchUpstream,
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl AskError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoSuchUpstream => "no_such_upstream",
            Self::Upstream(error) => error.code(),
        }
    }
}

fn refusal(error: AskError) -> ApiError {
    match error {
        AskError::NoSuchUpstream => ApiError::response_not_found(),
        AskError::Upstream(error) => ApiError::from(&error),
    }
}

impl DeferredChat {
    /// The event that says where the answer is made.
    pub fn event(&self) -> &ChatDeferred {
        match self {
            Self::Followed(followed) => &followed.event,
            Self::Recorded { event, .. } => event,
        }
    }
}
