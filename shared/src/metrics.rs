//! Metrics that both services have in common: the build, the process, and the text that Prometheus reads.

mod exposition;
mod process;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use exposition::{Exposition, RenamedMetric, render};
use process::ProcessCollector;

/// The labels of the metric `stenograph_build_info`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    /// The program: `gateway`, `recorder consume` or `recorder serve`.
    service: &'static str,
    /// The version of the program.
    version: &'static str,
}

/// Registers `stenograph_build_info` with the name of the program, and the `process_*` metrics. `registry` has no prefix.
pub fn register_process(registry: &mut Registry, service: &'static str) {
    let build = Family::<BuildLabels, Gauge>::default();
    build.get_or_create(&BuildLabels { service, version: env!("CARGO_PKG_VERSION") }).set(1);
    registry.register("stenograph_build_info", "The running program and its version, always 1", build);
    registry.register_collector(Box::new(ProcessCollector));
}
