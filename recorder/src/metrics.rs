//! The Prometheus metrics of the recorder's services. docs/OPERATIONS.md describes every metric.

pub mod api;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use shared::metrics::RenamedMetric;
use shared::traces::SpanCounts;

/// The prefix of the recorder's metrics.
const PREFIX: &str = "stenograph_recorder";

/// The metrics of a recording process.
///
/// A gauge of the state of other servers is set at each scrape, and is NaN while the server gives no answer: a gauge that kept
/// the last known value would say that all is well while nothing is recorded.
#[derive(Debug)]
pub struct Metrics {
    /// Batches of events recorded in the tables.
    pub batches: Counter,
    /// Events recorded in the tables, by kind.
    pub events: Family<KindLabel, Counter>,
    /// Events without any change to the tables, because of an earlier delivery.
    pub duplicates: Counter,
    /// Events put into quarantine.
    pub quarantined: Counter,
    /// Transactions tried again, by reason.
    pub retries: Family<ReasonLabel, Counter>,
    /// Detections of a broker whose stream had gone back to an earlier state.
    pub broker_regressions: Counter,
    /// Events read again after a new connection to the broker.
    pub read_again: Counter,
    /// Chats ended by a recorder after the loss of the gateway.
    pub orphaned: Counter,
    /// Gateways with open chats and no lease.
    pub gateways_missing: Gauge<f64, AtomicU64>,
    /// Events of the stream that no recorder has acknowledged, including events in hand. NaN while the broker gives no answer.
    pub unrecorded: Gauge<f64, AtomicU64>,
    /// The age of the oldest event that no recorder has acknowledged, in seconds; 0 without such an event. NaN while the broker
    /// gives no answer.
    pub oldest_event_age: Gauge<f64, AtomicU64>,
    /// The time of this process's latest commit of events, in seconds since 1970; 0 before the first.
    pub last_commit: Gauge,
    /// 1 if the process is ready, by the conditions of `/health/ready`; otherwise 0.
    pub ready: Gauge,
    /// 1 after somebody changed the stream, its consumer or a bucket so that events may be dropped, otherwise 0.
    pub settings_changed: Gauge,
    /// 1 if the broker is connected and answers, otherwise 0.
    pub broker_up: Gauge,
    /// 1 if the database answers, otherwise 0.
    pub database_up: Gauge,
    /// The time from a full batch to the acknowledgement of the batch, in seconds.
    pub duration: Histogram,
    /// Events that wait for their large bodies, which the broker does not give at present.
    pub awaited_bodies: Gauge,
    /// Failed tries to fetch a large body.
    pub body_fetch_failures: Counter,
    /// The time for which the batch in hand has been waiting to be written, in seconds; 0 without a batch.
    pub batch_wait: Gauge<f64, AtomicU64>,
    /// Rows that the latest `recorder verify` found to differ from the log.
    pub verify_differences: Gauge<f64, AtomicU64>,
    /// Spans of traces, by outcome.
    pub trace_spans: SpanCounts,
    /// The time at which the latest `recorder verify` finished, in seconds since 1970; 0 before the first.
    pub verify_finished: Gauge<f64, AtomicU64>,
}

/// The names of the release before.
pub const RENAMED: [RenamedMetric; 16] = [
    RenamedMetric { new: "stenograph_recorder_batches", old: "recorder_batches" },
    RenamedMetric { new: "stenograph_recorder_events", old: "recorder_events" },
    RenamedMetric { new: "stenograph_recorder_duplicates", old: "recorder_duplicates" },
    RenamedMetric { new: "stenograph_recorder_quarantined", old: "recorder_quarantined" },
    RenamedMetric { new: "stenograph_recorder_retries", old: "recorder_retries" },
    RenamedMetric { new: "stenograph_recorder_broker_regressions", old: "recorder_broker_regressions" },
    RenamedMetric { new: "stenograph_recorder_read_again", old: "recorder_read_again" },
    RenamedMetric { new: "stenograph_recorder_orphaned", old: "recorder_orphaned" },
    RenamedMetric { new: "stenograph_recorder_gateways_missing", old: "recorder_gateways_missing" },
    RenamedMetric { new: "stenograph_recorder_unrecorded_events", old: "recorder_pending_events" },
    RenamedMetric { new: "stenograph_recorder_oldest_event_age_seconds", old: "recorder_lag_seconds" },
    RenamedMetric { new: "stenograph_recorder_awaited_bodies", old: "recorder_awaited_bodies" },
    RenamedMetric { new: "stenograph_recorder_batch_wait_seconds", old: "recorder_batch_wait_seconds" },
    RenamedMetric { new: "stenograph_recorder_batch_duration_seconds", old: "recorder_batch_duration_seconds" },
    RenamedMetric { new: "stenograph_recorder_verify_differences", old: "recorder_verify_differences" },
    RenamedMetric {
        new: "stenograph_recorder_verify_finished_timestamp_seconds",
        old: "recorder_verify_finished_timestamp",
    },
];

/// The label of the metric `stenograph_recorder_events`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// The kind of event, as in the subjects of the stream.
    pub kind: &'static str,
}

/// The label of the metric `stenograph_recorder_retries`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// `wait` for the database, or `retry` after a conflict with another recorder.
    pub reason: &'static str,
}

