//! Which core does what. The program under load has one to itself; the load, the upstream and the broker share another. So
//! what a target costs is not mixed with what it costs to load it, and every target has the same single core.

use std::io;

use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::CpuSet;

/// The cores of a run, where the machine has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cores {
    /// For the target, alone.
    pub target: usize,
    /// For the load generator and the upstream.
    pub load: usize,
    /// For the broker. Shared with the load unless told otherwise.
    pub broker: usize,
}

/// Runs `work`, which starts a child process, on this core: a child inherits the affinity of the thread that starts it.
/// Afterwards this process, with the threads that look after the child, is back on `home`.
pub async fn on_core<T>(core: usize, home: usize, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    pin_this_thread(core)?;
    let result = work.await;
    pin_process(std::process::id(), home)?;
    result
}

/// Keeps the calling thread, and what it starts from now on, on one core.
pub fn pin_this_thread(core: usize) -> io::Result<()> {
    Ok(rustix::thread::sched_setaffinity(None, &only(core))?)
}

/// Keeps all threads of a running process, and what they start from now on, on one core.
pub fn pin_process(pid: u32, core: usize) -> io::Result<()> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Some(thread) = entry?.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw) else { continue };
        match rustix::thread::sched_setaffinity(Some(thread), &only(core)) {
            // It has ended meanwhile.
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

/// Raises this process's limit of open files, and so its children's, as far as it goes; returns what it is now.
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
