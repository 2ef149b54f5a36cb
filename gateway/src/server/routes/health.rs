//! Health checks and metrics, for operators on a listener of their own. `live` is for the supervisor that restarts the process, `ready` for the load balancer that
//! sends traffic.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use shared::metrics::Exposition;

use crate::metrics::UpstreamLabel;
use crate::server::gateway::Gateway;

/// Builds the probes of the listener that clients reach. The answers tell a load balancer whether to send requests, and tell
/// nobody why not.
pub(super) fn probe_router() -> Router<Arc<Gateway>> {
    Router::new().route("/health/live", get(live)).route("/health/ready", get(is_ready))
}

/// Builds the routes of the listener for operators: health checks that give reasons, and metrics.
pub(super) fn operations_router() -> Router<Arc<Gateway>> {
    Router::new().route("/health/live", get(live)).route("/health/ready", get(ready)).route("/metrics", get(metrics))
}

/// Liveness: responds with 200 as long as the process runs.
async fn live() -> &'static str {
    "live\n"
}

/// Readiness without a reason.
async fn is_ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.chats.recording.journal.is_available() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

/// Readiness: responds with 200 if new chats are accepted. The only condition is a writable journal with free space.
/// Broker, upstreams, recorder and database play no part.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.chats.recording.journal.is_available() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the journal is full or cannot be written\n").into_response()
    }
}

/// Metrics for Prometheus, in the format that the request accepts.
async fn metrics(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let breakers = &gateway.metrics.upstream_breaker_open;
    // A reload of the routes may have removed upstreams.
    breakers.clear();
    for upstream in &gateway.chats.upstreams.snapshot().upstreams {
        let label = UpstreamLabel { upstream: upstream.name().to_owned() };
        breakers.get_or_create(&label).set(i64::from(!upstream.is_healthy()));
    }
    let exposition = Exposition::accepted_by(headers.get(ACCEPT).and_then(|value| value.to_str().ok()));
    ([(CONTENT_TYPE, exposition.content_type())], gateway.metrics.render(exposition)).into_response()
}
