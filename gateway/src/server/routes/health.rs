//! Health, for whoever restarts the process (live) and whoever sends it traffic (ready); and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::server::gateway::Gateway;

/// The process runs.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// New chats are taken. That needs a journal that can be written and has room, and nothing else: no
/// broker, no upstream, no recorder, no database.
pub(super) async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.chats.recording.journal.is_available() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the journal is full or cannot be written\n").into_response()
    }
}

/// Metrics for Prometheus.
pub(super) async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], gateway.metrics.render()).into_response()
}
