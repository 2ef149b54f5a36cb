//! Health and metrics over HTTP.

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

/// What the routes look at.
#[derive(Clone, Debug)]
pub struct HealthState {
    /// The metrics.
    pub registry: Arc<Registry>,
    /// The same, to be set.
    pub metrics: Arc<Metrics>,
    /// The database.
    pub pool: PgPool,
    /// The broker.
    pub broker: Client,
}

/// Health of a process that needs the database alone.
pub fn database_health(pool: PgPool) -> Router {
    let ready = async |State(pool): State<PgPool>| match timeout(CHECK_TIMEOUT, pool.acquire()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ready\n"),
        Ok(Err(_)) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database is away\n"),
    };
    Router::new().route("/health/live", get(async || "live\n")).route("/health/ready", get(ready)).with_state(pool)
}

/// Serves until told to stop.
pub async fn serve(listener: TcpListener, state: HealthState, stop: CancellationToken) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state);
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Ready to record: both the broker and the database are there.
async fn ready(State(state): State<HealthState>) -> (StatusCode, &'static str) {
    if !is_connected(&state.broker) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the broker is away\n");
    }
    match timeout(CHECK_TIMEOUT, state.pool.acquire()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ready\n"),
        Ok(Err(_)) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database is away\n"),
    }
}

async fn metrics(State(state): State<HealthState>) -> axum::response::Response {
    // Another process verifies. A database that is away leaves what was known.
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
