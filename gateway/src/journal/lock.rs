//! The lock on the journal's directory: every gateway needs a journal of its own. The kernel releases the lock when the
//! process ends.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::error::JournalOpenError;

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
        file.set_len(0).map_err(unusable)?;
        writeln!(file, "{}", std::process::id()).map_err(unusable)?;
        Ok(Self(file))
    }
}
