//! Answers that are resumed, at any gateway: `GET /api/chats/{id}/stream` for every client, and `GET /api/chat/{id}/stream` for the AI SDK's
//! `useChat`.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use shared::fair_share::{NoPlace, Place};
use shared::id::{ChatId, ConversationId};

use super::following::{Following, Phase, Writer};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::headers::{CHAT_ID, CONVERSATION_ID, for_ui_stream};
use crate::response::answer_events::{AnswerEvents, END_ID, Position};
use crate::response::transcript::Transcript;
use crate::response::ui_stream::UiStream;
use crate::running::peers::Whereabouts;
use crate::server::gateway::Gateway;

/// The maximum number of streams of one user.
const MAX_STREAMS_OF_USER: usize = 32;

/// Builds the routes.
pub(super) fn router() -> Router<Arc<Gateway>> {
    Router::new().route("/api/chats/{id}/stream", get(events)).route("/api/chat/{id}/stream", get(ui_stream))
}

/// The answer of a chat of the caller as events, from the position in `Last-Event-ID` on.
async fn events(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    gateway.discard_body(&head.headers, body);
    gateway.follow(&id, head).await.map_err(|error| gateway.count_refusal(error))
}

/// The running answer of a thread of `useChat` from its start, or 204 if no answer is running.
async fn ui_stream(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    gateway.discard_body(&head.headers, body);
    gateway.follow_thread(&id, head).await.map_err(|error| gateway.count_refusal(error))
}

impl Gateway {
    async fn follow(self: &Arc<Self>, id: &str, head: Parts) -> Result<Response, ApiError> {
        let caller = self.authenticate(&head.method, &head.headers)?;
        let chat: ChatId = id.parse().map_err(|_| ApiError::chat_not_found())?;
        let last_id = head.headers.get("last-event-id").and_then(|id| id.to_str().ok());
        let place = self.place_for_stream(&caller)?;
        let (phase, conversation) = self.find_answer(&caller, chat, &head.headers).await?;
        if last_id == Some(END_ID) {
            // The client has everything, and an `EventSource` does not come back after 204.
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        let start =
            AnswerEvents::start(&chat.to_string(), conversation.as_deref(), &chat.assistant_message().to_string());
        let writer = Writer::Events(AnswerEvents::new(last_id.and_then(Position::parse)));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(self.stream((caller, head.headers, place), (chat, conversation), (phase, writer), start, headers))
    }

    async fn follow_thread(self: &Arc<Self>, id: &str, head: Parts) -> Result<Response, ApiError> {
        let caller = self.authenticate(&head.method, &head.headers)?;
        let place = self.place_for_stream(&caller)?;
        // The thread of another user is a thread without an answer.
        let Ok((conversation, ..)) = self.chats.conversations.of_thread(&caller.user, id) else {
            return Ok(StatusCode::NO_CONTENT.into_response());
        };
        let Some(source) = self.peers.find_in(conversation, &caller.user).await else {
            return Ok(StatusCode::NO_CONTENT.into_response());
        };
        let ids = source.ids();
        let mut ui_stream = UiStream::new(ids.message);
        let start = ui_stream.advance(&Transcript::default());
        let writer = Writer::Ui(Box::new(ui_stream));
        let ids = (ids.chat, Some(conversation.to_string()));
        let headers = for_ui_stream(HeaderMap::new());
        Ok(self.stream((caller, head.headers, place), ids, (Phase::Running(source), writer), start, headers))
    }

    fn stream(
        self: &Arc<Self>,
        (caller, request, place): (Caller, HeaderMap, Place),
        (chat, conversation): (ChatId, Option<String>),
        (phase, writer): (Phase, Writer),
        start: Bytes,
        mut headers: HeaderMap,
    ) -> Response {
        let value = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        headers.insert(CHAT_ID, value(chat.to_string()));
        if let Some(conversation) = conversation {
            headers.insert(CONVERSATION_ID, value(conversation));
        }
        let following = Following {
            gateway: Arc::clone(self),
            user: caller.user,
            headers: request,
            chat,
            phase,
            writer,
            read: Transcript::default(),
            last_write: Instant::now(),
            _place: place,
        };
        (headers, following.into_body(start)).into_response()
    }

    /// Finds a chat of the caller: at a gateway, or on the record. Returns the conversation too.
    async fn find_answer(
        &self,
        caller: &Caller,
        chat: ChatId,
        headers: &HeaderMap,
    ) -> Result<(Phase, Option<String>), ApiError> {
        let recorded = async {
            match &self.recorder_api {
                Some(recorder_api) => recorder_api.answer(&caller.user, chat, headers).await,
                None => Ok(None),
            }
        };
        let conversation_of = |id: Option<ConversationId>| id.map(|id| id.to_string());
        // Most answers that are resumed run here, or have ended. The record answers faster than gateways that do not know the chat.
        let (mut finding, mut reading) =
            (std::pin::pin!(self.peers.find(chat, &caller.user)), std::pin::pin!(recorded));
        let (found, recorded) = tokio::select! {
            biased;
            found = &mut finding => (found, None),
            recorded = &mut reading => match recorded {
                Ok(Some(answer)) if answer.has_ended() => {
                    return Ok((Phase::recorded(), conversation_of(answer.conversation_id)));
                }
                recorded => (finding.await, Some(recorded)),
            },
        };
        match found {
            Whereabouts::Runs(source) => {
                let conversation = conversation_of(source.ids().conversation);
                Ok((Phase::Running(source), conversation))
            }
            Whereabouts::Ended(conversation) => Ok((Phase::recorded(), conversation_of(conversation))),
            Whereabouts::Unknown => {
                let recorded = match recorded {
                    Some(recorded) => recorded,
                    None => reading.await,
                };
                let answer = recorded?.ok_or_else(ApiError::chat_not_found)?;
                Ok((Phase::recorded(), conversation_of(answer.conversation_id)))
            }
        }
    }

    fn place_for_stream(&self, caller: &Caller) -> Result<Place, ApiError> {
        self.followers.take(caller.user.as_str(), MAX_STREAMS_OF_USER).map_err(|refused| match refused {
            NoPlace::HolderHasShare => ApiError::too_many_streams(),
            NoPlace::AllTaken => ApiError::too_many_chats(),
        })
    }
}
