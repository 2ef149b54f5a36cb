//! `GET /v1/models`: the models that the routes offer. Without a routes file, the single provider's own list is forwarded
//! unchanged.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::json;
use tokio::time::timeout;

use crate::error::ApiError;
use crate::headers;
use crate::routing::TableOrigin;
use crate::server::gateway::Gateway;
use crate::upstream::endpoint::Upstream;
use crate::upstream::model_list;

/// The maximum size of a forwarded model list, in bytes.
const MAX_LIST_BYTES: usize = 8 << 20;

/// Responds with the list of models.
pub(super) async fn list(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    let (head, _) = request.into_parts();
    gateway.models(&head.method, &head.headers).await.map_err(|error| gateway.count_refusal(error))
}

impl Gateway {
    async fn models(&self, method: &Method, headers: &HeaderMap) -> Result<Response, ApiError> {
        self.authenticate(method, headers)?;
        let snapshot = self.chats.upstreams.snapshot();
        match (snapshot.table.origin, &snapshot.upstreams[..]) {
            (TableOrigin::SingleProvider, [upstream]) => self.forward_models(upstream, headers).await,
            _ => Ok(Json(json!({"object": "list", "data": model_list::list_models(&snapshot).await})).into_response()),
        }
    }

    /// Forwards an upstream's model list unchanged.
    async fn forward_models(&self, upstream: &Arc<Upstream>, headers: &HeaderMap) -> Result<Response, ApiError> {
        let headers = headers::for_upstream(headers);
        let mut attempts = Vec::new();
        let answer = upstream
            .send(&Method::GET, "/models", &headers, &Bytes::new(), &mut attempts)
            .await
            .map_err(|error| ApiError::from(&error))?;
        if let Some(replacement) = ApiError::replacing_status(answer.status()) {
            return Err(replacement);
        }
        let (head, body) = answer.into_parts();
        let body = timeout(self.chats.limits.idle_timeout, body.collect(MAX_LIST_BYTES)).await;
        let body = body.ok().flatten().ok_or_else(ApiError::model_list_unreadable)?;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = headers::for_client(head.headers);
        Ok(response)
    }
}
