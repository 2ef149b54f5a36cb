//! A temporary directory for a server's data.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::reaper;

/// The free disk space that a server starts with. With less, nats-server refuses to create the bucket of idempotency keys,
/// for which it reserves 256 MiB, and every later test would fail with an error that does not name the disk.
const MIN_FREE_BYTES: u64 = 1 << 30;

/// A directory that is deleted when dropped, and at the latest after the end of this process.
#[derive(Debug)]
pub(super) struct TemporaryDirectory(tempfile::TempDir);

impl TemporaryDirectory {
    /// Creates the directory. Fails with less than [`MIN_FREE_BYTES`] of free disk space.
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        let parent = std::env::temp_dir();
        let file_system = rustix::fs::statvfs(&parent).with_context(|| format!("cannot read {}", parent.display()))?;
        let free = file_system.f_bavail.saturating_mul(file_system.f_frsize);
        ensure!(
            free >= MIN_FREE_BYTES,
            "only {} MiB are free in {}, but the servers of a test need {} MiB: free space, or set TMPDIR",
            free >> 20,
            parent.display(),
            MIN_FREE_BYTES >> 20
        );
        let directory = tempfile::Builder::new().prefix(&format!("stenograph-{name}-")).tempdir()?;
        reaper::delete_at_the_end(directory.path());
        Ok(Self(directory))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}
