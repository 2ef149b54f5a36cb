//! The HTTP endpoints for health and metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use shared::metrics::{Exposition, RenamedMetric, render};
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::api::LiveSubscriptions;
use crate::metrics::api::ApiMetrics;
use crate::metrics::{self, Metrics};
use crate::policy::blockage::Blockage;
use crate::source::{backlog, is_connected};
use crate::store::{audit_outbox, verifications};

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

/// The state of the endpoints of a process that serves the API.
#[derive(Clone, Debug)]
pub struct ApiHealthState {
    /// The registry of all metrics, encoded for `/metrics`.
    pub registry: Arc<Registry>,
    /// The registered metrics.
    pub metrics: Arc<ApiMetrics>,
    /// The pool of database connections. Readiness requires a connection within a second.
    pub pool: PgPool,
    /// The open live streams of the process.
    pub live: Arc<LiveSubscriptions>,
}

/// Returns the routes `/health/live` and `/health/ready` of a process that needs only the database, such as `recorder
/// serve`.
pub fn database_health(pool: PgPool) -> Router {
    let ready = async |State(pool): State<PgPool>| match is_reachable(&pool).await {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached\n"),
    };
    Router::new().route("/health/live", get(async || "live\n")).route("/health/ready", get(ready)).with_state(pool)
}

/// Returns the route `/metrics` of a process that serves the API.
pub fn api_metrics(state: ApiHealthState) -> Router {
    let metrics = async |State(state): State<ApiHealthState>, headers: HeaderMap| {
        let (metrics, pool) = (&state.metrics, &state.pool);
        metrics.database_up.set(i64::from(is_reachable(pool).await));
        metrics.audit_entries_waiting.set(audit_entries_waiting(pool).await);
        metrics.database_connections.set(i64::from(pool.size()));
        metrics.idle_database_connections.set(i64::try_from(pool.num_idle()).unwrap_or(i64::MAX));
        metrics.max_database_connections.set(i64::from(pool.options().get_max_connections()));
        metrics.live_streams.set(i64::try_from(state.live.open_streams()).unwrap_or(i64::MAX));
        exposed(&state.registry, &headers, &[])
    };
    Router::new().route("/metrics", get(metrics)).with_state(state)
}

/// The number of entries of the audit log that wait for the broker; NaN without an answer.
async fn audit_entries_waiting(pool: &PgPool) -> f64 {
    match timeout(CHECK_TIMEOUT, audit_outbox::waiting(pool)).await {
        // The number is at most some 100,000.
        Ok(Ok(waiting)) => f64::from(i32::try_from(waiting).unwrap_or(i32::MAX)),
        _ => f64::NAN,
    }
}

async fn is_reachable(pool: &PgPool) -> bool {
    matches!(timeout(CHECK_TIMEOUT, pool.acquire()).await, Ok(Ok(_)))
}

/// Returns the routes `/health/live`, `/health/ready` and `/metrics` of a recording process.
pub fn recording_health(state: HealthState) -> Router {
    Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state)
}

/// Answers 200 if events can be recorded, and 503 with the reason otherwise.
async fn ready(State(state): State<HealthState>) -> (StatusCode, String) {
    match state.readiness().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

impl HealthState {
    /// Returns the reason for which events cannot be recorded at present. Events can be recorded if the broker is connected,
    /// the stream is there, the broker gives all large bodies, the database accepts writes, and no batch has been waiting
    /// for over a minute.
    async fn readiness(&self) -> Result<(), String> {
        if !is_connected(&self.broker) {
            return Err("the broker cannot be reached".to_owned());
        }
        if let Some(reason) = self.blockage.reason(Instant::now()) {
            return Err(reason.to_owned());
        }
        let awaited = self.metrics.awaited_bodies.get();
        if awaited > 0 {
            return Err(format!("{awaited} events wait for large bodies, which the broker does not give"));
        }
        match timeout(CHECK_TIMEOUT, is_read_only(&self.pool)).await {
            Ok(Ok(false)) => Ok(()),
            Ok(Ok(true)) => Err("the database is read-only".to_owned()),
            Ok(Err(_)) | Err(_) => Err("the database cannot be reached".to_owned()),
        }
    }

    /// Sets the gauges that are true only at the moment of a scrape. A figure that cannot be taken is NaN.
    async fn measure(&self) {
        let metrics = &self.metrics;
        // Another process runs the verification, so the result is read from the database.
        let (backlog, verified, readiness) = tokio::join!(
            timeout(CHECK_TIMEOUT, backlog::read(&self.broker)),
            timeout(CHECK_TIMEOUT, verifications::latest(&self.pool)),
            self.readiness(),
        );
        let backlog = backlog.ok().and_then(Result::ok);
        metrics.ready.set(i64::from(readiness.is_ok()));
        metrics.broker_up.set(i64::from(backlog.is_some()));
        metrics.unrecorded.set(backlog.map_or(f64::NAN, |backlog| as_float(backlog.events)));
        let age = |at: OffsetDateTime| (OffsetDateTime::now_utc() - at).as_seconds_f64().max(0.0);
        metrics.oldest_event_age.set(backlog.map_or(f64::NAN, |backlog| backlog.oldest_at.map_or(0.0, age)));
        let verified = verified.ok().and_then(Result::ok);
        metrics.database_up.set(i64::from(verified.is_some()));
        let (differences, finished) = match verified {
            None => (f64::NAN, f64::NAN),
            Some(None) => (0.0, 0.0),
            Some(Some((finished_at, differences))) => {
                (as_float(differences.unsigned_abs()), as_float(finished_at.unix_timestamp().unsigned_abs()))
            }
        };
        metrics.verify_differences.set(differences);
        metrics.verify_finished.set(finished);
        metrics.batch_wait.set(self.blockage.batch_wait(Instant::now()).as_secs_f64());
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric needs no more than 53 bits")]
fn as_float(count: u64) -> f64 {
    count as f64
}

/// Returns true if the database refuses writes: a standby, or a database that was set to read-only.
async fn is_read_only(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT current_setting('transaction_read_only')::boolean").fetch_one(pool).await
}

async fn metrics(State(state): State<HealthState>, headers: HeaderMap) -> Response {
    state.measure().await;
    exposed(&state.registry, &headers, &metrics::RENAMED)
}

/// Returns the text of all metrics, in the format that the request accepts.
fn exposed(registry: &Registry, headers: &HeaderMap, renamed: &[RenamedMetric]) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let exposition = Exposition::accepted_by(accept);
    ([(header::CONTENT_TYPE, exposition.content_type())], render(registry, exposition, renamed)).into_response()
}

/// Counts the requests of the API by route and status.
pub async fn count_requests(State(metrics): State<Arc<ApiMetrics>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let began = Instant::now();
    let response = next.run(request).await;
    metrics.count(route.as_ref().map_or("none", MatchedPath::as_str), response.status().as_u16(), began.elapsed());
    response
}
