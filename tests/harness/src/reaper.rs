//! Cleanup after the end of this process, even after SIGKILL: a small shell reads from a pipe the ids of child processes and
//! the paths of directories. When the pipe ends, the shell stops the remaining processes and deletes the directories.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Pid, Signal};

/// Reads `watch SIGNAL PID`, `forget PID` and `delete PATH`. A process that the signal does not stop within ten seconds is
/// killed.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
watched= directories=
while read -r word first second; do
    case $word in
    watch) watched="$watched $first:$second" ;;
    forget)
        kept=
        for one in $watched; do [ "${one#*:}" = "$first" ] || kept="$kept $one"; done
        watched=$kept ;;
    delete) directories="$directories
$first" ;;
    esac
done
for one in $watched; do kill -s "${one%%:*}" "${one#*:}"; kill -s CONT "${one#*:}"; done
tries=0
for one in $watched; do
    while kill -0 "${one#*:}" && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -s KILL "${one#*:}"
done
IFS='
'
for directory in $directories; do rm -rf "$directory"; done
"#;

static REAPER: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();

/// Registers a child process, which gets `signal` if this process ends first.
pub(crate) fn watch(pid: Pid, signal: Signal) {
    let name = match signal {
        Signal::INT => "INT",
        Signal::TERM => "TERM",
        _ => "KILL",
    };
    tell(&format!("watch {name} {pid}\n"));
}

/// Removes a child process that has ended: another process may soon have the same id.
pub(crate) fn forget(pid: Pid) {
    tell(&format!("forget {pid}\n"));
}

/// Registers a directory, which is deleted after the end of this process.
pub(crate) fn delete_at_the_end(directory: &Path) {
    tell(&format!("delete {}\n", directory.display()));
}

fn tell(line: &str) {
    let reaper = REAPER.get_or_init(|| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A process group of its own, so that an interrupt from the terminal does not reach the shell.
        let mut child = command.current_dir("/").process_group(0).spawn().ok()?;
        child.stdin.take().map(Mutex::new)
    });
    if let Some(pipe) = reaper {
        // Without a reaper the children run on, but nothing stops them after this process.
        let _ = pipe.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}
