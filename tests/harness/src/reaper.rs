//! Sees to it that nothing outlives this process, however it ends: a small shell that reads from a pipe which children
//! to watch, and when the pipe ends, because this process did, stops those that are left and deletes their directories.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Pid, Signal};

/// Reads `watch SIGNAL PID`, `forget PID` and `delete PATH`. What a stop signal does not end in ten seconds, a kill does.
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

/// From now on this child gets `signal` should this process end before it.
pub(crate) fn watch(pid: Pid, signal: Signal) {
    let name = match signal {
        Signal::INT => "INT",
        Signal::TERM => "TERM",
        _ => "KILL",
    };
    tell(&format!("watch {name} {pid}\n"));
}

/// This child is gone; its number may soon be another's.
pub(crate) fn forget(pid: Pid) {
    tell(&format!("forget {pid}\n"));
}

/// This directory goes when this process has ended.
pub(crate) fn delete_at_the_end(directory: &Path) {
    tell(&format!("delete {}\n", directory.display()));
}

fn tell(line: &str) {
    let reaper = REAPER.get_or_init(|| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a group of its own: what is meant for ours (an interrupt from the terminal) is not meant for it.
        let mut child = command.current_dir("/").process_group(0).spawn().ok()?;
        child.stdin.take().map(Mutex::new)
    });
    if let Some(pipe) = reaper {
        // A reaper that is gone leaves us without the safety, not without the children.
        let _ = pipe.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}
