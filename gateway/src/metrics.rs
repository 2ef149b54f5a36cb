//! The gateway's metrics in Prometheus's text format.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use shared::metrics::{Exposition, render};
use shared::traces::SpanCounts;

/// The gateway's metrics, with the prefix `stenograph_gateway`. docs/OPERATIONS.md describes each metric.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The number of admitted chats.
    pub chats_started: Counter,
    /// The number of ended chats, by outcome.
    pub chats_ended: Family<OutcomeLabels, Counter>,
    /// The number of chats in progress.
    pub chats_open: Gauge,
    /// Chats whose answers providers make in the background, followed by this gateway.
    pub background_chats: Gauge,
    /// The number of requests refused before becoming a chat, by HTTP status.
    pub refused: Family<StatusLabels, Counter>,
    /// The time from a chat's admission to the first token, in seconds.
    pub first_token_seconds: Histogram,
    /// The time from a chat's admission to the chat's end, in seconds.
    pub chat_seconds: Histogram,
    /// The number of tokens reported by upstreams, by direction.
    pub tokens: Family<DirectionLabels, Counter>,
    /// The number of events that the broker has not acknowledged.
    pub journal_waiting: Gauge,
    /// The age of the oldest unacknowledged event, in seconds.
    pub journal_oldest_seconds: Gauge<f64, AtomicU64>,
    /// The size of the journal on disk, in bytes.
    pub journal_bytes: Gauge,
    /// 1 if the journal can be written, otherwise 0.
    pub journal_writable: Gauge,
    /// The number of syncs of the journal. One sync covers any number of events.
    pub journal_fsyncs: Counter,
    /// The number of failed syncs of the journal.
    pub journal_fsync_failures: Counter,
    /// The duration of a sync of the journal, in seconds.
    pub journal_fsync_seconds: Histogram,
    /// The number of damaged places in the journal.
    pub journal_damaged: Counter,
    /// The number of events whose effect was seen before the events were as durable as configured, because waiting took
    /// too long.
    pub journal_late: Counter,
    /// The number of released events published again after the broker had lost acknowledged events.
    pub journal_republished: Counter,
    /// The number of events that wait because the broker refuses their size.
    pub journal_oversized: Gauge,
    /// The time from publishing an event to the broker's acknowledgement, in seconds.
    pub journal_ack_seconds: Histogram,
    /// The number of times that an event was published again for want of an acknowledgement.
    pub journal_retries: Counter,
    /// The number of bytes that request bodies hold.
    pub body_bytes: Gauge,
    /// The number of API keys that the gateway knows.
    pub access_keys: Gauge,
    /// 1 while the API keys are those of the broker, 0 while the broker is away.
    pub access_current: Gauge,
    /// The number of open connections from clients.
    pub connections: Gauge,
    /// The number of attempts at upstreams, by upstream and outcome.
    pub upstream_tries: Family<UpstreamTryLabels, Counter>,
    /// The time from the beginning of an attempt to the head of the response or the failure, in seconds, by upstream.
    pub upstream_head_seconds: Family<UpstreamLabel, Histogram>,
    /// 1 if the circuit breaker of the upstream is open, otherwise 0; set at each scrape.
    pub upstream_breaker_open: Family<UpstreamLabel, Gauge>,
    /// The number of calls refused by a limit of a user, key, project, model or the deployment.
    pub limit_refusals: Family<LimitRefusalLabels, Counter>,
    /// The limits that `chats_open`, `connections`, `body_bytes` and `journal_bytes` run into.
    pub limits: LimitGauges,
    /// Spans of traces, by outcome.
    pub trace_spans: SpanCounts,
}

/// The limits beside the gauges that they limit.
#[derive(Debug, Default)]
pub struct LimitGauges {
    /// The maximum number of chats.
    pub chats: Gauge,
    /// The maximum number of connections from clients.
    pub connections: Gauge,
    /// The maximum number of bytes that request bodies may hold.
    pub body_bytes: Gauge,
    /// The maximum size of the journal on disk, in bytes; 0 without a journal.
    pub journal_bytes: Gauge,
}

/// The label of a measurement of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamLabel {
    /// The name of the upstream.
    pub upstream: String,
}

/// The labels of an attempt at an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamTryLabels {
    /// The name of the upstream.
    pub upstream: String,
    /// A class of HTTP statuses, or the kind of failure in one word.
    pub outcome: &'static str,
}

/// The label of an ended chat.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// The outcome: `completed`, or the stage at which the chat failed.
    pub outcome: &'static str,
}

/// The label of a refused request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabels {
    /// The HTTP status of the refusal.
    pub status: u16,
}

/// The labels of a call refused by a limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitRefusalLabels {
    /// The kind of scope: `user`, `key`, `project`, `model` or `deployment`.
    pub scope: &'static str,
    /// The limit, as in the API.
    pub limit: &'static str,
}

