//! The Prometheus metrics of a recording process. docs/OPERATIONS.md describes every metric.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The metrics of a recording process.
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
    pub gateways_missing: Gauge,
    /// Events in the stream that the broker has not delivered yet.
    pub pending: Gauge,
    /// The age of the oldest event in the last batch at the time of recording, in seconds.
    pub lag: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// The time from a full batch to the acknowledgement of the batch, in seconds.
    pub duration: Histogram,
    /// Events that wait for their large bodies, which the broker does not give at present.
    pub awaited_bodies: Gauge,
    /// The time for which the batch in hand has been waiting to be written, in seconds; 0 without a batch.
    pub batch_wait: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// Rows that the latest `recorder verify` found to differ from the log.
    pub verify_differences: Gauge,
    /// The time at which the latest `recorder verify` finished, in seconds since 1970; 0 before the first.
    pub verify_finished: Gauge,
}

/// The label of the metric `recorder_events`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// The kind of event, as in the subjects of the stream.
    pub kind: &'static str,
}

/// The label of the metric `recorder_retries`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// `wait` for the database, or `retry` after a conflict with another recorder.
    pub reason: &'static str,
}

impl Metrics {
    /// Creates the metrics and registers every metric with a name and a help text.
    pub fn register(registry: &mut Registry) -> Self {
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
            pending: Gauge::default(),
            awaited_bodies: Gauge::default(),
            batch_wait: Gauge::default(),
            verify_differences: Gauge::default(),
            verify_finished: Gauge::default(),
            lag: Gauge::default(),
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        };
        registry.register("recorder_batches", "Batches recorded", metrics.batches.clone());
        registry.register("recorder_events", "Events recorded, by kind", metrics.events.clone());
        registry.register("recorder_duplicates", "Events that changed nothing", metrics.duplicates.clone());
        registry.register("recorder_quarantined", "Events put aside", metrics.quarantined.clone());
        registry.register("recorder_retries", "Transactions tried again, by reason", metrics.retries.clone());
        let regressions = "Times that the broker was seen to have gone back in time";
        registry.register("recorder_broker_regressions", regressions, metrics.broker_regressions.clone());
        let read_again = "Events read again because the connection to the broker was new";
        registry.register("recorder_read_again", read_again, metrics.read_again.clone());
        let orphaned = "Chats ended because their gateway was lost";
        registry.register("recorder_orphaned", orphaned, metrics.orphaned.clone());
        let missing = "Gateways with open chats and no lease";
        registry.register("recorder_gateways_missing", missing, metrics.gateways_missing.clone());
        registry.register("recorder_pending_events", "Events not delivered yet", metrics.pending.clone());
        let awaited = "Events that wait for their large bodies";
        registry.register("recorder_awaited_bodies", awaited, metrics.awaited_bodies.clone());
        let wait = "Time for which the batch in hand has been waiting to be written";
        registry.register_with_unit("recorder_batch_wait", wait, Unit::Seconds, metrics.batch_wait.clone());
        let differences = "Rows that the latest recorder verify found to differ from the log";
        registry.register("recorder_verify_differences", differences, metrics.verify_differences.clone());
        let finished = "When the latest recorder verify was finished: seconds since 1970, 0 if there was none";
        registry.register("recorder_verify_finished_timestamp", finished, metrics.verify_finished.clone());
        let oldest = "Age of the oldest event in the last batch when it was recorded";
        registry.register_with_unit("recorder_lag", oldest, Unit::Seconds, metrics.lag.clone());
        let duration = "From a full batch to its acknowledgement";
        registry.register_with_unit("recorder_batch_duration", duration, Unit::Seconds, metrics.duration.clone());
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operations_page_lists_every_metric() {
        let page = include_str!("../../docs/OPERATIONS.md");
        let mut registry = Registry::default();
        let _metrics = Metrics::register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let help = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
        let names: Vec<_> = help.map(|(name, _)| name.trim_end_matches("_seconds")).collect();
        assert!(names.len() > 10, "{text}");
        for name in &names {
            assert!(page.contains(&format!("| `{name}` |")), "docs/OPERATIONS.md lacks {name}");
        }
        for line in page.lines().filter_map(|line| line.strip_prefix("| `recorder_")) {
            let name = format!("recorder_{}", line.split('`').next().unwrap());
            // A labelled metric without any value is missing from the encoded text, so the source is searched instead.
            let is_there = include_str!("metrics.rs").contains(&format!("\"{name}\""));
            assert!(is_there, "docs/OPERATIONS.md lists {name}, but metrics.rs does not register the metric");
        }
    }
}
