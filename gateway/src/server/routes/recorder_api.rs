//! Requests that the recorder's API answers: all paths below `/api` for which the gateway has no route, and the public
//! keys.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use http::request::Parts;

use crate::auth::check_origin;
use crate::error::ApiError;
use crate::recorder_api::ForwardedRequest;
use crate::server::gateway::Gateway;

/// The maximum size of a forwarded request body, in bytes.
const MAX_BODY_BYTES: usize = 64 << 10;

/// Builds the routes that are forwarded without authentication, because the recorder's API authenticates callers itself.
pub(super) fn router() -> Router<Arc<Gateway>> {
    Router::new().route("/api/{*path}", any(forward)).route("/.well-known/jwks.json", get(forward))
}

/// Forwards a request without authentication.
pub(super) async fn forward(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.forward(request).await.map_err(|error| gateway.count_refusal(error))
}

/// Forwards a request after authentication. Used on paths that also have routes of the gateway, so that all methods of a
/// path require a caller.
pub(super) async fn forward_authenticated(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    let authenticated = gateway.authenticate(request.method(), request.headers());
    let forwarded = async { authenticated.map(|_| gateway.forward(request))?.await };
    forwarded.await.map_err(|error| gateway.count_refusal(error))
}

impl Gateway {
    async fn forward(&self, request: Request) -> Result<Response, ApiError> {
        let (head, mut body) = request.into_parts();
        let forwarded = self.read_and_forward(&head, &mut body).await;
        if forwarded.is_err() {
            self.discard_body(&head.headers, body);
        }
        forwarded
    }

    async fn read_and_forward(&self, head: &Parts, body: &mut Body) -> Result<Response, ApiError> {
        let recorder_api = self.recorder_api.as_ref().ok_or_else(ApiError::recorder_unavailable)?;
        check_origin(&head.method, &head.headers, &self.cors_origins).map_err(ApiError::cross_origin)?;
        let body = self.read_whole(head, body, None, MAX_BODY_BYTES).await?;
        let path = head.uri.path_and_query().map_or(head.uri.path(), |path| path.as_str());
        let peer = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        let caller = self.auth.caller(&head.headers).ok();
        let user = caller.as_ref().map(|caller| &caller.user);
        let (method, headers) = (head.method.clone(), &head.headers);
        recorder_api.forward(ForwardedRequest { method, path, headers, body, peer, user }).await
    }
}
