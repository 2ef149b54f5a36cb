//! The metrics of `recorder serve`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The prefix of the API's metrics.
const PREFIX: &str = "stenograph_recorder_api";

/// The metrics of a process that serves the API.
#[derive(Debug)]
pub struct ApiMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabel, Histogram>,
    /// Open live streams, set at each scrape.
    pub live_streams: Gauge,
    /// Connections to the database, used and unused, set at each scrape.
    pub database_connections: Gauge,
    /// Connections to the database that are not in use, set at each scrape.
    pub idle_database_connections: Gauge,
    /// The maximum number of connections to the database.
    pub max_database_connections: Gauge,
    /// Entries of the audit log that wait for the broker, set at each scrape. NaN while the database gives no answer.
    pub audit_entries_waiting: Gauge<f64, AtomicU64>,
    /// 1 if the database gave a connection at the scrape, otherwise 0.
    pub database_up: Gauge,
}

/// The labels of an answered request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// The label of the duration of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

impl ApiMetrics {
    /// Creates the metrics and registers every metric. `registry` has no prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16))),
            live_streams: Gauge::default(),
            database_connections: Gauge::default(),
            idle_database_connections: Gauge::default(),
            max_database_connections: Gauge::default(),
            audit_entries_waiting: Gauge::default(),
            database_up: Gauge::default(),
        };
        registry.register("requests", "Answered requests, by route and status", metrics.requests.clone());
        let duration = "Time to the head of the answer, by route";
        registry.register_with_unit("request_duration", duration, Unit::Seconds, metrics.durations.clone());
        registry.register("live_streams", "Open live streams", metrics.live_streams.clone());
        let connections = "Connections to the database";
        registry.register("database_connections", connections, metrics.database_connections.clone());
        let idle = "Connections to the database that are not in use";
        registry.register("idle_database_connections", idle, metrics.idle_database_connections.clone());
        let most = "The maximum number of connections to the database";
        registry.register("max_database_connections", most, metrics.max_database_connections.clone());
        let waiting = "Entries of the audit log that wait for the broker, NaN while the database gives no answer";
        registry.register("audit_entries_waiting", waiting, metrics.audit_entries_waiting.clone());
        registry.register("database_up", "1 if the database answers, otherwise 0", metrics.database_up.clone());
        metrics
    }

    /// Counts an answered request. `route` is the pattern of the path, so that ids in paths make no further series.
    pub fn count(&self, route: &str, status: u16, duration: Duration) {
        self.requests.get_or_create(&RequestLabels { route: route.to_owned(), status }).inc();
        self.durations.get_or_create(&RouteLabel { route: route.to_owned() }).observe(duration.as_secs_f64());
    }
}
