//! The text of all metrics, in the format that the scraper asks for.

use std::fmt::Write as _;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// A format of the metrics' text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus, which `promtool check metrics` and older scrapers read.
    Prometheus,
}

/// A metric that had another name in the release before. The metric is served under both names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenamedMetric {
    /// The present name, without `_total`.
    pub new: &'static str,
    /// The name in the release before, without `_total`.
    pub old: &'static str,
}

// === impl Exposition ===

impl Exposition {
    /// Chooses the format for the value of a request's `Accept` header: OpenMetrics if the value names it, else the text
    /// format of Prometheus.
    pub fn accepted_by(accept: Option<&str>) -> Self {
        match accept {
            Some(value) if value.contains("application/openmetrics-text") => Self::OpenMetrics,
            Some(_) | None => Self::Prometheus,
        }
    }

    /// Returns the value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Writes all metrics of the registry as text. A renamed metric follows itself under its old name.
pub fn render(registry: &Registry, exposition: Exposition, renamed: &[RenamedMetric]) -> String {
    let mut encoded = String::new();
    if encode(&mut encoded, registry).is_err() {
        // Writing to a string does not fail. Should it fail, the text says so instead of looking complete.
        return "# incomplete\n".to_owned();
    }
    let mut text = String::with_capacity(encoded.len() + encoded.len() / 4);
    for family in families(&encoded) {
        family.write(&mut text, exposition, family.name);
        for renamed in renamed.iter().filter(|renamed| renamed.new == family.name) {
            family.write(&mut text, exposition, renamed.old);
        }
    }
    if exposition == Exposition::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// The lines of one metric in the encoded text.
struct MetricFamily<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

fn families(encoded: &str) -> Vec<MetricFamily<'_>> {
    let mut families: Vec<MetricFamily<'_>> = Vec::new();
    for line in encoded.lines().filter(|line| *line != "# EOF") {
        if let Some(name) = line.strip_prefix("# HELP ").and_then(|rest| rest.split(' ').next()) {
            families.push(MetricFamily { name, lines: Vec::new() });
        }
        if let Some(family) = families.last_mut() {
            family.lines.push(line);
        }
    }
    families
}

// === impl MetricFamily ===

impl MetricFamily<'_> {
    /// Writes the family under this name.
    fn write(&self, text: &mut String, exposition: Exposition, name: &str) {
        let is_counter = self.lines.iter().any(|line| line.starts_with("# TYPE ") && line.ends_with(" counter"));
        let is_prometheus = exposition == Exposition::Prometheus;
        // In the older format, the suffix belongs to the name of the family.
        let suffix = if is_prometheus && is_counter { "_total" } else { "" };
        for line in &self.lines {
            let written = match line.strip_prefix("# ").and_then(|comment| comment.split_once(' ')) {
                // The older format has no units. An old name need not end in the unit, as OpenMetrics wants.
                Some(("UNIT", _)) if is_prometheus || name != self.name => Ok(()),
                Some((keyword, rest)) => {
                    let rest = rest.strip_prefix(self.name).unwrap_or_default();
                    writeln!(text, "# {keyword} {name}{suffix}{rest}")
                }
                None => writeln!(text, "{name}{}", line.strip_prefix(self.name).unwrap_or_default()),
            };
            // Writing to a string does not fail.
            debug_assert!(written.is_ok(), "a line of the metrics could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Unit;

    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        let all = registry.sub_registry_with_prefix("stenograph_recorder");
        let counter = Counter::<u64>::default();
        counter.inc_by(3);
        all.register("batches", "Batches recorded", counter);
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(f64::NAN);
        all.register_with_unit("lag", "Age", Unit::Seconds, gauge);
        let histogram = Histogram::new([1.0]);
        histogram.observe(0.5);
        all.register("sizes", "Sizes", histogram);
        registry
    }

    const RENAMED: [RenamedMetric; 2] = [
        RenamedMetric { new: "stenograph_recorder_batches", old: "recorder_batches" },
        RenamedMetric { new: "stenograph_recorder_lag_seconds", old: "recorder_lag_seconds" },
    ];

    #[test]
    fn open_metrics_has_units_an_end_and_old_names() {
        let text = render(&registry(), Exposition::OpenMetrics, &RENAMED);
        let expected = "# HELP stenograph_recorder_batches Batches recorded.\n\
            # TYPE stenograph_recorder_batches counter\n\
            stenograph_recorder_batches_total 3\n\
            # HELP recorder_batches Batches recorded.\n\
            # TYPE recorder_batches counter\n\
            recorder_batches_total 3\n\
            # HELP stenograph_recorder_lag_seconds Age.\n\
            # TYPE stenograph_recorder_lag_seconds gauge\n\
            # UNIT stenograph_recorder_lag_seconds seconds\n\
            stenograph_recorder_lag_seconds NaN\n\
            # HELP recorder_lag_seconds Age.\n\
            # TYPE recorder_lag_seconds gauge\n\
            recorder_lag_seconds NaN\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("stenograph_recorder_sizes_bucket{le=\"+Inf\"} 1\n# EOF\n"), "{text}");
    }

    #[test]
    fn the_older_format_names_counters_with_their_suffix() {
        let text = render(&registry(), Exposition::Prometheus, &RENAMED);
        let expected = "# HELP recorder_batches_total Batches recorded.\n# TYPE recorder_batches_total counter\nrecorder_batches_total 3\n";
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
        assert!(
            text.contains("# TYPE stenograph_recorder_sizes histogram\nstenograph_recorder_sizes_sum 0.5\n"),
            "{text}"
        );
    }

    #[test]
    fn the_scraper_chooses_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3";
        assert_eq!(Exposition::accepted_by(Some(prometheus)), Exposition::OpenMetrics);
        assert_eq!(Exposition::accepted_by(Some("*/*")), Exposition::Prometheus);
        assert_eq!(Exposition::accepted_by(None), Exposition::Prometheus);
    }

    #[test]
    fn the_process_and_the_build_are_measured() {
        let mut registry = Registry::default();
        super::super::register_process(&mut registry, "gateway");
        let text = render(&registry, Exposition::Prometheus, &[]);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        assert!(text.contains("stenograph_build_info{service=\"gateway\",version=\""), "{text}");
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") > 2.0 && value("process_max_fds") > value("process_open_fds"));
        let age = time::OffsetDateTime::now_utc().unix_timestamp() as f64 - value("process_start_time_seconds");
        assert!((-60.0..1e6).contains(&age), "{age}");
        assert!(value("process_cpu_seconds_total") >= 0.0 && value("process_threads") >= 1.0);
    }
}
