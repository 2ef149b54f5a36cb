//! `POST /v1/messages/count_tokens`, `POST /v1/responses/input_tokens` and Google's `:countTokens`: the upstream counts the
//! tokens of a request. The request is not a chat, so nothing is recorded.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::Method;
use shared::event::DialectName;
use tokio::time::timeout;

use crate::error::ApiError;
use crate::headers;
use crate::json::edit;
use crate::request::requested_model;
use crate::server::gateway::Gateway;
use crate::upstream::dispatch::{Candidates, OutgoingRequest};

/// The maximum size of a response that is forwarded, in bytes.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// Forwards the request to an upstream, and the response to the client.
pub(super) async fn count(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    let count = TokenCount { dialect: DialectName::AnthropicMessages, path: "/messages/count_tokens", model: None };
    gateway.count_tokens(request, &count).await.map_err(|error| gateway.count_refusal(error))
}

/// Forwards the request to an upstream, and the response to the client, in the dialect of OpenAI's responses.
pub(super) async fn count_input(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    let count = TokenCount { dialect: DialectName::OpenaiResponses, path: "/responses/input_tokens", model: None };
    gateway.count_tokens(request, &count).await.map_err(|error| gateway.count_refusal(error))
}

/// A request to count tokens, in one of the dialects.
pub(super) struct TokenCount<'a> {
    /// The dialect that the upstream must support.
    pub(super) dialect: DialectName,
    /// The path below the upstream's base URL.
    pub(super) path: &'a str,
    /// The model that the path names. `None` if the body names the model.
    pub(super) model: Option<&'a str>,
}

impl Gateway {
    /// Forwards a request to count tokens, and the answer to the client.
    pub(super) async fn count_tokens(&self, request: Request, count: &TokenCount<'_>) -> Result<Response, ApiError> {
        let (caller, headers, body) = self.read_json(request).await?;
        let model = requested_model(&body, count.model)?;
        caller.check_model(&model)?;
        let snapshot = self.chats.upstreams.snapshot();
        let route = snapshot.route(&model).ok_or_else(|| ApiError::model_not_found(&model))?;
        let candidates =
            Candidates::new(&snapshot, route, count.dialect).ok_or_else(|| ApiError::model_not_found(&model))?;
        let outgoing = OutgoingRequest {
            method: &Method::POST,
            path: count.path,
            headers: &headers::for_upstream(&headers, route.billing_headers),
            trace: None,
            answer: None,
            may_add_usage_option: false,
            body: &|choice, _| match &choice.model {
                Some(model) if count.model.is_none() => {
                    edit::with_member(&body, "model", &model.as_str().into()).into()
                }
                _ => body.clone().into(),
            },
        };
        let answered =
            candidates.send(&outgoing, &self.metrics, &mut Vec::new()).await.map_err(|error| ApiError::from(&error))?;
        let answer = answered.response;
        if let Some(replacement) = ApiError::replacing_status(answer.status()) {
            return Err(replacement);
        }
        let (head, body) = answer.into_parts();
        let body = timeout(self.chats.limits.idle_timeout, body.collect(MAX_RESPONSE_BYTES)).await;
        let body = body.ok().flatten().ok_or_else(ApiError::response_unreadable)?;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = headers::for_client(head.headers);
        Ok(response)
    }
}
