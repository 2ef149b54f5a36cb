//! A directory for a server's data that goes with it.

use std::path::Path;

use crate::reaper;

/// A directory for a server's data that goes with it.
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
