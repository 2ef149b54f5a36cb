//! A disk that fails when a test wants it to.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

/// What the disk does, and what of it is safe.
#[derive(Debug, Default)]
pub(in crate::journal) struct FaultyDisk(Mutex<DiskState>);

#[derive(Debug, Default)]
struct DiskState {
    /// No segment can be made any more.
    is_full: bool,
    /// Nothing can be written any more.
    is_broken: bool,
    /// So many syncs fail.
    failing_syncs: u32,
    /// Writes that are not synced, by segment.
    unsynced: BTreeMap<u64, Vec<UnsyncedWrite>>,
}

/// A write.
#[derive(Clone, Debug)]
pub(in crate::journal) struct UnsyncedWrite {
    pub(in crate::journal) at: u64,
    pub(in crate::journal) bytes: Vec<u8>,
}

impl FaultyDisk {
    fn state(&self) -> std::sync::MutexGuard<'_, DiskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No segment can be made any more; or they can again.
    pub(in crate::journal) fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    /// Nothing can be written any more; or it can again.
    pub(in crate::journal) fn set_broken(&self, is_broken: bool) {
        self.state().is_broken = is_broken;
    }

    /// The next syncs fail.
    pub(in crate::journal) fn fail_syncs(&self, count: u32) {
        self.state().failing_syncs = count;
    }

    /// What a power cut may take.
    pub(in crate::journal) fn unsynced(&self) -> BTreeMap<u64, Vec<UnsyncedWrite>> {
        self.state().unsynced.clone()
    }

    pub(in crate::journal) fn check_create(&self) -> io::Result<()> {
        let state = self.state();
        if state.is_full || state.is_broken { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Fails after half of the bytes were written, as a disk may.
    pub(in crate::journal) fn check_write(
        &self,
        segment: u64,
        bytes: &[u8],
        at: u64,
        write: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state();
        if state.is_broken {
            write(&bytes[..bytes.len() / 2])?;
            return Err(io::Error::from_raw_os_error(5));
        }
        state.unsynced.entry(segment).or_default().push(UnsyncedWrite { at, bytes: bytes.to_vec() });
        Ok(())
    }

    pub(in crate::journal) fn check_sync(&self, _segment: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    pub(in crate::journal) fn mark_synced(&self, segment: u64) {
        self.state().unsynced.remove(&segment);
    }

    pub(in crate::journal) fn mark_removed(&self, segment: u64) {
        self.state().unsynced.remove(&segment);
    }
}
