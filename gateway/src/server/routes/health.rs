//! Health checks and metrics. `live` is for the supervisor that restarts the process, `ready` for the load balancer that
//! sends traffic.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::server::gateway::Gateway;

/// Liveness: responds with 200 as long as the process runs.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// Readiness: responds with 200 if new chats are accepted. The only condition is a writable journal with free space.
/// Broker, upstreams, recorder and database play no part.
pub(super) async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.chats.recording.journal.is_available() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the journal is full or cannot be written\n").into_response()
    }
}

/// Metrics for Prometheus, in the OpenMetrics text format.
pub(super) async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], gateway.metrics.render()).into_response()
}
