//! The numbers of spans by outcome, for the metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// The numbers of spans by outcome: `sent` to the collector, `dropped` because too many were waiting, or `failed` because the collector did
/// not take them.
#[derive(Clone, Debug)]
pub struct SpanCounts(Family<SpanOutcome, Counter>);

/// The label of the metric of spans.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SpanOutcome {
    outcome: &'static str,
}

impl Default for SpanCounts {
    fn default() -> Self {
        let counts = Self(Family::default());
        // A rate can be computed only of a counter that exists before its first event.
        ["sent", "dropped", "failed"].into_iter().for_each(|outcome| counts.add(outcome, 0));
        counts
    }
}

impl SpanCounts {
    /// Returns the counters, to be registered.
    pub fn family(&self) -> Family<SpanOutcome, Counter> {
        self.0.clone()
    }

    pub(super) fn add(&self, outcome: &'static str, spans: usize) {
        self.0.get_or_create(&SpanOutcome { outcome }).inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }

    #[cfg(test)]
    pub(super) fn get(&self, outcome: &'static str) -> u64 {
        self.0.get_or_create(&SpanOutcome { outcome }).get()
    }
}
