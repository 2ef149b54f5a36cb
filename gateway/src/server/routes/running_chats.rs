//! Requests about a running chat, at any gateway: `POST /api/chats/{id}/stop`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use shared::id::ChatId;
use tokio::time::{sleep, timeout};

use crate::auth::Caller;
use crate::error::ApiError;
use crate::recorder_api::answer::RecordedAnswer;
use crate::server::gateway::Gateway;

/// The maximum time for a stop. A chat that no gateway knows and that has not ended on the record is asked for until then.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);
/// The time between two questions for such a chat.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Builds the routes.
pub(super) fn router() -> Router<Arc<Gateway>> {
    Router::new().route("/api/chats/{id}/stop", post(stop))
}

/// Ends a chat of the caller. Responds with 204 when the chat has ended, also if it had ended before.
async fn stop(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (head, body) = request.into_parts();
    // The request needs no body.
    gateway.discard_body(&head.headers, body);
    let stopped = async {
        let caller = gateway.authenticate(&head.method, &head.headers)?;
        let id = id.parse().map_err(|_| ApiError::chat_not_found())?;
        let stopping = gateway.stop_chat(&caller, id, &head.headers);
        timeout(STOP_TIMEOUT, stopping).await.unwrap_or_else(|_| Err(ApiError::chat_unreachable()))
    };
    stopped.await.map(|()| StatusCode::NO_CONTENT).map_err(|error| gateway.count_refusal(error))
}

impl Gateway {
    /// Stops a chat of the caller, wherever it runs. The record tells which chats have ended.
    async fn stop_chat(&self, caller: &Caller, id: ChatId, headers: &HeaderMap) -> Result<(), ApiError> {
        loop {
            let (mut stopping, mut reading) =
                (pin!(self.peers.stop(id, &caller.user)), pin!(self.recorded_answer(caller, id, headers)));
            let (stopped, recorded) = tokio::select! {
                biased;
                stopped = &mut stopping => (stopped, None),
                recorded = &mut reading => match recorded {
                    Ok(Some(answer)) if answer.has_ended() => return Ok(()),
                    recorded => (stopping.await, Some(recorded)),
                },
            };
            if stopped.is_some() {
                return Ok(());
            }
            let recorded = match recorded {
                Some(recorded) => recorded,
                None => reading.await,
            };
            match recorded? {
                None => return Err(ApiError::chat_not_found()),
                Some(answer) if answer.has_ended() => return Ok(()),
                // The end is on its way to the record, or the gateway of the chat cannot be reached.
                Some(_) => sleep(ASK_AGAIN_AFTER).await,
            }
        }
    }

    async fn recorded_answer(
        &self,
        caller: &Caller,
        id: ChatId,
        headers: &HeaderMap,
    ) -> Result<Option<RecordedAnswer>, ApiError> {
        match &self.recorder_api {
            Some(recorder_api) => recorder_api.answer(&caller.user, id, headers).await,
            None => Ok(None),
        }
    }
}
