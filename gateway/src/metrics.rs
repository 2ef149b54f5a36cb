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
    pub chats_ended: Family<Outcome, Counter>,
    /// Chats under way.
    pub chats_open: Gauge,
    /// Requests that were refused before they became a chat, by status.
    pub refused: Family<Status, Counter>,
    /// From admission to the first token.
    pub first_token_seconds: Histogram,
    /// From admission to the end.
    pub chat_seconds: Histogram,
    /// Tokens as reported by upstreams, by direction.
    pub tokens: Family<Direction, Counter>,
    /// Events that are not durable yet.
    pub journal_waiting: Gauge,
    /// For how long the oldest of them has been waiting.
    pub journal_oldest_seconds: Gauge<f64, AtomicU64>,
    /// From publishing an event to the broker's acknowledgement.
    pub journal_ack_seconds: Histogram,
    /// Events that were published more than once.
    pub journal_retries: Counter,
    /// Connections from clients.
    pub connections: Gauge,
    /// Tries at upstreams, by upstream and outcome.
    pub upstream_tries: Family<UpstreamTry, Counter>,
}

/// How a try at an upstream went: a class of statuses, or what went wrong in one word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamTry {
    /// The upstream's name.
    pub upstream: String,
    /// The outcome.
    pub outcome: &'static str,
}

/// How a chat ended: `completed`, or the stage at which it failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// The outcome.
    pub outcome: &'static str,
}

/// An HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Status {
    /// The status.
    pub status: u16,
}

/// Which way tokens went: `prompt` or `completion`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Direction {
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
        registry.register("journal_waiting", "Events that are not durable yet", metrics.journal_waiting.clone());
        let oldest = metrics.journal_oldest_seconds.clone();
        registry.register_with_unit(
            "journal_oldest",
            "Age of the oldest event that is not durable",
            Unit::Seconds,
            oldest,
        );
        let ack = metrics.journal_ack_seconds.clone();
        registry.register_with_unit("journal_ack", "From publishing to acknowledgement", Unit::Seconds, ack);
        registry.register("journal_retries", "Events published more than once", metrics.journal_retries.clone());
        registry.register("connections", "Connections from clients", metrics.connections.clone());
        registry.register("upstream_tries", "Tries at upstreams, by outcome", metrics.upstream_tries.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
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
