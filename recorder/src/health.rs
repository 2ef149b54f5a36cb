//! The HTTP endpoints for health and metrics.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sqlx::postgres::PgPool;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::source::is_connected;
use crate::store::verifications;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of the endpoints of a recording process.
#[derive(Clone, Debug)]
pub struct HealthState {
    /// The registry of all metrics, encoded for `/metrics`.
    pub registry: Arc<Registry>,
    /// The registered metrics, for setting the result of the latest verification.
    pub metrics: Arc<Metrics>,
    /// The pool of database connections. Readiness requires a connection within a second.
    pub pool: PgPool,
    /// The client of the broker. Readiness requires an established connection.
    pub broker: Client,
}

/// Returns the routes `/health/live` and `/health/ready` of a process that needs only the database, such as `recorder
/// serve`.
pub fn database_health(pool: PgPool) -> Router {
    let ready = async |State(pool): State<PgPool>| match timeout(CHECK_TIMEOUT, pool.acquire()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ready\n"),
        Ok(Err(_)) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached\n"),
    };
    Router::new().route("/health/live", get(async || "live\n")).route("/health/ready", get(ready)).with_state(pool)
}

/// Serves `/health/live`, `/health/ready` and `/metrics` of a recording process until `stop` is cancelled.
pub async fn serve(listener: TcpListener, state: HealthState, stop: CancellationToken) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state);
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Answers 200 if events can be recorded: the broker is connected, and the database provides a connection within
/// [`CHECK_TIMEOUT`]. Answers 503 otherwise.
async fn ready(State(state): State<HealthState>) -> (StatusCode, &'static str) {
    if !is_connected(&state.broker) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the broker cannot be reached\n");
    }
    match timeout(CHECK_TIMEOUT, state.pool.acquire()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ready\n"),
        Ok(Err(_)) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached\n"),
    }
}

async fn metrics(State(state): State<HealthState>) -> axum::response::Response {
    // Another process runs the verification, so the result is read from the database. If the database cannot be
    // reached, the metrics keep the previous result.
    if let Ok(Ok(Some((finished_at, differences)))) = timeout(CHECK_TIMEOUT, verifications::latest(&state.pool)).await {
        state.metrics.verify_differences.set(differences);
        state.metrics.verify_finished.set(finished_at.unix_timestamp());
    }
    let mut text = String::new();
    match encode(&mut text, &state.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
