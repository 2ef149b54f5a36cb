//! Target and outcome of a scenario.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load::client::{ChatError, Endpoint};
use crate::load::process_meter::ProcessMeter;

/// A target of the load.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name of the target in the report.
    pub name: String,
    /// Address and credentials of the target.
    pub endpoint: Endpoint,
    /// Meter of the target's process, if the process is known.
    pub meter: Option<ProcessMeter>,
    /// Meter of the target's broker, if the target has a broker.
    pub broker: Option<ProcessMeter>,
}

/// Outcome of one scenario on one target.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Number of completed chats, chats outside the measured time included.
    pub completed: u64,
    /// Failed chats, with reasons.
    pub failures: Failures,
    /// Measures by name. The end of the name is the unit.
    pub measures: BTreeMap<String, f64>,
}

impl Outcome {
    pub(super) fn measure(&mut self, name: &str, value: f64) {
        self.measures.insert(name.to_owned(), value);
    }

    /// Adds quantiles of a latency, in microseconds.
    pub(super) fn latency(&mut self, name: &str, latency: &Latency) {
        for (quantile, label) in [(0.5, "p50"), (0.99, "p99"), (1.0, "max")] {
            self.measure(&format!("{name}_{label}_us"), latency.micros(quantile));
        }
    }
}

/// Failed chats, with the reasons of the first.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// Number of failed chats.
    pub count: u64,
    /// Reasons of the first three failures.
    pub reasons: Vec<String>,
}

impl Failures {
    pub(super) fn add(&mut self, error: &ChatError) {
        self.count += 1;
        if self.reasons.len() < 3 {
            self.reasons.push(error.to_string());
        }
    }
}

/// Histogram of durations from a nanosecond to two minutes, with three significant digits.
#[derive(Debug)]
pub(super) struct Latency(Histogram<u64>);

impl Latency {
    pub(super) fn new() -> Self {
        // These bounds are valid, so the fallback is never taken.
        Self(Histogram::new_with_bounds(1, 120_000_000_000, 3).unwrap_or_else(|_| unreachable!("fixed bounds")))
    }

    pub(super) fn record(&mut self, duration: Duration) {
        self.record_nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn record_nanos(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    #[expect(clippy::cast_precision_loss, reason = "rounding is acceptable in a printed report")]
    pub(super) fn micros(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}