impl Metrics {
    /// Creates the metrics and registers every metric with a name and a help text. `registry` has no prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let metrics = Self {
            batches: Counter::default(),
            events: Family::default(),
            duplicates: Counter::default(),
            quarantined: Counter::default(),
            retries: Family::default(),
            broker_regressions: Counter::default(),
            read_again: Counter::default(),
            orphaned: Counter::default(),
            gateways_missing: Gauge::default(),
            unrecorded: Gauge::default(),
            oldest_event_age: Gauge::default(),
            last_commit: Gauge::default(),
            ready: Gauge::default(),
            settings_changed: Gauge::default(),
            broker_up: Gauge::default(),
            database_up: Gauge::default(),
            awaited_bodies: Gauge::default(),
            body_fetch_failures: Counter::default(),
            batch_wait: Gauge::default(),
            verify_differences: Gauge::default(),
            trace_spans: SpanCounts::default(),
            verify_finished: Gauge::default(),
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        };
        registry.register("batches", "Batches recorded", metrics.batches.clone());
        registry.register("events", "Events recorded, by kind", metrics.events.clone());
        registry.register("duplicates", "Events that changed nothing", metrics.duplicates.clone());
        registry.register("quarantined", "Events put aside", metrics.quarantined.clone());
        registry.register("retries", "Transactions tried again, by reason", metrics.retries.clone());
        let regressions = "Times that the broker was seen to have gone back in time";
        registry.register("broker_regressions", regressions, metrics.broker_regressions.clone());
        let read_again = "Events read again because the connection to the broker was new";
        registry.register("read_again", read_again, metrics.read_again.clone());
        registry.register("orphaned", "Chats ended because their gateway was lost", metrics.orphaned.clone());
        registry.register("trace_spans", "Spans of traces, by outcome", metrics.trace_spans.family());
        metrics.register_state(registry);
        let duration = "From a full batch to its acknowledgement";
        registry.register_with_unit("batch_duration", duration, Unit::Seconds, metrics.duration.clone());
        metrics
    }

    /// Registers the gauges of the present state.
    fn register_state(&self, registry: &mut Registry) {
        registry.register("ready", "1 if the process is ready, otherwise 0", self.ready.clone());
        let changed =
            "1 if the stream, its consumer or a bucket was changed so that events may be dropped, otherwise 0";
        registry.register("settings_changed", changed, self.settings_changed.clone());
        registry.register("broker_up", "1 if the broker answers, otherwise 0", self.broker_up.clone());
        registry.register("database_up", "1 if the database answers, otherwise 0", self.database_up.clone());
        let unrecorded = "Events that no recorder has acknowledged, NaN while the broker gives no answer";
        registry.register("unrecorded_events", unrecorded, self.unrecorded.clone());
        let oldest = "Age of the oldest event that no recorder has acknowledged, NaN while the broker gives no answer";
        registry.register_with_unit("oldest_event_age", oldest, Unit::Seconds, self.oldest_event_age.clone());
        let commit = "Time of the latest commit of events by this process, in seconds since 1970, 0 if there was none";
        registry.register_with_unit("last_commit_timestamp", commit, Unit::Seconds, self.last_commit.clone());
        let missing = "Gateways with open chats and no lease, NaN while the leases cannot be read";
        registry.register("gateways_missing", missing, self.gateways_missing.clone());
        registry.register("awaited_bodies", "Events that wait for their large bodies", self.awaited_bodies.clone());
        let failures = "Failed tries to fetch a large body";
        registry.register("body_fetch_failures", failures, self.body_fetch_failures.clone());
        let wait = "Time for which the batch in hand has been waiting to be written";
        registry.register_with_unit("batch_wait", wait, Unit::Seconds, self.batch_wait.clone());
        let differences =
            "Rows that the latest recorder verify found to differ, NaN while the database gives no answer";
        registry.register("verify_differences", differences, self.verify_differences.clone());
        let finished = "When the latest recorder verify was finished, in seconds since 1970, 0 if there was none";
        registry.register_with_unit("verify_finished_timestamp", finished, Unit::Seconds, self.verify_finished.clone());
    }
}

#[cfg(test)]
mod tests {
    use shared::metrics::{Exposition, render};

    use super::*;

    /// The names of the metrics in a table of the page, by a prefix.
    fn documented(prefix: &str) -> Vec<String> {
        let page = include_str!("../../docs/OPERATIONS.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let mut names: Vec<_> = rows.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect();
        names.sort();
        names
    }

    fn registered(registry: &Registry, prefix: &str) -> Vec<String> {
        let text = render(registry, Exposition::OpenMetrics, &[]);
        let help = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
        let mut names: Vec<_> = help.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect();
        names.sort();
        names
    }

    #[test]
    fn the_operations_page_lists_every_metric() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        // The text lists no metric that has never been counted.
        metrics.events.get_or_create(&KindLabel { kind: "started" }).inc();
        metrics.retries.get_or_create(&ReasonLabel { reason: "wait" }).inc();
        let api = api::ApiMetrics::register(&mut registry);
        api.count("/api/chats", 200, std::time::Duration::ZERO);
        assert_eq!(documented("stenograph_recorder"), registered(&registry, "stenograph_recorder"));
        let names = registered(&registry, PREFIX);
        for renamed in RENAMED {
            assert!(names.contains(&renamed.new.to_owned()), "{} is not a metric", renamed.new);
        }
    }
}
