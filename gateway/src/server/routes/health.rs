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
    match unreadiness(&gateway) {
        None => "ready\n".into_response(),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

/// Returns the reason for which new chats should not be sent here: the gateway was told to stop, or the journal cannot be
/// written, has no space, or waits for its disk. Broker, upstreams, recorder and database play no part.
fn unreadiness(gateway: &Gateway) -> Option<&'static str> {
    if gateway.stop_mark.is_set() {
        return Some("not ready: the gateway is stopping\n");
    }
    let is_available = gateway.chats.recording.journal.is_available();
    (!is_available).then_some("not ready: the journal is full, cannot be written, or its disk does not answer\n")
}

/// Readiness: responds with 200 if new chats are accepted, otherwise with 503 and the reason.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    match unreadiness(&gateway) {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
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
