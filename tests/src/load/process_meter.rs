//! What a process has used: CPU to the nanosecond, resident memory.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// Reads `/proc` about one process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMeter {
    pid: u32,
}

/// The CPU time that a process had used at one moment.
#[derive(Debug)]
pub struct CpuTime {
    /// Nanoseconds of each living thread, exact.
    threads: HashMap<u32, u64>,
    /// User and system time of all threads, those that have ended too; in clock ticks of about 10 ms.
    ticks: Duration,
}

impl ProcessMeter {
    /// About this process.
    pub const fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// The CPU time used so far.
    pub fn cpu(self) -> anyhow::Result<CpuTime> {
        let pid = self.pid;
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("threads of process {pid}"))? {
            let entry = entry?;
            // A thread that ends while we look is covered by the ticks.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let id = entry.file_name().to_string_lossy().parse().context("a thread's id")?;
            let nanos = text.split(' ').next().and_then(|field| field.parse().ok()).context("schedstat")?;
            threads.insert(id, nanos);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The process's name, in parentheses, may hold spaces: count fields from behind it.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).context("stat");
        let ticks = ticks(11)? + ticks(12)?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(CpuTime { threads, ticks: Duration::from_micros(ticks * 1_000_000 / per_second) })
    }

    /// Resident memory, in KB.
    pub fn resident_kb(self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok())
            .context("VmRSS")
    }
}

impl CpuTime {
    /// What was used since `earlier`. Exact, unless threads have ended in between: then at least to the tick.
    pub fn since(&self, earlier: &Self) -> Duration {
        let used = |(id, nanos): (&u32, &u64)| nanos.saturating_sub(earlier.threads.get(id).copied().unwrap_or(0));
        let exact = Duration::from_nanos(self.threads.iter().map(used).sum());
        if earlier.threads.keys().all(|id| self.threads.contains_key(id)) {
            exact
        } else {
            exact.max(self.ticks.saturating_sub(earlier.ticks))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_metered_also_of_threads_that_have_ended() {
        let meter = ProcessMeter::of(std::process::id());
        let before = meter.cpu().unwrap();
        std::thread::spawn(|| {
            let start = std::time::Instant::now();
            while start.elapsed() < Duration::from_millis(60) {
                std::hint::black_box(start);
            }
        })
        .join()
        .unwrap();
        let during = meter.cpu().unwrap();
        assert!(during.since(&before) >= Duration::ZERO);
        assert!(during.ticks > before.ticks, "{before:?} {during:?}");
        assert!(meter.resident_kb().unwrap() > 500);
    }
}
