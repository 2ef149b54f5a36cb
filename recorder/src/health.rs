//! The HTTP endpoints for health and metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sqlx::postgres::PgPool;
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::policy::blockage::Blockage;
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
    /// The conditions under which the pipeline records nothing.
    pub blockage: Arc<Blockage>,
    /// The pool of database connections. Readiness requires a writable database within a second.
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

/// Returns the routes `/health/live`, `/health/ready` and `/metrics` of a recording process.
pub fn recording_health(state: HealthState) -> Router {
    Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state)
}

/// Answers 200 if events can be recorded: the broker is connected, the stream is there, the database accepts writes, and
/// no batch has been waiting for over a minute. Answers 503 with the reason otherwise.
async fn ready(State(state): State<HealthState>) -> (StatusCode, String) {
    let unavailable = |reason: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    if !is_connected(&state.broker) {
        return unavailable("the broker cannot be reached");
    }
    if let Some(reason) = state.blockage.reason(Instant::now()) {
        return unavailable(reason);
    }
    match timeout(CHECK_TIMEOUT, is_read_only(&state.pool)).await {
        Ok(Ok(false)) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Ok(true)) => unavailable("the database is read-only"),
        Ok(Err(_)) | Err(_) => unavailable("the database cannot be reached"),
    }
}

/// Returns true if the database refuses writes: a standby, or a database that was set to read-only.
async fn is_read_only(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT current_setting('transaction_read_only')::boolean").fetch_one(pool).await
}

async fn metrics(State(state): State<HealthState>) -> axum::response::Response {
    // Another process runs the verification, so the result is read from the database. If the database cannot be
    // reached, the metrics keep the previous result.
    if let Ok(Ok(Some((finished_at, differences)))) = timeout(CHECK_TIMEOUT, verifications::latest(&state.pool)).await {
        state.metrics.verify_differences.set(differences);
        state.metrics.verify_finished.set(finished_at.unix_timestamp());
    }
    state.metrics.batch_wait.set(state.blockage.batch_wait(Instant::now()).as_secs_f64());
    let mut text = String::new();
    match encode(&mut text, &state.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
