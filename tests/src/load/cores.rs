//! CPU cores of a run. The target has a core of its own; the load generator, the upstream and the broker share another core.
//! The cost of a target is then separate from the cost of the load, and all targets have the same single core.

use std::io;

use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::CpuSet;

/// CPU cores of a run, on a machine with at least two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cores {
    /// Core of the target alone.
    pub target: usize,
    /// Core of the load generator and the upstream.
    pub load: usize,
    /// Core of the broker. By default, the load generator's.
    pub broker: usize,
}

/// Runs `work`, which starts a child process, on this core: a child inherits the affinity of the starting thread. Afterwards
/// this process, threads for the child included, is back on the core `home`.
pub async fn on_core<T>(core: usize, home: usize, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    pin_this_thread(core)?;
    let result = work.await;
    pin_process(std::process::id(), home)?;
    result
}

/// Pins the calling thread, and later children of the thread, to one core.
pub fn pin_this_thread(core: usize) -> io::Result<()> {
    Ok(rustix::thread::sched_setaffinity(None, &only(core))?)
}

/// Pins all threads of a running process, and later children, to one core.
pub fn pin_process(pid: u32, core: usize) -> io::Result<()> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Some(thread) = entry?.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw) else { continue };
        match rustix::thread::sched_setaffinity(Some(thread), &only(core)) {
            // ESRCH: the thread has ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn only(core: usize) -> CpuSet {
    let mut cores = CpuSet::new();
    cores.set(core);
    cores
}

/// Raises this process's limit of open files up to the hard limit, and beyond if permitted. Children inherit the limit. Returns
/// the new limit.
pub fn raise_open_files() -> u64 {
    const WANTED: u64 = 100_000;
    let now = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: Some(WANTED), maximum: now.maximum.map(|maximum| maximum.max(WANTED)) };
    if rustix::process::setrlimit(Resource::Nofile, raised).is_err() {
        // Without the right to raise the hard limit, the soft one still goes up to it.
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    }
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
