//! `GET` and `DELETE /v1/responses/{id}`, `POST /cancel` and `GET /input_items` below it: the caller's own responses alone, passed
//! on to the upstream that made the response.
//!
//! All users of the gateway share the provider's account, so the recorder's API says whose a response is. Requests here are
//! reads of what is on the record already, and are not recorded.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use http::request::Parts;
use tokio::time::{sleep, timeout};

use crate::auth::Caller;
use crate::chat::background::DeferredChat;
use crate::chat::passed_on::passed_on;
use crate::chat::response_state::is_plain_id;
use crate::error::ApiError;
use crate::headers;
use crate::server::gateway::Gateway;
use crate::server::routes::openai_path;
use crate::upstream::dispatch::{Candidates, OutgoingRequest};

/// The maximum time until a response that this gateway has just served is on the record.
const RECORDED_WITHIN: Duration = Duration::from_secs(5);
/// The time between two questions for such a response.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// The maximum time until a response that another gateway has just served is on the record.
const RECORDED_ELSEWHERE_WITHIN: Duration = Duration::from_secs(1);

/// Builds the routes.
pub(super) fn router() -> Router<Arc<Gateway>> {
    openai_path::ALL.into_iter().fold(Router::new(), |router, prefix| {
        router
            .route(&format!("{prefix}/responses/{{id}}"), get(serve).delete(serve))
            .route(&format!("{prefix}/responses/{{id}}/cancel"), post(serve))
            .route(&format!("{prefix}/responses/{{id}}/input_items"), get(serve))
    })
}

async fn serve(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    // The requests need no body.
    gateway.discard_body(&head.headers, body);
    gateway.pass_to_maker(&head).await.map_err(|error| gateway.count_refusal(error))
}

impl Gateway {
    /// Passes a request for a response on to the upstream that made the response.
    async fn pass_to_maker(&self, head: &Parts) -> Result<Response, ApiError> {
        let caller = self.authenticate(&head.method, &head.headers)?;
        let uri = openai_path::as_openai(&head.uri);
        let path = uri.path_and_query().map_or(uri.path(), |path| path.as_str());
        let path = path.strip_prefix("/v1").unwrap_or(path);
        let id = response_id(uri.path());
        let id = id.ok_or_else(ApiError::response_not_found)?;
        let maker = match self.maker_of(&caller, id, head).await? {
            Maker::Upstream(upstream) => upstream,
            Maker::Background(deferred) if uri.path().ends_with("/input_items") => deferred.event().upstream.clone(),
            Maker::Background(_) if asks_for_stream(uri.query()) => {
                return Err(ApiError::background_not_streamed());
            }
            Maker::Background(deferred) => {
                return self.chats.pass_on_deferred(deferred, (&head.method, path, &head.headers)).await;
            }
        };
        let snapshot = self.chats.upstreams.snapshot();
        let named = Candidates::named(&snapshot, &maker);
        let (candidates, route) = named.ok_or_else(ApiError::response_not_found)?;
        let outgoing = OutgoingRequest {
            method: &head.method,
            path,
            headers: &headers::for_upstream(&head.headers, route.billing_headers),
            trace: None,
            answer: None,
            may_add_usage_option: false,
            body: &|_, _| Bytes::new().into(),
        };
        let answered =
            candidates.send(&outgoing, &self.metrics, &mut Vec::new()).await.map_err(|error| ApiError::from(&error))?;
        if let Some(replacement) = ApiError::replacing_status(answered.response.status()) {
            return Err(replacement);
        }
        Ok(passed_on(answered))
    }

    /// Finds the upstream that made a response for the caller, or makes it in the background. 404 for everything else. A response that a
    /// gateway has just served may not be on the record yet, and is waited for: longer if the gateway is this one.
    async fn maker_of(&self, caller: &Caller, id: &str, head: &Parts) -> Result<Maker, ApiError> {
        if let Some(followed) = self.chats.background.find(&caller.user, id) {
            return Ok(Maker::Background(DeferredChat::Followed(followed)));
        }
        let recorder_api = self.recorder_api.as_ref().ok_or_else(ApiError::recorder_unavailable)?;
        let is_recent = self.chats.conversations.responses.find(&caller.user, id).is_some();
        let (within, again_after) = if is_recent {
            (RECORDED_WITHIN, ASK_AGAIN_AFTER)
        } else {
            (RECORDED_ELSEWHERE_WITHIN, ASK_AGAIN_AFTER * 5)
        };
        let asking = async {
            loop {
                match recorder_api.made_response(&caller.user, id, &head.headers).await? {
                    Some(made) if made.is_deferred && made.status != "completed" => {
                        let has_end = made.status == "failed";
                        let event = Box::new(made.deferred(&caller.user));
                        return Ok(Maker::Background(DeferredChat::Recorded { event, has_end }));
                    }
                    Some(made) => return made.upstream.map(Maker::Upstream).ok_or_else(ApiError::response_not_found),
                    None => sleep(again_after).await,
                }
            }
        };
        timeout(within, asking).await.unwrap_or_else(|_| Err(ApiError::response_not_found()))
    }
}

/// The maker of a response.
enum Maker {
    /// The upstream with this name.
    Upstream(String),
    /// A provider, in the background. The record may not have the end of the response yet.
    Background(DeferredChat),
}

/// Returns true if a query asks for a stream.
fn asks_for_stream(query: Option<&str>) -> bool {
    query.is_some_and(|query| {
        query.split('&').any(|pair| pair.eq_ignore_ascii_case("stream=true") || pair == "stream=1")
    })
}

/// The id in a path, without the rest of the path. `None` for a text that no provider uses as an id.
fn response_id(path: &str) -> Option<&str> {
    let id = path.strip_prefix("/v1/responses/")?.split('/').next()?;
    is_plain_id(id).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_asked_for_by_the_query() {
        for query in ["stream=true", "include=a&stream=True", "stream=true&starting_after=4"] {
            assert!(asks_for_stream(Some(query)), "{query}");
        }
        for query in [None, Some(""), Some("stream=false"), Some("upstream=true")] {
            assert!(!asks_for_stream(query), "{query:?}");
        }
    }

    #[test]
    fn ids_are_plain_texts() {
        assert_eq!(response_id("/v1/responses/resp_0a-Z=~"), Some("resp_0a-Z=~"));
        assert_eq!(response_id("/v1/responses/resp_1/input_items"), Some("resp_1"));
        for other in ["/v1/responses/", "/v1/responses/..", "/v1/responses/a%2Fb", "/v1/responses/a.b", "/v1/responses"]
        {
            assert_eq!(response_id(other), None, "{other}");
        }
    }
}
