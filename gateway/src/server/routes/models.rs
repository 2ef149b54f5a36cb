//! `GET /v1/models`: what the routes offer; without a routes file what the one provider offers, in its own words.

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
use crate::routing::Origin;
use crate::server::gateway::Gateway;
use crate::upstream::endpoint::Upstream;
use crate::upstream::model_list;

/// The longest list that is passed on.
const MAX_BYTES: usize = 8 << 20;

/// Lists the models.
pub(super) async fn list(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    let (head, _) = request.into_parts();
    gateway.models(&head.method, &head.headers).await.map_err(|error| gateway.refuse(error))
}

impl Gateway {
    async fn models(&self, method: &Method, headers: &HeaderMap) -> Result<Response, ApiError> {
        self.prove(method, headers)?;
        let in_force = self.chats.upstreams.in_force();
        match (in_force.table.origin, &in_force.upstreams[..]) {
            (Origin::OneProvider, [upstream]) => self.pass_models(upstream, headers).await,
            _ => Ok(Json(json!({"object": "list", "data": model_list::models(&in_force).await})).into_response()),
        }
    }

    /// Passes an upstream's list on as it is.
    async fn pass_models(&self, upstream: &Arc<Upstream>, headers: &HeaderMap) -> Result<Response, ApiError> {
        let headers = headers::to_upstream(headers);
        let mut attempts = Vec::new();
        let answer = upstream
            .send(&Method::GET, "/models", &headers, &Bytes::new(), &mut attempts)
            .await
            .map_err(|error| ApiError::from(&error))?;
        if let Some(instead) = ApiError::in_place_of(answer.status()) {
            return Err(instead);
        }
        let (head, body) = answer.into_parts();
        let body = timeout(self.chats.limits.idle_timeout, body.collect(MAX_BYTES)).await;
        let body = body.ok().flatten().ok_or_else(ApiError::models_unreadable)?;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = headers::to_client(head.headers);
        Ok(response)
    }
}
