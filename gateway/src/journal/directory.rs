//! The journal's directory: the names of the segments, and the files that are opened in it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::descriptors::DescriptorReserve;
use super::disk_watch::DiskOperations;

/// The directory that contains the segments.
#[derive(Clone, Debug)]
pub(super) struct LogDirectory {
    path: PathBuf,
    /// The open directory, for syncs of file names. Opened once, so that a sync needs no free file descriptor.
    handle: Arc<OnceLock<File>>,
    descriptors: DescriptorReserve,
    pub(super) operations: Arc<DiskOperations>,
    #[cfg(test)]
    pub(super) disk: Arc<super::tests::disk::FaultyDisk>,
}

impl LogDirectory {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            handle: Arc::default(),
            descriptors: DescriptorReserve::default(),
            operations: Arc::default(),
            #[cfg(test)]
            disk: Arc::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn segment_path(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:016}.log"))
    }

    /// Returns the numbers of all segments in ascending order.
    pub(super) fn segment_numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|stem| stem.len() == 16);
            numbers.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn spare_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:016}.spare"))
    }

    /// Removes the spare segments that an earlier process left.
    pub(super) fn remove_spare_segments(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "spare") {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove_segment(&self, segment: u64) -> io::Result<()> {
        let removing = self.operations.writes.begin();
        std::fs::remove_file(self.segment_path(segment))?;
        drop(removing);
        #[cfg(test)]
        self.disk.mark_removed(segment);
        Ok(())
    }

    /// Returns the open directory, and opens the directory at the first call.
    pub(super) fn handle(&self) -> io::Result<&File> {
        if self.handle.get().is_none() {
            let _ = self.handle.set(File::open(&self.path)?);
        }
        self.handle.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Syncs the directory, so that the names of new segments are on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle()?.sync_all()
    }

    /// Opens a file of the journal, from the reserve of file descriptors if the process has no free one.
    pub(super) fn open_file(&self, path: &Path, options: &OpenOptions) -> io::Result<File> {
        let opened = self.descriptors.open(|| {
            #[cfg(test)]
            self.disk.check_open()?;
            options.open(path)
        });
        if let (Ok(_), Ok(handle)) = (&opened, self.handle()) {
            self.descriptors.fill(handle);
        }
        opened
    }

    /// Opens a segment for reading.
    pub(super) fn open_segment(&self, segment: u64) -> io::Result<File> {
        self.open_file(&self.segment_path(segment), OpenOptions::new().read(true))
    }
}
