//! `GET /v1/models` and `GET /v1/models/{id}`: the models that the routes offer, or without a routes file the provider's own
//! list. Clients that send `anthropic-version` get Anthropic's shape, all others OpenAI's. An API key that is limited to some models
//! sees these alone.
//!
//! A list is read and written again, so that whatever a provider sends in its place, such as a page, never reaches a browser.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::timeout;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::error_shapes;
use crate::headers::{self, BillingHeaders};
use crate::response::content_encoding::{self, ContentEncoding};
use crate::routing::TableOrigin;
use crate::server::gateway::Gateway;
use crate::upstream::endpoint::Upstream;
use crate::upstream::model_list::{self, ListShape, ModelList};

/// The maximum size of a provider's model list, in bytes.
const MAX_LIST_BYTES: usize = 8 << 20;

/// Responds with the list of models.
pub(super) async fn list(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    gateway.respond_in_shape(&head.headers, gateway.models(&head, None).await)
}

/// Responds with one model. The id may contain slashes.
pub(super) async fn get(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    gateway.respond_in_shape(&head.headers, gateway.models(&head, Some(&id)).await)
}

impl Gateway {
    /// Returns the list, or the one model with this id.
    async fn models(&self, head: &Parts, id: Option<&str>) -> Result<Response, ApiError> {
        let caller = self.authenticate(&head.method, &head.headers)?;
        if let Some(id) = id {
            caller.check_model(id)?;
        }
        let (snapshot, shape) = (self.chats.upstreams.snapshot(), shape(&head.headers));
        if let (TableOrigin::SingleProvider, [upstream]) = (snapshot.table.origin, &snapshot.upstreams[..]) {
            return self.provider_models(&caller, upstream, head, id).await;
        }
        let models = match id {
            // Asked first, so that nobody's guesses reach an upstream.
            Some(id) if snapshot.route(id).is_none() => return Err(ApiError::model_not_found(id)),
            _ => model_list::list_models(&snapshot).await,
        };
        let models: Vec<_> = models.into_iter().filter(|model| caller.check_model(&model.id).is_ok()).collect();
        Ok(Json(match id {
            None => model_list::list_in_shape(&models, shape),
            Some(id) => models
                .iter()
                .find(|model| model.id == id)
                .cloned()
                .unwrap_or_else(|| model_list::served_model(&snapshot, id))
                .in_shape(shape),
        })
        .into_response())
    }

    /// Asks the single provider for its list. An error of the provider is passed on if it is JSON.
    async fn provider_models(
        &self,
        caller: &Caller,
        upstream: &Arc<Upstream>,
        head: &Parts,
        id: Option<&str>,
    ) -> Result<Response, ApiError> {
        let forwarded = headers::for_upstream(&head.headers, BillingHeaders::Stop);
        let mut attempts = Vec::new();
        let answer = upstream
            .send((&Method::GET, "/models"), (&forwarded, None), &Bytes::new().into(), &mut attempts)
            .await
            .map_err(|error| ApiError::from(&error))?;
        if let Some(replacement) = ApiError::replacing_status(answer.status()) {
            return Err(replacement);
        }
        let (answer, body) = answer.into_parts();
        let body = timeout(self.chats.limits.idle_timeout, body.collect(MAX_LIST_BYTES)).await;
        let body = body.ok().flatten().ok_or_else(ApiError::model_list_unreadable)?;
        let body = content_encoding::decode_body(ContentEncoding::from_headers(&answer.headers), body);
        let list = ModelList::parse(&body).ok_or_else(ApiError::model_list_unreadable)?;
        let json = match id {
            _ if !answer.status.is_success() => upstream.redactor().redact_text(&list.to_json()),
            None if caller.is_limited_to_models() => list
                .allowed_in_shape(|id| caller.check_model(id).is_ok(), shape(&head.headers), upstream.name())
                .ok_or_else(ApiError::model_list_unreadable)?,
            None => list.in_shape(shape(&head.headers), upstream.name()).ok_or_else(ApiError::model_list_unreadable)?,
            Some(id) => list
                .model_in_shape(id, shape(&head.headers), upstream.name())
                .ok_or_else(|| ApiError::model_not_found(id))?,
        };
        let mut headers = headers::for_client(answer.headers);
        headers.remove(CONTENT_LENGTH);
        headers.remove(CONTENT_ENCODING);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let status = if answer.status.is_success() { StatusCode::OK } else { answer.status };
        Ok((status, headers, json).into_response())
    }

    /// Counts an error, and gives it the shape that the client reads.
    fn respond_in_shape(&self, headers: &HeaderMap, response: Result<Response, ApiError>) -> Response {
        let response = response.unwrap_or_else(|error| self.count_refusal(error).into_response());
        match shape(headers) {
            ListShape::Openai => response,
            ListShape::Anthropic => error_shapes::into_anthropic_shape(response),
        }
    }
}

/// Returns the shape that the client reads.
fn shape(headers: &HeaderMap) -> ListShape {
    if headers.contains_key("anthropic-version") { ListShape::Anthropic } else { ListShape::Openai }
}
