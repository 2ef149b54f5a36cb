//! What is put under load, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load::client::{ChatError, Endpoint};
use crate::load::process_meter::ProcessMeter;

/// What is put under load.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called in the report.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its process, if that is known.
    pub meter: Option<ProcessMeter>,
    /// The broker's, if it has one of its own.
    pub broker: Option<ProcessMeter>,
}

/// What came out of one scenario on one target.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Chats that were complete, those outside the measured window too.
    pub completed: u64,
    /// Chats that were not.
    pub failures: Failures,
    /// What was measured, by name; the unit is the name's end.
    pub measures: BTreeMap<String, f64>,
}

impl Outcome {
    pub(super) fn measure(&mut self, name: &str, value: f64) {
        self.measures.insert(name.to_owned(), value);
    }

    /// The quantiles of a latency, in microseconds.
    pub(super) fn latency(&mut self, name: &str, latency: &Latency) {
        for (quantile, label) in [(0.5, "p50"), (0.99, "p99"), (1.0, "max")] {
            self.measure(&format!("{name}_{label}_us"), latency.micros(quantile));
        }
    }
}

/// Chats that did not count, and what the first of them said.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// Why, for the first few.
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

/// A distribution of durations: to the nanosecond at the low end, three digits everywhere, up to 2 minutes.
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

    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    pub(super) fn micros(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}
