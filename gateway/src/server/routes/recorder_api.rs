//! What the recorder's API answers: everything below `/api` that the gateway does not know itself.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use http::request::Parts;

use crate::auth::same_origin;
use crate::error::ApiError;
use crate::recorder_api::Passed;
use crate::server::body::read_bounded;
use crate::server::gateway::Gateway;

/// The largest body that is passed on, in bytes.
const BODY_BYTES: usize = 64 << 10;

/// What is passed on without looking who asks: the API does that itself.
pub(super) fn router() -> Router<Arc<Gateway>> {
    Router::new().route("/api/{*path}", any(pass)).route("/.well-known/jwks.json", get(pass))
}

/// Passes a request on.
pub(super) async fn pass(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.pass(request).await.map_err(|error| gateway.refuse(error))
}

/// The same beside routes that the gateway knows itself: as with these, no caller, no route.
pub(super) async fn pass_proven(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    let proven = gateway.prove(request.method(), request.headers());
    let passed = async { proven.map(|_| gateway.pass(request))?.await };
    passed.await.map_err(|error| gateway.refuse(error))
}

impl Gateway {
    async fn pass(&self, request: Request) -> Result<Response, ApiError> {
        let (head, mut body) = request.into_parts();
        let passed = self.pass_body(&head, &mut body).await;
        if passed.is_err() {
            self.read_away(&head.headers, body);
        }
        passed
    }

    async fn pass_body(&self, head: &Parts, body: &mut Body) -> Result<Response, ApiError> {
        let reads = self.reads.as_ref().ok_or_else(ApiError::reads_unavailable)?;
        same_origin(&head.method, &head.headers, &self.cors_origins).map_err(ApiError::cross_origin)?;
        let body = read_bounded(body, BODY_BYTES, self.chats.limits.read_timeout).await?;
        let path = head.uri.path_and_query().map_or(head.uri.path(), |path| path.as_str());
        let peer = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        let passed = Passed { method: head.method.clone(), path, headers: &head.headers, body, peer };
        reads.pass(passed).await
    }
}
