//! One command at a time: `up`, `down` and `reset` hold a lock on the deployment's directory.

use std::fs::{File, TryLockError};

use crate::directory::Directory;
use crate::output;

/// The lock of a deployment. Released when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock. Waits while another command holds the lock.
pub(crate) fn take(directory: &Directory) -> anyhow::Result<Lock> {
    std::fs::create_dir_all(directory.run())?;
    let file = File::create(directory.run().join("lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            output::line("Another deploy/local.sh is at work here: waiting for it.");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    Ok(Lock { _file: file })
}
