//! The `process_*` metrics, with the names and units of Prometheus's own client libraries, read from `/proc` at each scrape.

use procfs::process::{LimitValue, Process};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// A collector that reads the state of this process. Encodes nothing where `/proc` cannot be read.
#[derive(Debug)]
pub(super) struct ProcessCollector;

/// The state of the process at one moment.
struct ProcessState {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_descriptors: u64,
    max_descriptors: u64,
    threads: u64,
    started_at: f64,
}

impl ProcessState {
    fn read() -> procfs::ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 clock ticks, millions of years")]
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        let max_descriptors = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => limit,
            LimitValue::Unlimited => u64::MAX,
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
        let booted_at = procfs::boot_time_secs()? as f64;
        Ok(Self {
            cpu_seconds: seconds(stat.utime + stat.stime),
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_descriptors: process.fd_count()? as u64,
            max_descriptors,
            threads: u64::try_from(stat.num_threads).unwrap_or_default(),
            started_at: booted_at + seconds(stat.starttime),
        })
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Ok(state) = ProcessState::read() else { return Ok(()) };
        let cpu = ConstCounter::new(state.cpu_seconds);
        let help = "Processor time of the process, user and system, in seconds";
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?)?;
        let started = ConstGauge::new(state.started_at);
        let help = "Start of the process, in seconds since 1970";
        started.encode(encoder.encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?)?;
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory, in bytes", state.resident_bytes),
            ("process_virtual_memory_bytes", "Virtual memory, in bytes", state.virtual_bytes),
            ("process_open_fds", "Open file descriptors", state.open_descriptors),
            ("process_max_fds", "The soft limit of open file descriptors", state.max_descriptors),
            ("process_threads", "Threads of the process", state.threads),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
