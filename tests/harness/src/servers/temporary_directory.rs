//! A temporary directory for a server's data.

use std::path::Path;

use crate::reaper;

/// A directory that is deleted when dropped, and at the latest after the end of this process.
#[derive(Debug)]
pub(super) struct TemporaryDirectory(tempfile::TempDir);

impl TemporaryDirectory {
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix(&format!("stenograph-{name}-")).tempdir()?;
        reaper::delete_at_the_end(directory.path());
        Ok(Self(directory))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}
