//! A child process: output goes to a log file, the exit can be awaited, and dropping the handle kills the process.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, PipeReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::sync::watch;

use crate::reaper;

/// Time limit for the start or the stop of a server. Generous, because a build may slow the machine down.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Number of lines of a log that are shown when the process fails.
const LAST_LINES: usize = 30;

/// Program, log, readiness text and stop signal for [`Process::start`].
#[derive(Debug)]
pub struct StartOptions<'a> {
    /// Name of the process in messages.
    pub name: &'a str,
    /// Program, arguments and environment.
    pub command: Command,
    /// Log file. Output is appended.
    pub log: &'a Path,
    /// Text of the line of output that says that the process is ready.
    pub ready: &'static str,
    /// Signal that stops the process in good order.
    pub stop: Signal,
}

/// A child process, running or ended.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    stop: Signal,
    /// False once the child has been reaped. Locked while a signal is sent, so that no signal goes to another process with the
    /// same id.
    alive: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<ExitStatus>>,
    ready: watch::Receiver<Option<String>>,
    waiter: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a process in a process group of its own, so that an interrupt from the terminal does not reach the process.
    pub fn start(start: StartOptions<'_>) -> anyhow::Result<Self> {
        let StartOptions { name, mut command, log, ready: marker, stop } = start;
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot open the log {}", log.display()))?;
        let (reader, writer) = std::io::pipe()?;
        command.stdin(Stdio::null()).stderr(writer.try_clone()?).stdout(writer).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        drop(command);
        let pid = Pid::from_child(&child);
        reaper::watch(pid, stop);

        let (ready_sender, ready) = watch::channel(None);
        std::thread::spawn(move || copy_lines(reader, file, marker, &ready_sender));
        let (exit_sender, exit) = watch::channel(None);
        let alive = Arc::new(Mutex::new(true));
        let waiter = std::thread::spawn({
            let alive = Arc::clone(&alive);
            move || reap(child, pid, &alive, &exit_sender)
        });
        Ok(Self { name: name.to_owned(), pid, log: log.to_owned(), stop, alive, exit, ready, waiter: Some(waiter) })
    }

    /// Returns the process id, also of a process that has ended.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// Waits for the line of output that says that the process is ready, and returns the line. Fails when the process ends
    /// first, or after `within`.
    pub async fn ready(&self, within: Duration) -> anyhow::Result<String> {
        let mut ready = self.ready.clone();
        let said = async { ready.wait_for(Option::is_some).await.ok().and_then(|line| line.clone()) };
        tokio::select! {
            biased;
            Some(line) = said => Ok(line),
            status = self.exited() => {
                self.logged_all().await;
                bail!("{} ended ({status}) before it was ready\n{}", self.name, self.last_lines())
            }
            () = tokio::time::sleep(within) => bail!("{} was not ready within {within:?}\n{}", self.name, self.last_lines()),
        }
    }

    /// Waits until the output of a process that has ended is in the log, at most for 5 s: a child of the process may keep the output
    /// open.
    async fn logged_all(&self) {
        // The sender is dropped at the end of the output.
        let mut output = self.ready.clone();
        let ended = async { while output.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(Duration::from_secs(5), ended).await;
    }

    /// Waits for the end of the process.
    pub async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        // The sender is dropped without a status only if the waiting thread has panicked.
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status).unwrap_or_else(|| ExitStatus::from_raw(-1))
    }

    /// Returns true until the process has ended.
    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(&self, signal: Signal) {
        if *self.alive.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Stops the process in good order. After `within` the process is killed, and the result is an error.
    pub async fn stop(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(self.stop);
        if let Ok(status) = tokio::time::timeout(within, self.exited()).await {
            return Ok(status);
        }
        self.signal(Signal::KILL);
        self.exited().await;
        bail!("{} did not stop within {within:?} and was killed\n{}", self.name, self.last_lines())
    }

    /// Kills the process with SIGKILL and waits for the end.
    pub async fn kill9(&self) {
        self.signal(Signal::KILL);
        self.exited().await;
    }

    /// Suspends the process: connections stay open and requests get no response.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes a suspended process.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until the log contains this text. Fails after three minutes.
    pub async fn logged(&self, text: &str) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + 3 * START_TIMEOUT;
        loop {
            if std::fs::read_to_string(&self.log).unwrap_or_default().contains(text) {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("{} did not log {text:?}\n{}", self.name, self.last_lines());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Path of the log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last 30 lines of the log, under a headline.
    pub fn last_lines(&self) -> String {
        last_lines(&self.name, &self.log)
    }

    /// Handles of the child processes of the process.
    pub(crate) fn children(&self) -> Vec<ProcessHandle> {
        let list = format!("/proc/{0}/task/{0}/children", self.pid);
        let list = std::fs::read_to_string(list).unwrap_or_default();
        let pids = list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        pids.filter_map(ProcessHandle::open).collect()
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "the log of a server explains a failing test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_lines());
        }
        self.signal(Signal::KILL);
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
    }
}

/// A handle (pidfd) of a process that is no child of this process. A later process with the same id has another handle.
#[derive(Debug)]
pub struct ProcessHandle(OwnedFd);

impl ProcessHandle {
    /// Opens the process with this id. None if there is no such process.
    pub fn open(pid: Pid) -> Option<Self> {
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok().map(Self)
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.0, signal);
    }

    /// Waits for the end of the process and returns true, or returns false after `within`. Blocks the thread.
    pub fn gone(&self, within: Duration) -> bool {
        let mut polled = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::IN)];
        let within = rustix::event::Timespec::try_from(within).ok();
        rustix::event::poll(&mut polled, within.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

/// The last 30 lines of a log, under a headline with the name of the process.
pub fn last_lines(name: &str, log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    format!("--- {name}: the end of {}\n{}\n---", log.display(), last.join("\n"))
}

/// Copies lines until the end of the output, and sends the first line that contains `marker`.
fn copy_lines(reader: PipeReader, mut file: File, marker: &str, ready: &watch::Sender<Option<String>>) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut waiting = true;
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // On a full disk the line is lost, but the server must not block on a full pipe.
        let _ = file.write_all(&line);
        if waiting && String::from_utf8_lossy(&line).contains(marker) {
            ready.send_replace(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            waiting = false;
        }
        line.clear();
    }
}

fn reap(mut child: Child, pid: Pid, alive: &Mutex<bool>, exit: &watch::Sender<Option<ExitStatus>>) {
    let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let mut alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
    *alive = false;
    reaper::forget(pid);
    let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(-1));
    exit.send_replace(Some(status));
}