/// The label of a number of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectionLabels {
    /// The direction of the tokens: `prompt` or `completion`.
    pub direction: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::default();
        shared::metrics::register_process(&mut all, "gateway");
        let registry = all.sub_registry_with_prefix("stenograph_gateway");
        let seconds = || exponential_buckets(0.01, 2.0, 18);
        let metrics = Self {
            chats_started: Counter::default(),
            chats_ended: Family::default(),
            chats_open: Gauge::default(),
            background_chats: Gauge::default(),
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
            body_bytes: Gauge::default(),
            access_keys: Gauge::default(),
            access_current: Gauge::default(),
            connections: Gauge::default(),
            upstream_tries: Family::default(),
            upstream_head_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 18))),
            upstream_breaker_open: Family::default(),
            limit_refusals: Family::default(),
            trace_spans: SpanCounts::default(),
            limits: LimitGauges::default(),
            registry: Registry::default(),
        };
        registry.register("chats_started", "Chats that were admitted", metrics.chats_started.clone());
        registry.register("chats_ended", "Chats that ended, by outcome", metrics.chats_ended.clone());
        registry.register("chats_open", "Chats under way", metrics.chats_open.clone());
        let help = "Chats whose answers providers make in the background, followed by this gateway";
        registry.register("background_chats", help, metrics.background_chats.clone());
        registry.register("refused", "Requests refused before they became a chat, by status", metrics.refused.clone());
        let first_token = metrics.first_token_seconds.clone();
        registry.register_with_unit("first_token", "From admission to the first token", Unit::Seconds, first_token);
        registry.register_with_unit("chat", "From admission to the end", Unit::Seconds, metrics.chat_seconds.clone());
        registry.register("tokens", "Tokens as reported by upstreams", metrics.tokens.clone());
        metrics.register_journal(registry);
        registry.register("body_bytes", "Bytes that request bodies hold", metrics.body_bytes.clone());
        registry.register("access_keys", "API keys that the gateway knows", metrics.access_keys.clone());
        let help = "Whether the API keys are those of the broker";
        registry.register("access_current", help, metrics.access_current.clone());
        registry.register("connections", "Connections from clients", metrics.connections.clone());
        registry.register("upstream_tries", "Tries at upstreams, by outcome", metrics.upstream_tries.clone());
        metrics.register_upstreams_and_limits(registry);
        Self { registry: all, ..metrics }
    }
}

impl Metrics {
    fn register_upstreams_and_limits(&self, registry: &mut Registry) {
        let head = self.upstream_head_seconds.clone();
        let help = "From the beginning of a try to the head of the response or the failure, by upstream";
        registry.register_with_unit("upstream_head", help, Unit::Seconds, head);
        let help = "1 if the circuit breaker of the upstream is open, otherwise 0";
        registry.register("upstream_breaker_open", help, self.upstream_breaker_open.clone());
        registry.register("trace_spans", "Spans of traces, by outcome", self.trace_spans.family());
        let help = "Calls refused by a limit of a user, key, project, model or the deployment";
        registry.register("limit_refusals", help, self.limit_refusals.clone());
        registry.register("chats_limit", "The maximum number of chats", self.limits.chats.clone());
        let help = "The maximum number of connections from clients";
        registry.register("connections_limit", help, self.limits.connections.clone());
        let help = "The maximum number of bytes that request bodies may hold";
        registry.register_with_unit("body_limit", help, Unit::Bytes, self.limits.body_bytes.clone());
        let help = "The maximum size of the journal on disk";
        registry.register_with_unit("journal_limit", help, Unit::Bytes, self.limits.journal_bytes.clone());
    }

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

    /// Returns all metrics as text.
    pub fn render(&self, exposition: Exposition) -> String {
        render(&self.registry, exposition, &[])
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
        // The text lists no metric that has never been counted.
        metrics.chats_ended.get_or_create(&OutcomeLabels { outcome: "completed" }).inc();
        metrics.refused.get_or_create(&StatusLabels { status: 401 }).inc();
        metrics.limit_refusals.get_or_create(&LimitRefusalLabels { scope: "user", limit: "requestsPerMinute" }).inc();
        metrics.tokens.get_or_create(&DirectionLabels { direction: "prompt" }).inc();
        metrics.upstream_tries.get_or_create(&UpstreamTryLabels { upstream: "u".into(), outcome: "answered" }).inc();
        let upstream = UpstreamLabel { upstream: "u".into() };
        metrics.upstream_head_seconds.get_or_create(&upstream).observe(0.1);
        metrics.upstream_breaker_open.get_or_create(&upstream).set(0);
        let text = metrics.render(Exposition::OpenMetrics);
        let help = text.lines().filter_map(|line| line.strip_prefix("# HELP stenograph_gateway_")?.split(' ').next());
        let mut there: Vec<_> = help.map(str::to_owned).collect();
        there.sort();
        let mut documented = documented;
        documented.sort();
        assert_eq!(documented, there);
    }
}
