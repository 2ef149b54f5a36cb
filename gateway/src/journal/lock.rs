//! The lock on the journal's directory: every gateway needs a journal of its own. The kernel releases the lock when the
//! process ends. The directory has an id, so that two runs with the same directory know each other.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use uuid::Uuid;

use super::error::{JournalOpenError, is_full};

/// Holds the lock until dropped, by keeping the lock file open.
#[derive(Debug)]
pub(super) struct DirectoryLock(#[expect(dead_code, reason = "the lock is held for as long as the file is open")] File);

impl DirectoryLock {
    /// Locks the directory, and writes the process id to the lock file. Fails if another process holds the lock.
    pub(super) fn take(directory: &Path) -> Result<Self, JournalOpenError> {
        let path = directory.join("lock");
        let unusable = |error| JournalOpenError::Unusable { path: path.clone(), error };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| JournalOpenError::Unusable { path: path.clone(), error })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // The holder's process id only helps the operator, so a failure to read the id is ignored.
                let _ = file.read_to_string(&mut holder);
                return Err(JournalOpenError::Locked { path: directory.to_owned(), holder: holder.trim().to_owned() });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        // The process id is written for operators only. A full disk may have no room for the file's contents.
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written
            && !is_full(&error)
        {
            return Err(unusable(error));
        }
        Ok(Self(file))
    }
}

/// Returns the id of the locked directory, and makes the id at the first call. `None` if the id cannot be written, as on a
/// full disk; the next start tries again.
pub(super) fn directory_id(directory: &Path) -> Option<Uuid> {
    let path = directory.join("id");
    if let Some(id) = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
        return Some(id);
    }
    let id = Uuid::now_v7();
    let temporary = directory.join("id.new");
    let written = std::fs::write(&temporary, format!("{id}\n")).and_then(|()| std::fs::rename(&temporary, &path));
    written
        .inspect_err(|error| tracing::warn!(%error, path = %path.display(), "the id of the journal cannot be written"))
        .is_ok()
        .then_some(id)
}
