//! One gateway, one journal: a lock on its directory that goes when the process does.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::error::JournalOpenError;

/// Holds the directory.
#[derive(Debug)]
pub(super) struct DirectoryLock(#[expect(dead_code, reason = "the lock is held for as long as the file is open")] File);

impl DirectoryLock {
    /// Takes the directory, which must not be another process's.
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
                // Whom it belongs to is only said to be helpful.
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
