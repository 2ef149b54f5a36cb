//! `GET /v1/models`: what the upstream offers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::time::timeout;

use super::Gateway;
use crate::chat::is_key_refusal;
use crate::error::ApiError;
use crate::forward;

/// The longest list that is passed on.
const MAX_BYTES: usize = 8 << 20;

/// Passes the upstream's list on as it is.
pub(super) async fn list(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.models(request.headers().clone()).await.map_err(|error| gateway.refuse(error))
}

impl Gateway {
    async fn models(&self, headers: HeaderMap) -> Result<Response, ApiError> {
        let headers = forward::to_upstream(&headers);
        let mut attempts = Vec::new();
        let upstream = &self.chats.upstream;
        let answer = upstream
            .send(&Method::GET, "/models", &headers, &Bytes::new(), &mut attempts)
            .await
            .map_err(|error| ApiError::from(&error))?;
        if is_key_refusal(answer.status()) {
            return Err(ApiError::upstream_refused_key());
        }
        let (head, body) = answer.into_parts();
        let body = timeout(self.chats.limits.idle_timeout, body.collect(MAX_BYTES)).await;
        let body = body.ok().flatten().ok_or_else(ApiError::models_unreadable)?;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = forward::to_client(head.headers);
        Ok(response)
    }
}
