//! CPU time and resident memory of a process.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// Reads CPU time and memory of one process from `/proc`.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMeter {
    pid: u32,
}

/// CPU time of a process up to one point in time.
#[derive(Debug)]
pub struct CpuTime {
    /// Nanoseconds of each living thread.
    threads: HashMap<u32, u64>,
    /// User and system time of all threads, ended threads included, in clock ticks of about 10 ms.
    ticks: Duration,
}

impl ProcessMeter {
    /// A meter of the process with this id.
    pub const fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// CPU time of the process so far.
    pub fn cpu(self) -> anyhow::Result<CpuTime> {
        let pid = self.pid;
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))
            .with_context(|| format!("cannot list the threads of process {pid}"))?
        {
            let entry = entry?;
            // The CPU time of a thread that ends during the reading is included in the process's ticks.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let id = entry.file_name().to_string_lossy().parse().context("a thread's id")?;
            let nanos = text.split(' ').next().and_then(|field| field.parse().ok()).context("schedstat")?;
            threads.insert(id, nanos);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The process's name, in parentheses, may have spaces, so fields are counted after the name.
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
    /// CPU time since `earlier`. Exact to the nanosecond, unless a thread has ended in between: then exact to the clock tick.
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
