//! What the gateway counts, in Prometheus's text format.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The gateway's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Chats that were admitted.
    pub chats_started: Counter,
    /// Chats that ended, by outcome.
    pub chats_ended: Family<OutcomeLabels, Counter>,
    /// Chats under way.
    pub chats_open: Gauge,
    /// Requests that were refused before they became a chat, by status.
    pub refused: Family<StatusLabels, Counter>,
    /// From admission to the first token.
    pub first_token_seconds: Histogram,
    /// From admission to the end.
    pub chat_seconds: Histogram,
    /// Tokens as reported by upstreams, by direction.
    pub tokens: Family<DirectionLabels, Counter>,
    /// Events that the broker has not acknowledged.
    pub journal_waiting: Gauge,
    /// The age of the oldest of them.
    pub journal_oldest_seconds: Gauge<f64, AtomicU64>,
    /// The size of the journal on disk, in bytes.
    pub journal_bytes: Gauge,
    /// Whether the journal can be written: 1 or 0.
    pub journal_writable: Gauge,
    /// How often the journal was synced, with any number of events.
    pub journal_fsyncs: Counter,
    /// How often that failed.
    pub journal_fsync_failures: Counter,
    /// How long it took.
    pub journal_fsync_seconds: Histogram,
    /// Places where records were damaged.
    pub journal_damaged: Counter,
    /// Events that nobody waited for any longer: they were not as durable as they should be when their effect was seen.
    pub journal_late: Counter,
    /// Released events that were published again because the broker had lost what it had acknowledged.
    pub journal_republished: Counter,
    /// Events that the broker does not take because of their size.
    pub journal_oversized: Gauge,
    /// From publishing an event to the broker's acknowledgement.
    pub journal_ack_seconds: Histogram,
    /// Events that were published more than once.
    pub journal_retries: Counter,
    /// Connections from clients.
    pub connections: Gauge,
    /// Tries at upstreams, by upstream and outcome.
    pub upstream_tries: Family<UpstreamTryLabels, Counter>,
}

/// How a try at an upstream went: a class of statuses, or what went wrong in one word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamTryLabels {
    /// The upstream's name.
    pub upstream: String,
    /// The outcome.
    pub outcome: &'static str,
}

/// How a chat ended: `completed`, or the stage at which it failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// The outcome.
    pub outcome: &'static str,
}

/// An HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabels {
    /// The status.
    pub status: u16,
}

/// Which way tokens went: `prompt` or `completion`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectionLabels {
    /// The direction.
    pub direction: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("stenograph_gateway");
        let seconds = || exponential_buckets(0.01, 2.0, 18);
        let metrics = Self {
            chats_started: Counter::default(),
            chats_ended: Family::default(),
            chats_open: Gauge::default(),
            refused: Family::default(),
            first_token_seconds: Histogram::new(seconds()),
            chat_seconds: Histogram::new(seconds()),
            tokens: Family::default(),
            journal_waiting: Gauge::default(),
            journal_oldest_seconds: Gauge::default(),
            journal_bytes: Gauge::default(),
            journal_writable: Gauge::default(),
            journal_fsyncs: Counter::default(),
            journal_fsync_failures: Counter::default(),
            journal_fsync_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 18)),
            journal_damaged: Counter::default(),
            journal_late: Counter::default(),
            journal_republished: Counter::default(),
            journal_oversized: Gauge::default(),
            journal_ack_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 18)),
            journal_retries: Counter::default(),
            connections: Gauge::default(),
            upstream_tries: Family::default(),
            registry: Registry::default(),
        };
        registry.register("chats_started", "Chats that were admitted", metrics.chats_started.clone());
        registry.register("chats_ended", "Chats that ended, by outcome", metrics.chats_ended.clone());
        registry.register("chats_open", "Chats under way", metrics.chats_open.clone());
        registry.register("refused", "Requests refused before they became a chat, by status", metrics.refused.clone());
        let first_token = metrics.first_token_seconds.clone();
        registry.register_with_unit("first_token", "From admission to the first token", Unit::Seconds, first_token);
        registry.register_with_unit("chat", "From admission to the end", Unit::Seconds, metrics.chat_seconds.clone());
        registry.register("tokens", "Tokens as reported by upstreams", metrics.tokens.clone());
        metrics.register_journal(&mut registry);
        registry.register("connections", "Connections from clients", metrics.connections.clone());
        registry.register("upstream_tries", "Tries at upstreams, by outcome", metrics.upstream_tries.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    fn register_journal(&self, registry: &mut Registry) {
        let oldest = self.journal_oldest_seconds.clone();
        let help = "Events that the broker has not acknowledged";
        registry.register("journal_waiting", help, self.journal_waiting.clone());
        registry.register_with_unit("journal_oldest", "Age of the oldest of them", Unit::Seconds, oldest);
        let help = "Size of the journal on disk";
        registry.register("journal_bytes", help, self.journal_bytes.clone());
        let help = "Whether the journal can be written";
        registry.register("journal_writable", help, self.journal_writable.clone());
        registry.register("journal_fsyncs", "Syncs of the journal", self.journal_fsyncs.clone());
        let help = "Syncs of the journal that failed";
        registry.register("journal_fsync_failures", help, self.journal_fsync_failures.clone());
        let fsync = self.journal_fsync_seconds.clone();
        registry.register_with_unit("journal_fsync", "How long syncs of the journal took", Unit::Seconds, fsync);
        let help = "Places in the journal where records were damaged";
        registry.register("journal_damaged", help, self.journal_damaged.clone());
        let help = "Events whose effect was seen before they were as durable as they should be";
        registry.register("journal_late", help, self.journal_late.clone());
        let help = "Released events published again because the broker had lost them";
        registry.register("journal_republished", help, self.journal_republished.clone());
        let help = "Events that the broker does not take because of their size";
        registry.register("journal_oversized", help, self.journal_oversized.clone());
        let ack = self.journal_ack_seconds.clone();
        registry.register_with_unit("journal_ack", "From publishing to acknowledgement", Unit::Seconds, ack);
        registry.register("journal_retries", "Events published more than once", self.journal_retries.clone());
    }

    /// Everything, as text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to a string does not fail; say so rather than serve half a page.
            let _ = write!(text, "# incomplete");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operations_page_lists_every_metric() {
        let page = include_str!("../../docs/OPERATIONS.md");
        let documented: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `stenograph_gateway_")?.split('`').next())
            .map(str::to_owned)
            .collect();
        let metrics = Metrics::default();
        // What has counted nothing yet is not in the text.
        metrics.chats_ended.get_or_create(&OutcomeLabels { outcome: "completed" }).inc();
        metrics.refused.get_or_create(&StatusLabels { status: 401 }).inc();
        metrics.tokens.get_or_create(&DirectionLabels { direction: "prompt" }).inc();
        metrics.upstream_tries.get_or_create(&UpstreamTryLabels { upstream: "u".into(), outcome: "answered" }).inc();
        let text = metrics.render();
        let help = text.lines().filter_map(|line| line.strip_prefix("# HELP stenograph_gateway_")?.split(' ').next());
        let mut there: Vec<_> = help.map(|name| name.trim_end_matches("_seconds").to_owned()).collect();
        there.sort();
        let mut documented = documented;
        documented.sort();
        assert_eq!(documented, there);
    }
}
